package org.ondevice.core

import java.io.File

/** An exported model in a directory, all of whose files are those that were exported. */
class Bundle private constructor(
    val directory: File,
    val manifest: Manifest,
    val vocabulary: Vocabulary,
    val manifestBytes: Long,
) {
    val program: File get() = File(directory, Manifest.PROGRAM)

    /** Bytes of all files, by name. */
    val fileBytes: Map<String, Long> =
        manifest.files.associate { it.name to it.bytes } + (Manifest.FILE to manifestBytes)

    val totalBytes: Long get() = fileBytes.values.sum()

    /** The films to choose from, or null when the bundle ships none. Reads the file at each call. */
    fun readCatalog(): Catalog? {
        if (manifest.files.none { it.name == Manifest.CATALOG }) return null
        return Catalog.read(File(directory, Manifest.CATALOG), this)
    }

    /** Program row ids of the fields at [positions], for raw values by field name. */
    fun encode(raw: Map<String, Any?>, positions: IntArray): LongArray = LongArray(positions.size) { index ->
        val field = manifest.fields[positions[index]]
        vocabulary.row(positions[index], field.canonicalText(raw[field.name])).toLong()
    }

    fun encode(raw: Map<String, Any?>): LongArray = encode(raw, manifest.fields.indices.toList().toIntArray())

    fun encodeContext(raw: Map<String, Any?>): LongArray = encode(raw, manifest.contextFields)

    fun encodeItem(raw: Map<String, Any?>): LongArray = encode(raw, manifest.itemFields)

    /**
     * Checks again that the program is the exported one: the engine calls it right before native code reads it.
     *
     * @throws BundleError.MissingFile if it is gone.
     * @throws BundleError.WrongHash if it has changed.
     */
    fun verifyProgram() = verify(directory, manifest.files.first { it.name == Manifest.PROGRAM }, manifest.name)

    companion object {
        private const val MAX_MANIFEST_BYTES = 16L shl 20

        /**
         * Opens [directory] and verifies every file in it.
         *
         * @throws BundleError with a sentence for the user when the bundle cannot be used.
         */
        fun open(directory: File): Bundle {
            val manifestFile = File(directory, Manifest.FILE)
            if (!manifestFile.isFile) throw BundleError.MissingFile(Manifest.FILE, directory.name)
            if (manifestFile.length() > MAX_MANIFEST_BYTES) throw BundleError.BadManifest("it is too large")
            val data = manifestFile.readBytes()
            val manifest = Manifest.read(data, directory.name)
            manifest.files.forEach { verify(directory, it, directory.name) }
            val vocabulary = Vocabulary.read(File(directory, Manifest.VOCABULARY).readBytes(), manifest.numRows)
            if (vocabulary.numFields != manifest.fields.size) {
                throw BundleError.CorruptVocabulary(
                    "it has ${vocabulary.numFields} fields, the schema ${manifest.fields.size}",
                )
            }
            return Bundle(directory, manifest, vocabulary, data.size.toLong())
        }

        private fun verify(directory: File, entry: FileEntry, bundle: String) {
            val file = File(directory, entry.name)
            if (!file.isFile) throw BundleError.MissingFile(entry.name, bundle)
            if (file.length() != entry.bytes || Sha256.of(file) != entry.sha256) {
                throw BundleError.WrongHash(entry.name, bundle)
            }
        }
    }
}
