package org.ondevice.core

import java.io.File

/**
 * A small bundle of the next item that the tests write themselves: eight films, of which the last three seen count, and in
 * one that reads time gaps the gaps of these.
 */
object TestNextItem {
    const val NUM_FILMS = 8
    const val LAST = 3
    const val MAX_K = 5

    /** Keys of the films, in the order of the program's rows. */
    val films = List(NUM_FILMS) { 10L * (it + 1) }

    private val catalog = CatalogWriter(NUM_FILMS, 1).texts("title", films.map { "Film $it" }).bytes()

    private fun vocabulary() = VocabularyWriter(2)
        .field(unknownRow = NUM_FILMS, numGroups = 0)
        .field(unknownRow = NUM_FILMS, numGroups = 1).integers(0, films)
        .bytes()

    private fun tensor(name: String, dtype: String, shape: List<Any>) =
        mapOf("name" to name, "dtype" to dtype, "shape" to shape)

    private val vectors = tensor("item_vectors", "float32", listOf(NUM_FILMS + 1, 4))

    private fun methods(context: Map<String, Any>) = mapOf(
        "items" to mapOf("inputs" to emptyList<Any>(), "outputs" to listOf(vectors)),
        "rank" to mapOf(
            "inputs" to listOf(context, tensor("item_ids", "int64", listOf("items", 1)), vectors),
            "outputs" to listOf(tensor("scores", "float32", listOf("items"))),
            "max_items" to NUM_FILMS,
        ),
        "recommend" to mapOf(
            "inputs" to listOf(context, tensor("exclude_ids", "int64", listOf("1", "excluded")), vectors),
            "outputs" to listOf(
                tensor("scores", "float32", listOf(MAX_K)), tensor("item_index", "int64", listOf(MAX_K)),
            ),
            "k" to MAX_K,
            "max_excluded" to NUM_FILMS + 1,
        ),
    )

    /** The rows that a history becomes. */
    fun rows(history: List<Long>): List<Long> {
        val known = history.map { films.indexOf(it).toLong() }.filter { it >= 0 }.takeLast(LAST)
        return List(LAST - known.size) { NUM_FILMS.toLong() } + known
    }

    /** The score of a film after a history, with the buckets of its gaps where the bundle reads them. */
    fun score(history: List<Long>, film: Long, gaps: List<Long> = emptyList()): Float =
        FakeRuntime.score(rows(history) + films.indexOf(film).toLong() + gaps)

    /** All films with their scores after a history, best first, those of the history left out. */
    fun ranked(history: List<Long>, gaps: List<Long> = emptyList()): List<Pair<Long, Float>> = (films - history.toSet())
        .map { it to score(history, it, gaps) }
        .sortedByDescending { it.second }

    private fun golden(history: List<Long>, film: Long, gaps: List<Long> = emptyList()): Map<String, Any?> {
        val ids = rows(history) + films.indexOf(film).toLong()
        val best = ranked(history, gaps).take(2)
        return mapOf(
            "raw" to mapOf("seen" to history, "film" to film),
            "ids" to ids,
            "score" to score(history, film, gaps),
            "best" to mapOf("items" to best.map { it.first }, "scores" to best.map { it.second }),
        )
    }

    private fun goldenOf(gaps: String?): List<Map<String, Any?>> {
        val long = listOf(10L, 20L, 30L, 40L, 50L)
        if (gaps == null) return listOf(golden(emptyList(), 30), golden(long, 60))
        val nothing = listOf(0L, 0L, 0L)
        // of the last three since the film before 3, 1.5 and 0.25 s, and until it is asked 94.25 s
        val buckets = if (gaps == "since") listOf(3L, 2L, 1L) else listOf(2L, 1L, 7L)
        return listOf(
            golden(emptyList(), 30, nothing) + timed(emptyList<Any>(), 1000, nothing),
            golden(long, 60, buckets) + timed(listOf(null, 1001, 1004.0, 1005.5, 1005.75), 1100, buckets),
        )
    }

    private fun timed(times: List<Any?>, now: Any, gaps: List<Long>) = mapOf("times" to times, "now" to now, "gaps" to gaps)

    /** Writes the bundle, which reads time [gaps] where they are `since` or `until`; [change] may replace entries of the manifest before it is signed. */
    @JvmOverloads
    fun write(
        directory: File,
        program: String = "a program",
        hasCatalog: Boolean = true,
        gaps: String? = null,
        change: (MutableMap<String, Any?>) -> Unit = {},
    ): File = TestBundle.write(directory, program, if (hasCatalog) catalog else null, vocabulary()) { manifest ->
        manifest["schema"] = mapOf(
            "name" to "films",
            "fields" to listOf(
                mapOf("name" to "seen", "kind" to "history", "of" to "film", "last" to LAST) +
                    (if (gaps == null) emptyMap() else mapOf("gaps" to gaps)),
                mapOf("name" to "film", "side" to "item", "kind" to "integer"),
            ),
            "label" to mapOf("column" to "rating"),
            "item_key" to "film",
        )
        manifest["num_rows"] = NUM_FILMS
        manifest["methods"] = methods(tensor("context_ids", "int64", listOf("1", if (gaps == null) LAST else 2 * LAST)))
        manifest["catalog"] = mapOf("key_field" to "film", "num_items" to NUM_FILMS)
        manifest["golden"] = goldenOf(gaps)
        change(manifest)
    }
}
