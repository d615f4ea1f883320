package org.ondevice.core

import java.io.File
import java.io.IOException
import java.io.InputStream
import java.util.zip.ZipException
import java.util.zip.ZipInputStream

/** A bundle in a zip, as a person picks it. */
public object BundleZip {
    private const val MAX_FILES = 16

    /** More is no bundle for a phone. */
    public const val MAX_BYTES: Long = 512L shl 20

    /**
     * Unpacks the bundle in a zip into [target]: its files at the top, or all in one folder. A name that would
     * lead out of [target] is refused, as are more than [MAX_FILES] files or [maxBytes] bytes.
     *
     * @throws BundleError.BadArchive if it is no bundle in a zip.
     */
    @JvmStatic
    @JvmOverloads
    @Throws(BundleError::class, IOException::class)
    public fun unzip(input: InputStream, target: File, maxBytes: Long = MAX_BYTES) {
        var remaining = maxBytes
        val written = HashSet<String>()
        var folder: String? = null
        try {
            ZipInputStream(input).use { zip ->
                while (true) {
                    val entry = zip.nextEntry ?: break
                    if (entry.isDirectory) continue
                    val parts = entry.name.split('/')
                    val parent = parts.dropLast(1).joinToString("/")
                    if (parts.size > 2 || parts.any { !BundleStore.isName(it) }) {
                        throw BundleError.BadArchive("it holds \"${entry.name}\"")
                    }
                    if (folder != null && folder != parent) throw BundleError.BadArchive("it has several folders")
                    folder = parent
                    if (!written.add(parts.last()) || written.size > MAX_FILES) {
                        throw BundleError.BadArchive("it holds too many files, or one of them twice")
                    }
                    remaining = copy(zip, File(target, parts.last()), remaining)
                }
            }
        } catch (error: ZipException) {
            throw BundleError.BadArchive("the zip is damaged", error)
        }
        if (BundleManifest.FILE !in written) throw BundleError.BadArchive("it has no ${BundleManifest.FILE}")
    }

    private fun copy(input: InputStream, file: File, maxBytes: Long): Long {
        var remaining = maxBytes
        val buffer = ByteArray(64 * 1024)
        file.outputStream().use { output ->
            while (true) {
                val size = input.read(buffer)
                if (size < 0) return remaining
                remaining -= size
                if (remaining < 0) throw BundleError.BadArchive("it is larger than $maxBytes bytes")
                output.write(buffer, 0, size)
            }
        }
    }
}
