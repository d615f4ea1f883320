package org.ondevice.core

import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.File

/** A bundle whose films have up to three genres, and whose users have an age that is a number. */
class SlotsTest {
    @TempDir
    lateinit var directory: File

    private val fields = listOf(
        mapOf("name" to "user", "kind" to "integer"),
        mapOf("name" to "film", "side" to "item", "kind" to "integer"),
        mapOf("name" to "age", "kind" to "number", "boundaries" to listOf(18, 35.5)),
        mapOf("name" to "genre", "side" to "item", "slots" to 3, "separator" to "|", "pooling" to "sqrt"),
    )

    private val vocabulary = VocabularyWriter(4)
        .field(unknownRow = 0, numGroups = 1).integers(1, listOf(7, 8, 1000))
        .field(unknownRow = 20, numGroups = 2).integers(7, listOf(10, 30, 50)).integers(10, listOf(-2, 20, 40))
        .field(unknownRow = 20, numGroups = 1).integers(4, listOf(0, 1, 2))
        .field(unknownRow = 16, numGroups = 1).texts(17, listOf("Action", "Drama", "War"))
        .bytes()

    private val genres = listOf(listOf("Drama", "War"), null, listOf("Noir"), listOf("War"), null, listOf("Action"))
    private val catalog = CatalogWriter(6, 1).values("genre", genres).bytes()

    private fun write(fields: List<Any> = this.fields): File =
        TestBundle.write(directory, catalog = catalog, vocabulary = vocabulary) { manifest ->
            manifest["schema"] = (manifest["schema"] as Map<*, *>) + mapOf("fields" to fields)
            manifest["methods"] = mapOf(
                "rank" to mapOf(
                    "inputs" to listOf(tensor("context_ids", "1", 2), tensor("item_ids", "items", 4)),
                    "outputs" to listOf(mapOf("name" to "scores", "dtype" to "float32", "shape" to listOf("items"))),
                    "max_items" to TestBundle.MAX_ITEMS,
                ),
            )
            val ids = listOf(1, 8, 5, 18, 19, 16)
            val raw = mapOf("user" to 7, "film" to 30, "age" to 20, "genre" to listOf("Drama", "War"))
            manifest["golden"] = List(2) { mapOf("raw" to raw, "ids" to ids, "score" to score(ids)) }
        }

    private fun tensor(name: String, rows: String, width: Int) =
        mapOf("name" to name, "dtype" to "int64", "shape" to listOf(rows, width))

    private fun score(ids: List<Int>) = FakeRuntime.score(ids.map { it.toLong() })

    @Test
    fun `golden cases, lists and texts become ids of all slots`() {
        val bundle = ModelBundle.open(write())
        assertEquals(0.0, GoldenCheck.run(bundle, FakeRuntime().load(bundle, 1), tolerance = 1e-7), 1e-7)
        val case = bundle.manifest.golden.first()
        assertArrayEquals(case.ids.map { it.toLong() }.toLongArray(), bundle.encode(case.raw))
        val same = mapOf("user" to "7", "film" to 30L, "age" to "35.0", "genre" to " Drama|War|War")
        assertArrayEquals(longArrayOf(1, 8, 5, 18, 19, 16), bundle.encode(same))
        assertArrayEquals(longArrayOf(0, 20, 20, 16, 16, 16), bundle.encode(emptyMap()))
        assertArrayEquals(longArrayOf(20, 16, 17, 16), bundle.encodeItem(mapOf("genre" to listOf("Noir", "Action"))))
        assertArrayEquals(longArrayOf(0, 4), bundle.encodeContext(mapOf("age" to -3.5)))
        assertArrayEquals(longArrayOf(0, 6), bundle.encodeContext(mapOf("age" to 35.5f)))
        val error = assertThrows(BundleError.InvalidInput::class.java) { bundle.encode(mapOf("age" to "young")) }
        assertTrue("the field \"age\" takes numbers, not \"young\"" in error.message!!, error.message)
    }

    @Test
    fun `items of a catalog are ranked with all of their values`() {
        val bundle = ModelBundle.open(write())
        val catalog = bundle.readCatalog()!!
        assertEquals(genres, List(6) { catalog[it]["genre"] })
        val context = mapOf("user" to 7, "age" to 20)
        Recommender(bundle, FakeRuntime().load(bundle, 1), catalog).use { recommender ->
            val best = recommender.recommend(context, 6)
            val items = List(6) { mapOf("film" to TestBundle.films[it], "genre" to genres[it]?.joinToString("|")) }
            val scores = recommender.rank(context, items)
            assertEquals(best.map { it.score }, best.map { scores[it.index] })
            assertEquals(score(listOf(1, 7, 5, 18, 19, 16)), scores[0])
            assertEquals(score(listOf(1, 8, 5, 18, 19, 16)), recommender.score(bundle.manifest.golden.first().raw))
        }
    }

    @Test
    fun `fields that no reader can compute are refused`() {
        val changes = listOf(
            mapOf("slots" to 0), mapOf("slots" to 1001), mapOf("pooling" to "max"), mapOf("separator" to ""),
            mapOf("kind" to "number"), mapOf("kind" to "number", "boundaries" to listOf(2, 1)), mapOf("kind" to "count"),
        )
        for (change in changes) {
            write(fields.dropLast(1) + (fields.last() + change))
            assertThrows(BundleError.BadManifest::class.java, { ModelBundle.open(directory) }, change.toString())
        }
    }
}
