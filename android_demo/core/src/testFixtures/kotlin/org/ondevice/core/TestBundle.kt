package org.ondevice.core

import java.io.File
import kotlin.io.path.createTempDirectory

/**
 * A small bundle that the tests write themselves: a user and a ZIP code as context, a film and its genre as item.
 *
 * The program is not one; [FakeRuntime] scores in its place.
 */
object TestBundle {
    const val NUM_ROWS = 20
    const val MAX_ITEMS = 4
    const val CATALOG = "catalog.bin"

    val manifest: Map<String, Any?> = mapOf(
        "format" to "ondevice-bundle",
        "format_version" to 3,
        "name" to "test",
        "model" to "fm",
        "method" to "sizes",
        "layout" to "staircase",
        "schema" to mapOf(
            "name" to "films",
            "fields" to listOf(
                field("user", "context", "integer"),
                field("film", "item", "integer"),
                field("zip", "context", "string"),
                field("genre", "item", "string"),
            ),
            "label" to mapOf("column" to "rating"),
            "item_key" to "film",
        ),
        "num_rows" to NUM_ROWS,
        "sizes" to mapOf("dims" to listOf(8), "rows" to listOf(20), "first_order_rows" to 20),
        "methods" to methods(),
        "catalog" to mapOf("key_field" to "film", "num_items" to 6),
        "ops" to listOf("aten::cat.out", "aten::embedding.out"),
        "backends" to listOf("XnnpackBackend"),
        "versions" to mapOf("ondevice" to "0.1.0", "executorch" to "1.4.1"),
        "metrics" to mapOf("test_auc" to 0.9),
        "golden" to listOf(
            golden(mapOf("user" to 7, "zip" to "02138", "film" to 30, "genre" to "Drama"), listOf(1, 8, 4, 17)),
            golden(mapOf("user" to 6, "zip" to null, "film" to 999, "genre" to "Noir"), listOf(0, 20, 20, 16)),
        ),
    )

    /** Keys of the items, in the order of the program's rows. */
    val films = listOf(10L, 30L, 50L, -2L, 20L, 40L)

    /** Raw values of the items. */
    val items: List<Map<String, Any?>> =
        films.map { mapOf("film" to it, "genre" to if (it % 20 == 0L) "Drama" else "Comedy") }

    val catalog: ByteArray = CatalogWriter(films.size, 2)
        .texts("title", films.map { "Film $it" })
        .values("genre", items.map { it["genre"] })
        .bytes()

    private fun field(name: String, side: String, kind: String) = mapOf(
        "name" to name,
        "side" to side,
        "kind" to kind,
        "column" to null,
        "transform" to null,
        "origin" to 0.0,
        "min_count" to 1,
    )

    private fun golden(raw: Map<String, Any?>, ids: List<Int>): Map<String, Any?> =
        mapOf("raw" to raw, "ids" to ids, "score" to FakeRuntime.score(ids.map { it.toLong() }))

    fun methods(items: Any = "items"): Map<String, Any?> = mapOf(
        "forward" to mapOf(
            "inputs" to listOf(tensor("ids", "int64", listOf("batch", 4))),
            "outputs" to listOf(tensor("scores", "float32", listOf("batch"))),
            "max_batch" to 8,
        ),
        "rank" to mapOf(
            "inputs" to listOf(
                tensor("context_ids", "int64", listOf("1", 2)),
                tensor("item_ids", "int64", listOf(items, 2)),
            ),
            "outputs" to listOf(tensor("scores", "float32", listOf(items))),
            "max_items" to MAX_ITEMS,
        ),
        "recommend" to mapOf(
            "inputs" to listOf(tensor("context_ids", "int64", listOf("1", 2))),
            "outputs" to listOf(tensor("scores", "float32", listOf(3)), tensor("item_index", "int64", listOf(3))),
            "k" to 3,
        ),
    )

    private fun tensor(name: String, dtype: String, shape: List<Any>) =
        mapOf("name" to name, "dtype" to dtype, "shape" to shape)

    fun vocabulary(): ByteArray = VocabularyWriter(4)
        .field(unknownRow = 0, numGroups = 1).integers(1, listOf(7, 8, 1000))
        .field(unknownRow = 20, numGroups = 2).integers(7, listOf(10, 30, 50)).integers(10, listOf(-2, 20, 40))
        .field(unknownRow = 20, numGroups = 3)
        .integers(4, listOf(2138, 9021), width = 5).integers(13, listOf(2138)).texts(14, listOf("H2X", "H3Z"))
        .field(unknownRow = 16, numGroups = 1).texts(17, listOf("Drama", "Drama|War", "Épopée"))
        .bytes()

