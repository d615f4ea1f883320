package org.ondevice.core

import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.File
import java.util.Random

class RecommenderTest {
    @TempDir
    lateinit var directory: File

    private val films = TestBundle.films
    private val profile = mapOf("user" to 8, "zip" to "H2X")

    private fun expectedScores(bundle: ModelBundle): List<Float> {
        return TestBundle.items.map { FakeRuntime.score(bundle.encode(profile + it).toList()) }
    }

    private fun scores(runtime: FakeRuntime, change: (MutableMap<String, Any?>) -> Unit = {}): List<Float> {
        val bundle = ModelBundle.open(TestBundle.write(directory, change = change))
        val recommender = Recommender(bundle, runtime.load(bundle, 1))
        val scores = recommender.scoreAll(bundle.encodeContext(profile), bundle.readCatalog()!!.rows).toList()
        assertEquals(expectedScores(bundle), scores)
        return scores
    }

    @Test
    fun `rank takes six films four at a time`() {
        val runtime = FakeRuntime()
        scores(runtime)
        assertEquals(listOf(4, 2), runtime.batchSizes)
    }

    @Test
    fun `a program of one size gets its last batch padded`() {
        val runtime = FakeRuntime()
        scores(runtime) { it["methods"] = TestBundle.methods(items = TestBundle.MAX_ITEMS) }
        assertEquals(listOf(4, 4), runtime.batchSizes)
    }

    @Test
    fun `forward serves where there is no rank`() {
        val runtime = FakeRuntime()
        scores(runtime) { it["methods"] = TestBundle.methods() - "rank" }
        assertEquals(listOf(6), runtime.batchSizes)
    }

    @Test
    fun `rank answers golden cases where there is no forward`() {
        for (items in listOf<Any>("items", TestBundle.MAX_ITEMS)) {
            val bundle = ModelBundle.open(
                TestBundle.write(directory) { it["methods"] = TestBundle.methods(items) - "forward" },
            )
            assertEquals(0.0, GoldenCheck.run(bundle, FakeRuntime().load(bundle, 1)), 1e-7)
        }
    }

    @Test
    fun `the best films with their titles`() {
        val bundle = ModelBundle.open(TestBundle.write(directory))
        val best = Recommender(bundle, FakeRuntime().load(bundle, 1), bundle.readCatalog()).recommend(profile, 3)
        val expected = expectedScores(bundle).withIndex().sortedByDescending { it.value }.take(3)
        assertEquals(expected.map { it.index }, best.map { it.index })
        assertEquals(expected.map { it.value }, best.map { it.score })
        assertEquals(expected.map { "Film ${films[it.index]}" }, best.map { it.title })
        assertEquals(expected.map { "${films[it.index]}" }, best.map { it.key })
        assertEquals(expected.map { films[it.index] }, best.map { it.fields["film"] })
        assertEquals(expected.map { if (films[it.index] % 20 == 0L) "Drama" else "Comedy" }, best.map { it.fields["genre"] })
        assertEquals(setOf("film", "genre"), best.first().fields.keys)
    }

    @Test
    fun `own candidates, exclusion and a filter`() {
        val bundle = ModelBundle.open(TestBundle.write(directory))
        val recommender = Recommender(bundle, FakeRuntime().load(bundle, 1), bundle.readCatalog())
        val all = recommender.recommend(profile, 6).map { it.key }
        assertEquals(films.map { "$it" }.toSet(), all.toSet())
        fun keys(query: Query) = recommender.recommend(profile, query).map { it.key }

        assertEquals(all.filter { it in setOf("20", "-2", "50") }, keys(Query(candidates = listOf(20, "-2", 50L, 20))))
        assertEquals(all - setOf("10", "40"), keys(Query(excluded = setOf(10, "40", 999, "no film"))))
        assertEquals(all.filter { it.toInt() % 20 == 0 }, keys(Query(filter = { it["genre"] == "Drama" })))
        assertEquals(
            all.filter { it in setOf("20", "50") }.take(1),
            keys(Query(1, candidates = listOf(10, 20, 50), excluded = listOf(10))),
        )
        assertEquals(emptyList<String>(), keys(Query(candidates = listOf(10), excluded = listOf(10))))
        val scores = recommender.recommend(profile, 6).associate { it.key to it.score }
        for (item in recommender.recommend(profile, Query(candidates = listOf(30, 40)))) {
            assertEquals(scores[item.key], item.score)
            assertEquals(films[item.index].toString(), item.key)
        }
        val error = assertThrows(BundleError.InvalidInput::class.java) { keys(Query(candidates = listOf(999))) }
        assertTrue("the item \"999\" is not in the catalog" in error.message!!)
        assertThrows(IllegalArgumentException::class.java) { Query(k = 0) }
    }

    @Test
    fun `items of one's own are ranked by their raw values`() {
        val bundle = ModelBundle.open(TestBundle.write(directory))
        val recommender = Recommender(bundle, FakeRuntime().load(bundle, 1))
        val items = listOf(mapOf("film" to 30, "genre" to "Drama"), mapOf("film" to 999), emptyMap())
        val expected = items.map { FakeRuntime.score(bundle.encode(profile + it).toList()) }
        assertEquals(expected, recommender.rank(profile, items).toList())
        assertEquals(0, recommender.rank(profile, emptyList()).size)
        assertThrows(BundleError.InvalidInput::class.java) { recommender.rank(profile, listOf(mapOf("movie" to 30))) }
        assertThrows(BundleError.InvalidInput::class.java) { recommender.rank(mapOf("userId" to 8), items) }
    }

