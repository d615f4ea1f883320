package org.ondevice.core

import java.io.File
import java.io.IOException
import java.io.InputStream
import java.util.UUID
import java.util.zip.ZipException
import java.util.zip.ZipInputStream

/**
 * The bundles on this phone, each in a directory of its own under [root].
 *
 * A bundle is replaced by two renames. If the app is ended between them, [recover] finds the old one under another
 * name and puts it back; at no time is a half-written bundle under its own name.
 */
class BundleStore(private val root: File) {

    /** Names of the bundles, sorted. */
    fun names(): List<String> = root.listFiles().orEmpty()
        .filter { it.isDirectory && isName(it.name) }
        .map { it.name }
        .sorted()

    fun directory(name: String): File {
        require(isName(name)) { "\"$name\" is no name of a bundle" }
        return File(root, name)
    }

    /** What the bundle [name] says of itself; its files are not read. */
    fun info(name: String): BundleInfo = BundleInfo.read(directory(name))

    fun open(name: String): ModelBundle = ModelBundle.open(directory(name))

    /** Ends what an earlier process began: puts an old bundle back whose new one is not there, clears the rest. */
    fun recover() {
        for (directory in root.listFiles().orEmpty()) {
            if (directory.name.startsWith(OLD)) {
                val current = File(root, directory.name.removePrefix(OLD))
                if (!current.exists()) rename(directory, current) else directory.deleteRecursively()
            } else if (directory.name.startsWith(INCOMING)) {
                directory.deleteRecursively()
            }
        }
    }

    /**
     * Puts a bundle under [name]. [write] fills an empty directory; [accept] then has the last word, with the new
     * bundle verified and the old one untouched: it runs the golden cases, and throws to refuse.
     */
    fun install(name: String, write: (File) -> Unit, accept: (ModelBundle) -> Unit) {
        val current = directory(name)
        val incoming = File(root, INCOMING + UUID.randomUUID())
        if (!incoming.mkdirs()) throw IOException("$incoming cannot be made")
        try {
            write(incoming)
            accept(ModelBundle.open(incoming))
            swap(incoming, current)
        } finally {
            incoming.deleteRecursively()
        }
    }

    private fun swap(incoming: File, current: File) {
        val old = File(root, OLD + current.name)
        old.deleteRecursively()
        val hadOld = current.exists()
        if (hadOld) rename(current, old)
        try {
            rename(incoming, current)
        } catch (error: IOException) {
            if (hadOld) rename(old, current)
            throw error
        }
        old.deleteRecursively()
    }

    private fun rename(from: File, to: File) {
        if (!from.renameTo(to)) throw IOException("${from.name} could not be renamed to ${to.name}")
    }

    companion object {
        private const val OLD = ".old-"
        private const val INCOMING = ".incoming-"
        private const val MAX_FILES = 16
        const val MAX_BYTES = 512L shl 20
        private val NAME = Regex("[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")

        fun isName(text: String) = NAME.matches(text)

        /**
         * Unpacks the bundle in a zip into [target]: its files at the top, or all in one folder. A name that would
         * lead out of [target] is refused, as are more than [MAX_FILES] files or [maxBytes] bytes.
         */
        fun unzip(input: InputStream, target: File, maxBytes: Long = MAX_BYTES) {
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
                        if (parts.size > 2 || parts.any { !isName(it) }) {
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
}
