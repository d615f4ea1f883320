package org.ondevice.core

/**
 * A tensor that a method takes or returns.
 *
 * @property shape sizes; null where the caller chooses, up to the method's maximum.
 */
public class TensorSignature internal constructor(public val name: String, public val dtype: String, public val shape: List<Int?>)

/**
 * @property maximum the most rows at once: `max_batch`, `max_items` or `k`.
 * @property maxExcluded the most items that `recommend` can be told to leave out; 0 where it cannot. One that can also
 *   leaves out its history, and its items are its rows.
 */
public class MethodSignature internal constructor(
    public val name: String,
    public val inputs: List<TensorSignature>,
    public val outputs: List<TensorSignature>,
    public val maximum: Int,
    public val maxExcluded: Int = 0,
) {
    /** Those that a caller gives: without what the method `items` returns. */
    internal val rowInputs: List<TensorSignature>
        get() = if (readsItemVectors) inputs.dropLast(1) else inputs

    /** Whether its last input is what the method `items` returns. */
    public val readsItemVectors: Boolean get() = inputs.lastOrNull()?.name == BundleManifest.ITEM_VECTORS

    /** Whether the rows of the last input must be exactly [maximum]. */
    public val isFixed: Boolean get() = rowInputs.last().shape.first() != null
}

/** The size and SHA-256 (hexadecimal) of one of the bundle's files. */
public class FileEntry internal constructor(public val name: String, public val bytes: Long, public val sha256: String)

/**
 * Raw values by field name, and what the model made of them when it was exported.
 *
 * @property ids what they must become.
 * @property score what they get.
 * @property best the keys of the items that are recommended after their history, best first, with their scores; of a
 *   model that recommends the next item.
 * @property times when each value of the history was done, null where it is not known, [now] when the model is asked, and
 *   [gaps] the buckets that they must become; of a model that reads time gaps.
 */
public class GoldenCase internal constructor(
    public val raw: Map<String, Any?>,
    public val ids: IntArray,
    public val score: Double,
    public val best: List<Pair<String, Double>> = emptyList(),
    public val times: List<Double?> = emptyList(),
    public val now: Double = 0.0,
    public val gaps: IntArray = IntArray(0),
)

/** `manifest.json`: all that is known about a bundle; nothing about a model is written in the app. */
public class BundleManifest private constructor(json: JsonObject) {
    /** The manifest's own SHA-256, which with those of its files tells a bundle from every other. */
    public val id: String = json.string("sha256")
    public val name: String = json.string("name")
    public val model: String = json.string("model")
    public val method: String = json.string("method")
    public val layout: String = json.string("layout")
    public val numRows: Int = json.int("num_rows")
    public val fields: List<Field>
    public val itemKey: String?
    public val methods: Map<String, MethodSignature>
    public val operators: List<String> = json.strings("ops")
    public val backends: List<String> = json.strings("backends")
    public val versions: Map<String, String>
    public val metrics: Map<String, Any?>
    public val files: List<FileEntry>
    public val golden: List<GoldenCase>

    /** How far a score may be from that of a golden case. */
    public val goldenTolerance: Double = if ("golden_tolerance" in json) json.double("golden_tolerance") else 1e-3

    /** Ids of a whole row, one for each slot of its fields, and where in it those of [contextFields] and [itemFields] are. */
    public val numColumns: Int
    public val contextColumns: IntArray
    public val itemColumns: IntArray

    /** Whether the model reads the time gaps of a history, so that it is asked with taps. */
    public val hasGaps: Boolean

    /** Ids of a context as `rank` and `recommend` take it: those of [contextColumns], then the buckets of their gaps. */
    public val contextWidth: Int

    /** For each field the one whose keys and rows its slots hold: itself, but for a history. */
    internal val sources: IntArray

    /** What a person reads for values that are codes, by field and key. */
    public val labels: Map<String, Map<String, String>>

    /** The field whose known values are `recommend`'s catalog, in the order of their rows, and their number. */
    public val catalogField: Int?
    public val numCatalogItems: Int

