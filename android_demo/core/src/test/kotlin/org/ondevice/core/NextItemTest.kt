package org.ondevice.core

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.File

class NextItemTest {
    @TempDir
    lateinit var directory: File

    private fun opened(hasCatalog: Boolean = true, change: (MutableMap<String, Any?>) -> Unit = {}): Recommender {
        directory.listFiles()!!.forEach { it.deleteRecursively() }
        val bundle = ModelBundle.open(TestNextItem.write(directory, hasCatalog = hasCatalog, change = change))
        return Recommender(bundle, FakeRuntime().load(bundle, 1), bundle.readCatalog())
    }

    private fun ranked(history: List<Long>) = TestNextItem.ranked(history).map { it.first.toString() to it.second }

    private fun List<ScoredItem>.scores() = map { it.key to it.score }

    @Test
    fun `the best films after a history, with their titles`() {
        for (hasCatalog in listOf(true, false)) {
            val recommender = opened(hasCatalog)
            for (history in listOf(emptyList(), listOf(30L), listOf(10L, 20L, 30L, 40L, 10L))) {
                val best = recommender.recommend(history, Query(3))
                assertEquals(ranked(history).take(3), best.scores())
                assertEquals(best.map { if (hasCatalog) "Film ${it.key}" else it.key }, best.map { it.title })
                assertEquals(best.map { mapOf<String, Any?>("film" to it.key.toLong()) }, best.map { it.fields })
            }
            assertEquals(ranked(listOf(30L)).take(2), recommender.recommend(listOf("30", 999, null), Query(2)).scores())
        }
    }

    /** 10 and 20 are no longer among the last three, which is all that the model reads. */
    @Test
    fun `all of a history is left out, and what is excluded`() {
        val recommender = opened()
        val history = listOf(10L, 20L, 30L, 40L, 50L)
        assertEquals(ranked(history), recommender.recommend(history, Query(5)).scores())
        val excluded = Query(5, excluded = listOf(60, "80", 999, "no film"))
        assertEquals(ranked(history).filter { it.first == "70" }, recommender.recommend(history, excluded).scores())
        assertEquals(emptyList<ScoredItem>(), recommender.recommend(TestNextItem.films, Query(5)))
        val read = recommender.recommend(mapOf("seen" to history), Query(5)).map { it.key }.toSet()
        assertEquals(setOf("10", "20", "60", "70", "80"), read)
    }

    @Test
    fun `a subset is ranked, and more than the program returns`() {
        for (hasCatalog in listOf(true, false)) {
            val recommender = opened(hasCatalog)
            val among = Query(2, candidates = listOf(10, "70", 80L, 20), excluded = listOf(80))
            val expected = ranked(listOf(10L)).filter { it.first in setOf("20", "70") }
            assertEquals(expected, recommender.recommend(listOf(10), among).scores())
            assertEquals(expected, recommender.recommend(mapOf("seen" to listOf(10)), among).scores())
            assertEquals(ranked(listOf(10L)), recommender.recommend(listOf(10), Query(TestNextItem.NUM_FILMS)).scores())
            val error = assertThrows(BundleError.InvalidInput::class.java) {
                recommender.recommend(listOf(10), Query(candidates = listOf(999)))
            }
            assertTrue("the item \"999\" is not in the catalog" in error.message!!, error.message)
        }
        val filtered = opened().recommend(listOf(10), Query(filter = { it.title != "Film 20" })).map { it.key }
        assertEquals(ranked(listOf(10L)).map { it.first } - "20", filtered)
    }

    @Test
    fun `items of one's own are ranked by their keys`() {
        for (hasCatalog in listOf(true, false)) {
            val recommender = opened(hasCatalog)
            val scores = ranked(listOf(10L)).toMap()
            val keys = listOf("70", "20")
            assertEquals(keys.map { scores[it] }, recommender.rank(listOf(10), listOf(70, "20")).toList())
            assertThrows(BundleError.InvalidInput::class.java) { recommender.rank(listOf(10), listOf(999)) }
        }
    }

