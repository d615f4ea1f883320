package org.ondevice.core

import java.io.File

/**
 * What a bundle says of itself: its manifest, verified, and the sizes of its files, none of which is read.
 *
 * @property directory where it is.
 * @property fileBytes bytes of all files, by name.
 */
public class BundleInfo private constructor(
    public val directory: File,
    public val manifest: BundleManifest,
    public val fileBytes: Map<String, Long>,
) {
    /** Bytes of the program alone. */
    public val programBytes: Long get() = fileBytes.getValue(BundleManifest.PROGRAM)

    /** Bytes of the titles and values of the items: content to show, which the model does not need. */
    public val catalogBytes: Long get() = fileBytes[BundleManifest.CATALOG] ?: 0

    /** Bytes of all that the model needs: program, vocabulary and manifest. */
    public val modelBytes: Long get() = totalBytes - catalogBytes

    /** Bytes of all files. */
    public val totalBytes: Long get() = fileBytes.values.sum()

    public companion object {
        private const val MAX_MANIFEST_BYTES = 16L shl 20

        /**
         * Reads the manifest in [directory], and looks whether the files it names are there with their sizes.
         *
         * @throws BundleError with a sentence for the user when the bundle cannot be used.
         */
        @JvmStatic
        @Throws(BundleError::class)
        public fun read(directory: File): BundleInfo {
            val file = File(directory, BundleManifest.FILE)
            if (!file.isFile) throw BundleError.MissingFile(BundleManifest.FILE, directory.name)
            if (file.length() > MAX_MANIFEST_BYTES) throw BundleError.BadManifest("it is too large")
            val data = reading(BundleManifest.FILE, directory.name) { file.readBytes() }
            val manifest = BundleManifest.read(data, directory.name)
            for (entry in manifest.files) {
                val named = File(directory, entry.name)
                if (!named.isFile) throw BundleError.MissingFile(entry.name, directory.name)
                if (named.length() != entry.bytes) throw BundleError.WrongHash(entry.name, directory.name)
            }
            val sizes = manifest.files.associate { it.name to it.bytes }
            return BundleInfo(directory, manifest, sizes + (BundleManifest.FILE to data.size.toLong()))
        }
    }
}