    init {
        val schema = json.child("schema")
        fields = schema.objects("fields").map { readField(it) }
        itemKey = schema.stringOrNull("item_key")
        check(fields.isNotEmpty(), "schema.fields is empty")
        check(fields.map { it.name }.toSet().size == fields.size, "schema.fields has a name twice")
        sources = fields.map { field ->
            val source = fields.indexOfFirst { it.name == (field.of ?: field.name) }
            check(source >= 0, "a history is of \"${field.of}\", which is no field")
            val holds = fields[source]
            val isHeld = !holds.isContext && holds.slots == 1 && holds.of == null && !holds.isNumber
            check(field.of == null || (field.isContext && isHeld), "a history is of \"${field.of}\", which is no item field of one value")
            source
        }.toIntArray()
        val sides = fields.flatMap { field -> List(field.slots) { field.isContext } }
        numColumns = sides.size
        contextColumns = sides.indices.filter { sides[it] }.toIntArray()
        itemColumns = sides.indices.filter { !sides[it] }.toIntArray()
        hasGaps = fields.any { it.gaps != null }
        check(!hasGaps || fields.count { it.isContext } == 1, "a history with gaps is not the only context field")
        contextWidth = if (hasGaps) 2 * contextColumns.size else contextColumns.size

        val named = if ("labels" in json) json.child("labels") else null
        labels = named?.names.orEmpty().associateWith { field ->
            check(fields.any { it.name == field }, "labels names \"$field\", which is no field")
            val texts = named!!.child(field)
            texts.names.associateWith { texts.string(it) }
        }

        val signatures = json.child("methods")
        methods = signatures.names.associateWith { readMethod(it, signatures.child(it)) }
        check(methods.isNotEmpty(), "methods is empty")
        methods.values.forEach { checkMethod(it) }

        val versionTexts = json.child("versions")
        versions = versionTexts.names.associateWith { versionTexts.string(it) }
        metrics = if ("metrics" in json) json.child("metrics").toMap() else emptyMap()

        val entries = json.child("files")
        files = entries.names.map { name ->
            check(FILE_NAME.matches(name) && name != FILE, "files names \"$name\"")
            val entry = entries.child(name)
            val sha256 = entry.string("sha256")
            check(SHA256.matches(sha256), "files.$name.sha256 is no SHA-256")
            FileEntry(name, entry.long("bytes"), sha256)
        }
        for (required in listOf(PROGRAM, VOCABULARY)) {
            check(files.any { it.name == required }, "files has no $required")
        }

        val catalog = if ("catalog" in json) json.child("catalog") else null
        catalogField = catalog?.string("key_field")?.let { name -> fields.indexOfFirst { it.name == name } }
        numCatalogItems = catalog?.int("num_items") ?: 0
        check(catalogField != -1, "catalog.key_field is no field")

        golden = json.objects("golden").map { case ->
            val ids = case.list("ids").map { id ->
                (id as? Long)?.takeIf { it in 0..numRows }?.toInt()
                    ?: throw BundleError.BadManifest("a golden id is not in 0..$numRows")
            }
            check(ids.size == numColumns, "a golden case has ${ids.size} ids for $numColumns slots")
            readCase(case, ids.toIntArray())
        }
        check(golden.size >= 2, "fewer than two golden cases")
        check(goldenTolerance >= 0, "golden_tolerance is $goldenTolerance")
    }

    /** Positions of the fields that `rank` takes once; [itemFields] are those it takes for each candidate. */
    public val contextFields: IntArray = fields.indices.filter { fields[it].isContext }.toIntArray()
    internal val allFields: IntArray = fields.indices.toList().toIntArray()
    public val itemFields: IntArray = fields.indices.filter { !fields[it].isContext }.toIntArray()

    /** The position of the field that holds what the person did; null where the model reads no history. */
    public val historyField: Int? = fields.indices.firstOrNull { fields[it].of != null }

    /** Whether the model says what comes next: its `recommend` reads a history, and leaves it out. */
    public val isNextItem: Boolean get() = methods["recommend"].let { it != null && it.maxExcluded > 0 }

    /** @throws BundleError.MissingMethod if the program has no such method. */
    @Throws(BundleError::class)
    public fun signature(method: String): MethodSignature =
        methods[method] ?: throw BundleError.MissingMethod(method, methods.keys)

    /** The name of the field that a column of a row belongs to. */
    internal fun nameOf(column: Int): String = fields.flatMap { field -> List(field.slots) { field.name } }[column]

