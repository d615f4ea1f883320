package org.ondevice.core

import java.io.File
import java.io.IOException

/**
 * What [BundleStore] remembers of one name, by [BundleManifest.id].
 *
 * @property current the bundle in use.
 * @property shipped the bundle that was taken from the app last: it is not taken again, whatever became of it.
 * @property starting the bundle that is being started for the first time; left behind by a process that ended in it.
 */
internal data class BundleState(
    val current: String? = null,
    val shipped: String? = null,
    val starting: String? = null,
) {
    fun write(file: File, disk: Disk) {
        val part = File(file.parentFile, file.name + PART)
        disk.write(part, Json.write(mapOf("current" to current, "shipped" to shipped, "starting" to starting)))
        disk.rename(part, file)
    }

    companion object {
        const val PART = ".part"

        /** Null where there is none, or it is damaged. */
        fun read(file: File): BundleState? = try {
            val values = Json.parse(file.readText()) as? Map<*, *>
            val ids = listOf("current", "shipped", "starting").map { values?.get(it) }
            if (values == null || ids.any { it != null && it !is String }) {
                null
            } else {
                BundleState(ids[0] as String?, ids[1] as String?, ids[2] as String?)
            }
        } catch (_: IOException) {
            null
        } catch (_: JsonError) {
            null
        }
    }
}
