package org.ondevice.core

import java.io.File
import java.io.FileNotFoundException

/** An exported model in a directory, all of whose files are those that were exported. */
public class ModelBundle private constructor(public val info: BundleInfo, public val vocabulary: Vocabulary) {
    public val directory: File get() = info.directory
    public val manifest: BundleManifest get() = info.manifest
    public val program: File get() = File(directory, BundleManifest.PROGRAM)

    /**
     * The items to choose from with their titles, or null when the bundle ships none. Reads the file at each call.
     *
     * @throws BundleError.BadCatalog if it cannot be used.
     */
    @Throws(BundleError::class)
    public fun readCatalog(): Catalog? {
        val entry = manifest.files.firstOrNull { it.name == BundleManifest.CATALOG } ?: return null
        return Catalog.read(verifiedBytes(directory, entry), this)
    }

    /**
     * Program row ids of all fields, one for each slot, for raw values by field name; an absent value is unknown.
     *
     * @throws BundleError.InvalidInput if [raw] names something that is no field, or has a text where a field takes
     *   integers.
     */
    @Throws(BundleError::class)
    public fun encode(raw: Map<String, Any?>): LongArray = encode(raw, manifest.allFields, "a field")

    /**
     * [encode] of the context fields, which [raw] may name alone.
     *
     * @throws BundleError.InvalidInput also if the model reads time gaps, of which [raw] has none.
     */
    @Throws(BundleError::class)
    public fun encodeContext(raw: Map<String, Any?>): LongArray {
        if (manifest.hasGaps) throw BundleError.InvalidInput(NEEDS_TIMES)
        return encode(raw, manifest.contextFields, "a context field")
    }

    /**
     * The context of a person who did [taps], the newest last: the rows of the items, then, where the model reads them,
     * the buckets of the time gaps between those that it knows.
     *
     * @param now when it is asked, on the clock of the taps' times.
     * @param context raw values of the context's other fields.
     * @throws BundleError.InvalidInput also if the model reads no history.
     */
    @JvmOverloads
    @Throws(BundleError::class)
    public fun encodeContext(taps: List<Tap>, now: Double, context: Map<String, Any?> = emptyMap()): LongArray {
        if (!now.isFinite()) throw BundleError.InvalidInput("now is $now, it must be a number of seconds")
        val raw = withHistory(context, taps.map { it.key })
        val rows = encode(raw, manifest.contextFields, "a context field")
        val position = manifest.historyField!!
        val field = manifest.fields[position]
        if (field.gaps == null) return rows
        val source = manifest.sources[position]
        val known = taps.filter { vocabulary.isKnown(source, manifest.fields[source], it.key) }
        return rows + TimeGaps.buckets(field.gaps, known.map { it.at }, now, field.slots)
    }

    /** The context of a golden case, as `rank` and `recommend` take it. */
    @Throws(BundleError::class)
    public fun encodeContext(case: GoldenCase): LongArray {
        val context = contextOf(case.raw)
        if (!manifest.hasGaps) return encodeContext(context)
        return encodeContext(tapsOf(case), case.now)
    }

    /** The history of a golden case; its times are known where the model reads time gaps. */
    internal fun tapsOf(case: GoldenCase): List<Tap> {
        val name = manifest.historyField?.let { manifest.fields[it].name }
        return (case.raw[name] as? List<*>).orEmpty().mapIndexed { index, key -> Tap(key, case.times.getOrNull(index)) }
    }

    /** [context] with the history under its name. */
    internal fun withHistory(context: Map<String, Any?>, history: List<Any?>): Map<String, Any?> {
        val field = manifest.historyField
            ?: throw BundleError.InvalidInput("it reads no history; give the context's fields alone")
        val name = manifest.fields[field].name
        if (name in context) throw BundleError.InvalidInput("the context has \"$name\", and a history is given")
        return context + (name to history)
    }

    /** [encode] of the item fields, which [raw] may name alone. */
    @Throws(BundleError::class)
    public fun encodeItem(raw: Map<String, Any?>): LongArray = encode(raw, manifest.itemFields, "an item field")