    private fun readCase(case: JsonObject, ids: IntArray): GoldenCase {
        val raw = case.child("raw").toMap()
        val (score, best) = case.double("score") to readBest(case)
        if (!hasGaps) return GoldenCase(raw, ids, score, best)
        val history = raw[fields.first { it.gaps != null }.name] as? List<*> ?: emptyList<Any?>()
        val times = case.list("times").map { time ->
            val seconds = (time as? Number)?.toDouble()
            check(time == null || seconds?.isFinite() == true, "a golden time is $time")
            seconds
        }
        check(times.size == history.size, "a golden case has ${times.size} times for ${history.size} items")
        val gaps = case.list("gaps").map { gap ->
            (gap as? Long)?.takeIf { it in 0..TimeGaps.MAX_BUCKET }?.toInt()
                ?: throw BundleError.BadManifest("a golden gap is not in 0..${TimeGaps.MAX_BUCKET}")
        }
        check(gaps.size == contextColumns.size, "a golden case has ${gaps.size} gaps for ${contextColumns.size} places")
        val now = case.double("now")
        check(now.isFinite(), "a golden case's now is $now")
        return GoldenCase(raw, ids, score, best, times, now, gaps.toIntArray())
    }

    private fun checkMethod(method: MethodSignature) {
        check(!hasGaps || method.name != "forward", "methods.forward takes no gaps")
        val expected = when (method.name) {
            "forward" -> listOf(numColumns)
            "rank" -> listOf(contextWidth, itemColumns.size)
            "recommend" -> listOf(contextWidth)
            ITEMS -> return check(
                method.inputs.isEmpty() && method.outputs.singleOrNull()?.name == ITEM_VECTORS,
                "methods.$ITEMS does not make $ITEM_VECTORS",
            )
            else -> return
        }
        val rows = method.rowInputs
        check(rows.size == method.inputs.size || ITEMS in methods, "there is no methods.$ITEMS for methods.${method.name}")
        for (input in rows) {
            check(input.dtype == "int64", "methods.${method.name} takes ${input.dtype}, not int64")
            check(input.shape.size == 2, "methods.${method.name} takes a tensor of ${input.shape.size} dimensions")
        }
        val ofFields = if (method.maxExcluded > 0) rows.dropLast(1) else rows
        check(
            ofFields.map { it.shape[1] } == expected,
            "methods.${method.name} does not take the schema's fields",
        )
        check(method.outputs.firstOrNull()?.dtype == "float32", "methods.${method.name} does not return scores")
        if (method.name == "recommend") check(method.outputs.size == 2, "methods.recommend returns no item_index")
    }

