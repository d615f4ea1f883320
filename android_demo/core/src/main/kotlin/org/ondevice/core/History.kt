package org.ondevice.core

import java.io.File
import java.io.FileNotFoundException
import java.io.IOException

/**
 * What a person did, kept on this phone alone: keys of items and when, the newest last, as `recommend` takes them.
 *
 * A change is on the storage when the call returns. It is written beside and renamed, so that a process that ends at
 * any moment, or a phone that loses its power, leaves the keys of before or those of after. Any thread may call; there
 * is one object for a file.
 *
 * @property maximum how many keys are kept: of more, the oldest go.
 */
public class History private constructor(
    private val file: File,
    public val maximum: Int,
    private val disk: Disk,
    private var kept: List<Tap>,
) {
    /** Keys and times, the newest last: a list that no later change changes. */
    public val taps: List<Tap>
        @Synchronized get() = kept

    /** The keys of [taps]. */
    public val keys: List<String>
        get() = taps.map { it.key as String }

    /**
     * Adds [key] as the newest; what is there already is there again.
     *
     * @param at when, in seconds since 1970; null where it is not known.
     */
    @Synchronized
    @JvmOverloads
    @Throws(IOException::class)
    public fun add(key: String, at: Double? = Tap.now()): Unit = write((kept + Tap(key, at)).takeLast(maximum))

    /** Takes [key] away, wherever it is. */
    @Synchronized
    @Throws(IOException::class)
    public fun remove(key: String) {
        if (kept.any { it.key == key }) write(kept.filter { it.key != key })
    }

    /** Forgets everything: the file is removed. */
    @Synchronized
    @Throws(IOException::class)
    public fun clear() {
        wipe(file, disk)
        kept = emptyList()
    }

    private fun write(taps: List<Tap>) {
        val values = linkedMapOf(
            "format" to FORMAT, "format_version" to VERSION, "keys" to taps.map { it.key }, "times" to taps.map { it.at },
        )
        val part = part(file)
        disk.makeDirectory(part.parentFile)
        disk.write(part, Json.write(values))
        disk.rename(part, file)
        kept = taps
    }

    public companion object {
        private const val FORMAT = "ondevice-history"
        private const val VERSION = 2L

        /** Had keys alone; is read, and written as [VERSION]. */
        private const val VERSION_WITHOUT_TIMES = 1L
        private const val MAX_BYTES = 16L shl 20

        /**
         * What is kept in [file], which need not be there yet.
         *
         * @throws BundleError.BadHistory if it is something else: it is left as it is.
         */
        @JvmStatic
        @JvmOverloads
        @Throws(BundleError::class, IOException::class)
        public fun open(file: File, maximum: Int = 1000): History = open(file, maximum, Disk())

        internal fun open(file: File, maximum: Int, disk: Disk): History {
            require(maximum >= 1) { "maximum is $maximum, it must be at least 1" }
            val absolute = file.absoluteFile
            return History(absolute, maximum, disk, read(absolute).takeLast(maximum))
        }

        /** Removes [file] and what a process that ended left beside it, whatever it is. No object may have it open. */
        @JvmStatic
        @Throws(IOException::class)
        public fun wipe(file: File): Unit = wipe(file.absoluteFile, Disk())

        private fun wipe(file: File, disk: Disk) {
            for (each in listOf(part(file), file)) {
                if (!each.exists()) continue
                disk.deleteTree(each)
                if (each.exists()) throw IOException("${each.name} cannot be removed")
            }
            disk.syncDirectory(file.parentFile)
        }

        private fun part(file: File) = File(file.parentFile, file.name + ".part")

        private fun read(file: File): List<Tap> {
            fun refuse(detail: String, cause: Throwable? = null): Nothing = throw BundleError.BadHistory(file.name, detail, cause)
            if (file.length() > MAX_BYTES) refuse("it has ${file.length()} bytes")
            val text = try {
                file.readBytes().decodeToString()
            } catch (_: FileNotFoundException) {
                if (file.exists()) refuse("it is no file")
                return emptyList()
            }
            val values = try {
                Json.parse(text) as? Map<*, *>
            } catch (error: JsonError) {
                refuse("it is no JSON", error)
            }
            if (values == null || values["format"] != FORMAT) refuse("its format is not $FORMAT")
            val version = values["format_version"]
            if (version != VERSION && version != VERSION_WITHOUT_TIMES) refuse("its version is $version, not 1 or $VERSION")
            val keys = values["keys"] as? List<*> ?: refuse("it has no keys")
            val times = if (version == VERSION) values["times"] as? List<*> ?: refuse("it has no times") else keys.map { null }
            if (times.size != keys.size) refuse("it has ${keys.size} keys and ${times.size} times")
            return keys.zip(times) { key, time ->
                val seconds = (time as? Number)?.toDouble()
                if (time != null && seconds?.isFinite() != true) refuse("a time is $time")
                Tap(key as? String ?: refuse("a key is $key"), seconds)
            }
        }
    }
}