    /** Writes the bundle; [change] may replace entries of the manifest before it is signed. */
    @JvmOverloads
    fun write(
        directory: File,
        program: String = "a program",
        catalog: ByteArray? = this.catalog,
        vocabulary: ByteArray = vocabulary(),
        change: (MutableMap<String, Any?>) -> Unit = {},
    ): File {
        directory.mkdirs()
        File(directory, "model.pte").writeText(program)
        File(directory, "vocabulary.bin").writeBytes(vocabulary)
        if (catalog != null) File(directory, CATALOG).writeBytes(catalog)
        val files = directory.listFiles()!!.filter { it.name != "manifest.json" }.sortedBy { it.name }.associate {
            it.name to mapOf("bytes" to it.length(), "sha256" to Sha256.of(it))
        }
        val values = LinkedHashMap<String, Any?>(manifest)
        values["files"] = files
        change(values)
        File(directory, "manifest.json").writeText(sign(values))
        return directory
    }

    /** The manifest's text with its own SHA-256 in front. */
    fun sign(values: Map<String, Any?>): String {
        val text = Json.write(linkedMapOf<String, Any?>("sha256" to "0".repeat(64)) + values)
        return text.replaceFirst("0".repeat(64), Sha256.of(text.toByteArray()))
    }
}

/**
 * Scores ids by arithmetic, so that tests know the answer, and keeps a list of what was asked.
 *
 * @property failure thrown by every load while it is there.
 */
class FakeRuntime @JvmOverloads constructor(
    override val operators: Set<String> = setOf("aten::cat.out", "aten::embedding.out", "aten::mul.out"),
    override val backends: Set<String> = setOf("XnnpackBackend"),
    var offset: Float = 0f,
    var failure: Throwable? = null,
) : ModelRuntime {
    val batchSizes = ArrayList<Int>()
    val threads = ArrayList<Int>()
    var numOpen = 0

    override fun load(bundle: ModelBundle, numThreads: Int): Engine {
        Preflight.check(bundle.manifest, this)
        bundle.verifyProgram()
        failure?.let { throw it }
        threads.add(numThreads)
        numOpen++
        return FakeEngine(bundle.manifest)
    }

    private inner class FakeEngine(private val manifest: BundleManifest) : Engine {
        private val inputs = InputCheck(manifest)

        override fun score(ids: LongArray): FloatArray {
            val batch = inputs.score(ids)
            batchSizes.add(batch)
            return FloatArray(batch) { row ->
                score(ids.slice(row * manifest.numColumns until (row + 1) * manifest.numColumns)) + offset
            }
        }

        override fun rank(context: LongArray, items: LongArray): FloatArray {
            val numItems = inputs.rank(context, items)
            batchSizes.add(numItems)
            return FloatArray(numItems) { item ->
                val ids = LongArray(manifest.numColumns)
                manifest.contextColumns.forEachIndexed { from, to -> ids[to] = context[from] }
                manifest.itemColumns.forEachIndexed { from, to ->
                    ids[to] = items[item * manifest.itemColumns.size + from]
                }
                score(ids.toList() + context.drop(manifest.contextColumns.size)) + offset
            }
        }

        /** Scores of the items 10, 20 ... by their own rows, in the order of rows, with the genre unknown. */
        override fun recommend(context: LongArray, excluded: LongArray): Recommendation {
            inputs.recommend(context, excluded)
            if (manifest.isNextItem) return recommendNext(context, excluded)
            val items = (7L..12L).flatMap { listOf(it, 16L) }.toLongArray()
            val first = rank(context, items.copyOf(8))
            val scores = first + rank(context, items.copyOfRange(8, 12))
            val best = TopK.of(scores, manifest.signature("recommend").maximum)
            return Recommendation(FloatArray(best.size) { scores[best[it]] }, best)
        }

        /** All rows but those of the history and the excluded ones, as a program of the next item does. */
        private fun recommendNext(context: LongArray, excluded: LongArray): Recommendation {
            val scores = FloatArray(manifest.numRows) { rank(context, longArrayOf(it.toLong()))[0] }
            for (row in context.take(manifest.contextColumns.size) + excluded.toList()) if (row < manifest.numRows) scores[row.toInt()] = Float.NEGATIVE_INFINITY
            val best = TopK.of(scores, manifest.signature("recommend").maximum)
            return Recommendation(FloatArray(best.size) { scores[best[it]] }, best)
        }

        override fun close() {
            numOpen--
        }
    }

    companion object {
        fun score(ids: List<Long>): Float {
            var sum = 0L
            for (id in ids) sum = (sum * 31 + id * 7 + 3) % 997
            return sum / 997f
        }
    }
}

/** Bundles that come with the app, each with the text in place of its program. */
class TestShipped(private val programs: Map<String, String>) : ShippedBundles {
    override fun names(): List<String> = programs.keys.toList()

    override fun manifest(name: String): ByteArray {
        val directory = createTempDirectory("shipped").toFile()
        copy(name, directory)
        return File(directory, BundleManifest.FILE).readBytes().also { directory.deleteRecursively() }
    }

    override fun copy(name: String, target: File) {
        TestBundle.write(target, programs.getValue(name))
    }
}