    public companion object {
        public const val FILE: String = "manifest.json"
        public const val PROGRAM: String = "model.pte"
        public const val VOCABULARY: String = "vocabulary.bin"
        public const val CATALOG: String = "catalog.bin"
        public const val FORMAT_VERSION: Int = 3
        private const val FORMAT = "ondevice-bundle"
        private const val MAX_SLOTS = 1000
        private const val EXCLUDED = "exclude_ids"

        /** The method that takes nothing and returns the vectors of all items, the last input of the others. */
        public const val ITEMS: String = "items"
        internal const val ITEM_VECTORS = "item_vectors"
        private val KINDS = setOf("integer", "string", "number", "history")

        /** How a program joins several values; a reader only has to know that there are no others. */
        private val POOLINGS = setOf("mean", "sum", "sqrt")
        private val SHA256 = Regex("[0-9a-f]{64}")
        private val FILE_NAME = Regex("[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
        private val OWN_HASH = Regex("\\{\"sha256\": ?\"([0-9a-f]{64})\"")

        /** Reads the bytes of the manifest of [bundle], and checks its format version and its own SHA-256. */
        internal fun read(data: ByteArray, bundle: String): BundleManifest {
            val text = data.decodeToString()
            val values = try {
                Json.parse(text) as? Map<*, *> ?: throw BundleError.BadManifest("it is no JSON object")
            } catch (error: JsonError) {
                throw BundleError.BadManifest(error.message!!, error)
            }
            val json = JsonObject(values, "")
            check(json.stringOrNull("format") == FORMAT, "its format is not $FORMAT")
            val version = json.long("format_version")
            if (version > FORMAT_VERSION) throw BundleError.NewerFormat(version, FORMAT_VERSION)
            check(version == FORMAT_VERSION.toLong(), "format version $version")

            val own = OWN_HASH.matchAt(text, 0) ?: throw BundleError.BadManifest("its first entry is no SHA-256")
            val zeroed = data.copyOf()
            own.groups[1]!!.range.forEach { zeroed[it] = '0'.code.toByte() }
            if (Sha256.of(zeroed) != own.groupValues[1]) throw BundleError.WrongHash(FILE, bundle)
            return BundleManifest(json)
        }

        internal fun readField(json: JsonObject): Field {
            val side = json.stringOrNull("side") ?: "context"
            val kind = json.stringOrNull("kind") ?: "string"
            val transform = json.stringOrNull("transform")
            check(side == "context" || side == "item", "a field's side is \"$side\"")
            check(kind in KINDS, "a field's kind is \"$kind\"")
            check(transform == null || transform in Field.TRANSFORMS, "a field's transform is \"$transform\"")
            val origin = if (transform != null && "origin" in json.names) json.double("origin") else 0.0
            val missing = if ("missing" in json) json.long("missing") else null
            val of = if (kind == "history") json.string("of") else null
            val slots = if (of != null) json.int("last") else if ("slots" in json) json.int("slots") else 1
            check(slots in 1..MAX_SLOTS, "a field has $slots slots")
            val pooling = json.stringOrNull("pooling") ?: "mean"
            check(pooling in POOLINGS, "a field's pooling is \"$pooling\"")
            val gaps = json.stringOrNull("gaps")
            check(gaps == null || gaps in TimeGaps.KINDS, "a history's gaps are \"$gaps\"")
            check(gaps == null || of != null, "a field that is no history has gaps")
            val separator = json.stringOrNull("separator")
            check(separator != "", "a field's separator is empty")
            val boundaries = if (kind != "number") null else json.list("boundaries").map { boundary ->
                (boundary as? Number)?.toDouble() ?: throw BundleError.BadManifest("a boundary is $boundary")
            }
            check(boundaries.orEmpty().zipWithNext().all { (a, b) -> a < b }, "boundaries do not ascend")
            check(slots == 1 || (kind != "number" && transform == null && missing == null), "several numbers in a field")
            val isInteger = kind == "integer" || kind == "number"
            val bounds = boundaries?.toDoubleArray()
            return Field(
                json.string("name"), side == "context", isInteger, transform, origin, missing, slots, separator, bounds, of, gaps,
            )
        }

        private fun readMethod(name: String, json: JsonObject): MethodSignature {
            val maximum = when (name) {
                "forward" -> json.int("max_batch")
                "rank" -> json.int("max_items")
                "recommend" -> json.int("k")
                else -> 1
            }
            check(maximum >= 1, "methods.$name has the maximum $maximum")
            val inputs = json.objects("inputs").map { readTensor(it) }
            check(inputs.isNotEmpty() || name == ITEMS, "methods.$name takes nothing")
            val excludes = name == "recommend" && inputs.size >= 2 && inputs[1].name == EXCLUDED
            val maxExcluded = if (excludes) json.int("max_excluded") else 0
            check(!excludes || maxExcluded >= 1, "methods.$name leaves out $maxExcluded items")
            return MethodSignature(name, inputs, json.objects("outputs").map { readTensor(it) }, maximum, maxExcluded)
        }

        private fun readBest(case: JsonObject): List<Pair<String, Double>> {
            if ("best" !in case) return emptyList()
            val best = case.child("best")
            val scores = best.list("scores").map { score ->
                (score as? Number)?.toDouble() ?: throw BundleError.BadManifest("a golden score is $score")
            }
            val items = best.list("items").map { it.toString() }
            check(items.size == scores.size, "a golden case has ${items.size} items and ${scores.size} scores of them")
            return items.zip(scores)
        }

        /** Sizes are numbers; names of sizes that the caller chooses are texts. */
        private fun readTensor(json: JsonObject): TensorSignature {
            val shape = json.list("shape").map { size ->
                when (size) {
                    is Long -> size.toInt()
                    is String -> size.toIntOrNull()
                    else -> throw BundleError.BadManifest("a shape holds $size")
                }
            }
            return TensorSignature(json.string("name"), json.string("dtype"), shape)
        }

        private fun check(condition: Boolean, detail: String) {
            if (!condition) throw BundleError.BadManifest(detail)
        }
    }
}