    /** The entries of a whole row that are context fields. */
    public fun contextOf(row: Map<String, Any?>): Map<String, Any?> = row.filterKeys { isOf(it, manifest.contextFields) }

    /** The entries of a whole row that are item fields. */
    public fun itemOf(row: Map<String, Any?>): Map<String, Any?> = row.filterKeys { isOf(it, manifest.itemFields) }

    private fun isOf(name: String, positions: IntArray) = positions.any { manifest.fields[it].name == name }

    private fun encode(raw: Map<String, Any?>, positions: IntArray, what: String): LongArray {
        for (name in raw.keys) {
            if (isOf(name, positions)) continue
            val names = positions.map { manifest.fields[it].name }
            val near = Names.nearest(name, names)
            val hint = if (near == null) "" else "did you mean \"$near\"? "
            throw BundleError.InvalidInput("\"$name\" is not $what (${hint}choose from: ${names.joinToString()})")
        }
        return positions.flatMap { position ->
            val field = manifest.fields[position]
            val source = manifest.sources[position]
            val keys = manifest.fields[source]
            val value = raw[field.name]
            if (field.of != null && (value as? Iterable<*>)?.any { it is Tap } == true) {
                throw BundleError.InvalidInput("taps are given without the present moment; give now with them")
            }
            if (if (field.of != null) keys.hasForeign(value) else field.isForeign(value)) {
                val kind = if (keys.transform == "hex") "hexadecimal numbers" else "numbers"
                throw BundleError.InvalidInput("the field \"${field.name}\" takes $kind, not \"$value\"")
            }
            val rows = if (field.of != null) {
                vocabulary.history(source, keys, value, field.slots)
            } else {
                vocabulary.rows(position, field, value)
            }
            rows.map { it.toLong() }
        }.toLongArray()
    }

    /**
     * Checks again that the program is the exported one: the engine calls it right before native code reads it.
     *
     * @throws BundleError.MissingFile if it is gone.
     * @throws BundleError.WrongHash if it has changed.
     */
    @Throws(BundleError::class)
    public fun verifyProgram(): Unit =
        verify(directory, manifest.files.first { it.name == BundleManifest.PROGRAM })

    public companion object {
        internal const val NEEDS_TIMES = "it reads when things were done; give taps with their times, and now"

        /**
         * Opens [directory] and verifies every file in it.
         *
         * @throws BundleError with a sentence for the user when the bundle cannot be used.
         */
        @JvmStatic
        @Throws(BundleError::class)
        public fun open(directory: File): ModelBundle {
            val info = BundleInfo.read(directory)
            val manifest = info.manifest
            val vocabularyEntry = manifest.files.first { it.name == BundleManifest.VOCABULARY }
            for (entry in manifest.files) if (entry !== vocabularyEntry) verify(directory, entry)
            val vocabulary = Vocabulary.read(verifiedBytes(directory, vocabularyEntry), manifest.numRows)
            if (vocabulary.numFields != manifest.fields.size) {
                throw BundleError.CorruptVocabulary(
                    "it has ${vocabulary.numFields} fields, the schema ${manifest.fields.size}",
                )
            }
            return ModelBundle(info, vocabulary)
        }

        private fun verify(directory: File, entry: FileEntry) {
            val hash = reading(entry.name, directory.name) { Sha256.of(File(directory, entry.name)) }
            if (hash != entry.sha256) throw BundleError.WrongHash(entry.name, directory.name)
        }

        /** What is read is what was verified, even if the file changes meanwhile. */
        private fun verifiedBytes(directory: File, entry: FileEntry): ByteArray {
            val data = reading(entry.name, directory.name) { File(directory, entry.name).readBytes() }
            if (Sha256.of(data) != entry.sha256) throw BundleError.WrongHash(entry.name, directory.name)
            return data
        }
    }
}

/** Runs [read]; a file that is gone has the sentence of one that is missing. */
internal inline fun <T> reading(file: String, bundle: String, read: () -> T): T = try {
    read()
} catch (_: FileNotFoundException) {
    throw BundleError.MissingFile(file, bundle)
}