    @Test
    fun `golden cases say what is recommended, and every column of a history counts`() {
        val bundle = opened().bundle
        assertEquals(2, bundle.manifest.golden[1].best.size)
        assertEquals(0.0, GoldenCheck.run(bundle, FakeRuntime().load(bundle, 1)), 1e-7)
        fun refused(part: String, change: (Map<String, Any?>) -> Map<String, Any?>) {
            val wrong = opened { manifest ->
                @Suppress("UNCHECKED_CAST")
                val golden = manifest["golden"] as List<Map<String, Any?>>
                manifest["golden"] = listOf(golden[0], change(golden[1]))
            }.bundle
            val error = assertThrows(BundleError.WrongAnswer::class.java) {
                GoldenCheck.run(wrong, FakeRuntime().load(wrong, 1))
            }
            assertTrue(part in error.message!!, error.message)
        }
        refused("the id 4 for seen, expected 3") { it + ("ids" to listOf(2, 3, 3, 5)) }
        refused("scores the item") { it + ("best" to mapOf("items" to listOf(60, 70), "scores" to listOf(0.5, 0.01))) }
        refused("expected 3") {
            it + ("best" to mapOf("items" to listOf(60, 70, 80), "scores" to TestNextItem.ranked(listOf(10, 20, 30, 40, 50)).map { film -> film.second })) +
                ("raw" to mapOf("seen" to TestNextItem.films - 80L, "film" to 60)) + ("ids" to listOf(4, 5, 6, 5)) +
                ("score" to FakeRuntime.score(listOf(4, 5, 6, 5)))
        }
    }

    @Test
    fun `another processor's scores may be as far off as the manifest says`() {
        val bundle = opened { it["golden_tolerance"] = 0.05 }.bundle
        assertEquals(0.04, GoldenCheck.run(bundle, FakeRuntime(offset = 0.04f).load(bundle, 1)), 1e-6)
        assertThrows(BundleError.WrongAnswer::class.java) {
            GoldenCheck.run(bundle, FakeRuntime(offset = 0.06f).load(bundle, 1))
        }
    }

    @Test
    fun `vectors of items need the method that makes them`() {
        fun refused(part: String, change: (Map<String, Any?>) -> Map<String, Any?>) {
            val error = assertThrows(BundleError.BadManifest::class.java) {
                opened { manifest ->
                    @Suppress("UNCHECKED_CAST")
                    manifest["methods"] = change(manifest["methods"] as Map<String, Any?>)
                }
            }
            assertTrue(part in error.message!!, error.message)
        }
        refused("there is no methods.items for methods.rank") { it - "items" }
        refused("methods.items does not make item_vectors") {
            it + ("items" to mapOf("inputs" to emptyList<Any>(), "outputs" to emptyList<Any>()))
        }
        refused("methods.rank takes nothing") {
            it + ("rank" to mapOf("inputs" to emptyList<Any>(), "outputs" to emptyList<Any>(), "max_items" to 3))
        }
    }

    @Test
    fun `what cannot be asked`() {
        val recommender = opened()
        fun refused(part: String, ask: () -> Unit) {
            val error = assertThrows(BundleError.InvalidInput::class.java) { ask() }
            assertTrue(part in error.message!!, error.message)
        }
        refused("the context has \"seen\", and a history is given") {
            recommender.recommend(listOf(10), context = mapOf("seen" to listOf(20)))
        }
        refused("takes numbers, not \"[Alien]\"") { recommender.recommend(listOf("Alien")) }
        val inputs = InputCheck(recommender.bundle.manifest)
        refused("0 items to leave out, where recommend takes 1 to 9") { inputs.recommend(LongArray(3)) }
        refused("10 items to leave out") { inputs.recommend(LongArray(3), LongArray(10)) }
        refused("the id 9 is not in 0..8") { inputs.recommend(LongArray(3), longArrayOf(9)) }
        val other = ModelBundle.open(TestBundle.write(File(directory, "other")))
        refused("it reads no history") { Recommender(other, FakeRuntime().load(other, 1)).recommend(listOf(10)) }
        refused("1 items to leave out, where recommend takes none") {
            InputCheck(other.manifest).recommend(LongArray(2), LongArray(1))
        }
    }
}
