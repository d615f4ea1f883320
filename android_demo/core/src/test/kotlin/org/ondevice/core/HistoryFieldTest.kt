package org.ondevice.core

import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.File

/** A bundle whose context is the last three films seen, which are rows of the film's own field. */
class HistoryFieldTest {
    @TempDir
    lateinit var directory: File

    private val seen = mapOf("name" to "seen", "kind" to "history", "of" to "film", "last" to 3)
    private val film = mapOf("name" to "film", "side" to "item", "kind" to "integer")
    private val genre = mapOf("name" to "genre", "side" to "item", "kind" to "string")

    private val vocabulary = VocabularyWriter(3)
        .field(unknownRow = 20, numGroups = 0)
        .field(unknownRow = 19, numGroups = 2).integers(7, listOf(10, 30, 50)).integers(10, listOf(-2, 20, 40))
        .field(unknownRow = 16, numGroups = 1).texts(17, listOf("Drama", "War"))
        .bytes()

    private fun write(history: Map<String, Any> = seen): File =
        TestBundle.write(directory, catalog = null, vocabulary = vocabulary) { manifest ->
            manifest["schema"] = (manifest["schema"] as Map<*, *>) + mapOf("fields" to listOf(history, film, genre))
            manifest["methods"] = mapOf(
                "rank" to mapOf(
                    "inputs" to listOf(tensor("context_ids", "1", 3), tensor("item_ids", "items", 2)),
                    "outputs" to listOf(mapOf("name" to "scores", "dtype" to "float32", "shape" to listOf("items"))),
                    "max_items" to TestBundle.MAX_ITEMS,
                ),
            )
            manifest["golden"] = listOf(
                golden(listOf(8, 12, 7, 9, 17), "seen" to listOf(30, 40, 10), "film" to 50, "genre" to "Drama"),
                golden(listOf(19, 19, 19, 9, 16), "seen" to null, "film" to 50, "genre" to null),
            )
        }

    private fun tensor(name: String, rows: String, width: Int) =
        mapOf("name" to name, "dtype" to "int64", "shape" to listOf(rows, width))

    private fun golden(ids: List<Int>, vararg raw: Pair<String, Any?>) =
        mapOf("raw" to mapOf(*raw), "ids" to ids, "score" to FakeRuntime.score(ids.map { it.toLong() }))

    @Test
    fun `golden cases and lists become the last rows that are known`() {
        val bundle = ModelBundle.open(write())
        assertEquals(0.0, GoldenCheck.run(bundle, FakeRuntime().load(bundle, 1), tolerance = 1e-7), 1e-7)
        for (case in bundle.manifest.golden) {
            assertArrayEquals(case.ids.map { it.toLong() }.toLongArray(), bundle.encode(case.raw))
        }
        val cases = mapOf(
            null to listOf(19, 19, 19),
            emptyList<Any>() to listOf(19, 19, 19),
            listOf(50) to listOf(19, 19, 9),
            listOf("10", 999, null, 10.0) to listOf(19, 7, 7),
            listOf(-2, 10, 20, 50, 999) to listOf(7, 11, 9),
        )
        for ((raw, rows) in cases) {
            val context = bundle.encodeContext(mapOf("seen" to raw))
            assertArrayEquals(rows.map { it.toLong() }.toLongArray(), context, raw.toString())
        }
        assertArrayEquals(longArrayOf(19, 19, 9), bundle.encodeContext(mapOf("seen" to intArrayOf(50))))
        val error = assertThrows(BundleError.InvalidInput::class.java) {
            bundle.encodeContext(mapOf("seen" to listOf(10, "Alien")))
        }
        assertTrue("the field \"seen\" takes numbers" in error.message!!, error.message)
    }

    @Test
    fun `items are ranked for a history`() {
        val bundle = ModelBundle.open(write())
        Recommender(bundle, FakeRuntime().load(bundle, 1)).use { recommender ->
            val items = listOf(mapOf("film" to 10), mapOf("film" to 40, "genre" to "War"))
            val scores = recommender.rank(mapOf("seen" to listOf(20, 50)), items)
            val rows = listOf(listOf(19L, 11L, 9L, 7L, 16L), listOf(19L, 11L, 9L, 12L, 18L))
            assertEquals(rows.map { FakeRuntime.score(it) }, scores.toList())
        }
    }

    @Test
    fun `histories that no reader can compute are refused`() {
        val changes = listOf(
            mapOf("of" to "user"), mapOf("of" to "seen"), mapOf("side" to "item"), mapOf("last" to 0),
            mapOf("last" to 1001), mapOf("pooling" to "max"),
        )
        for (change in changes) {
            write(seen + change)
            assertThrows(BundleError.BadManifest::class.java, { ModelBundle.open(directory) }, change.toString())
        }
        write(seen - "of")
        assertThrows(BundleError::class.java) { ModelBundle.open(directory) }
    }
}