    @Test
    fun `what native code must not see is refused`() {
        val manifest = ModelBundle.open(TestBundle.write(directory)).manifest
        val inputs = InputCheck(manifest)
        fun refused(text: String, check: () -> Unit) {
            val error = assertThrows(BundleError.InvalidInput::class.java) { check() }
            assertTrue(text in error.message!!, error.message)
        }
        assertEquals(2, inputs.rank(longArrayOf(0, 20), longArrayOf(1, 2, 3, 20)))
        refused("3 context ids, where the model has 2") { inputs.rank(LongArray(3), LongArray(2)) }
        refused("3 ids do not divide") { inputs.rank(LongArray(2), LongArray(3)) }
        refused("0 candidates") { inputs.rank(LongArray(2), LongArray(0)) }
        refused("5 candidates, where rank takes 1 to 4") { inputs.rank(LongArray(2), LongArray(10)) }
        refused("the id 21 is not in 0..20") { inputs.rank(longArrayOf(0, 21), LongArray(2)) }
        refused("the id -1") { inputs.rank(LongArray(2), longArrayOf(0, -1)) }
        refused("9 rows, where forward takes 1 to 8") { inputs.score(LongArray(36)) }
        val without = ModelBundle.open(
            TestBundle.write(directory) { it["methods"] = TestBundle.methods() - "recommend" },
        )
        assertThrows(BundleError.MissingMethod::class.java) { InputCheck(without.manifest).recommend(LongArray(2)) }
    }

    /** The keys of rows 7 to 12 are 10, 30, 50 and -2, 20, 40. */
    @Test
    fun `without a catalog the program's own items come with their keys`() {
        val bundle = ModelBundle.open(TestBundle.write(directory, catalog = null))
        val recommender = Recommender(bundle, FakeRuntime().load(bundle, 1))
        val keys = listOf("10", "30", "50", "-2", "20", "40")
        val expected = keys.sortedByDescending { FakeRuntime.score(bundle.encode(profile + ("film" to it)).toList()) }
        assertEquals(expected.take(3), recommender.recommend(profile, 20).map { it.title })
        val best = recommender.recommend(profile, Query(excluded = listOf(expected[1], 999)))
        assertEquals(expected.take(3) - expected[1], best.map { it.key })
        assertEquals(best.map { mapOf("film" to it.key.toLong()) }, best.map { it.fields })
        for (query in listOf(Query(candidates = listOf(10)), Query(filter = { true }))) {
            assertThrows(BundleError.InvalidInput::class.java) { recommender.recommend(profile, query) }
        }
        assertEquals(expected.take(2), recommender.recommend(profile, 2).map { it.title })
        assertEquals(6, recommender.numItems)

        val neither = ModelBundle.open(
            TestBundle.write(directory, catalog = null) { it["methods"] = TestBundle.methods() - "recommend" },
        )
        assertEquals(0, Recommender(neither, FakeRuntime().load(neither, 1)).numItems)
    }

    @Test
    fun `an engine that returns another number of scores`() {
        val bundle = ModelBundle.open(TestBundle.write(directory))
        val engine = object : Engine by FakeRuntime().load(bundle, 1) {
            override fun rank(context: LongArray, items: LongArray) = FloatArray(1)
        }
        assertThrows(BundleError.EngineFailure::class.java) {
            Recommender(bundle, engine).scoreAll(LongArray(2), bundle.readCatalog()!!.rows)
        }
    }

    @Test
    fun `batches cover every row once`() {
        assertEquals(listOf(0..3, 4..7, 8..8), Batches.of(9, 4))
        assertEquals(listOf(0..3), Batches.of(4, 4))
        assertEquals(emptyList<IntRange>(), Batches.of(0, 4))
    }

    @Test
    fun `top k by hand`() {
        assertArrayEquals(intArrayOf(2, 0, 3), TopK.of(floatArrayOf(2f, 1f, 3f, 2f), 3))
        assertArrayEquals(intArrayOf(1, 0), TopK.of(floatArrayOf(Float.NEGATIVE_INFINITY, 0f), 5))
        assertArrayEquals(intArrayOf(), TopK.of(floatArrayOf(1f), 0))
        assertArrayEquals(intArrayOf(), TopK.of(floatArrayOf(), 3))
        assertThrows(BundleError.EngineFailure::class.java) { TopK.of(floatArrayOf(1f, Float.NaN), 1) }
    }

    @Test
    fun `top k is the head of a stable sort`() {
        val random = Random(3)
        repeat(300) {
            val scores = FloatArray(1 + random.nextInt(80)) { random.nextInt(20) / 10f }
            val k = random.nextInt(90)
            val expected = scores.indices.sortedByDescending { scores[it] }.take(k)
            assertEquals(expected, TopK.of(scores, k).toList())
        }
    }
}
