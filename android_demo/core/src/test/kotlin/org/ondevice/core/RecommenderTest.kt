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

    private val profile = mapOf("user" to 8, "zip" to "H2X")

    private fun expectedScores(bundle: Bundle): List<Float> {
        val items = TestBundle.catalog["items"] as List<*>
        return items.map { item ->
            @Suppress("UNCHECKED_CAST")
            FakeRuntime.score(bundle.encode(profile + (item as Map<String, Any?>)).toList())
        }
    }

    private fun scores(runtime: FakeRuntime, change: (MutableMap<String, Any?>) -> Unit = {}): List<Float> {
        val bundle = Bundle.open(TestBundle.write(directory, change = change))
        val recommender = Recommender(bundle, runtime.load(bundle, 1))
        val scores = recommender.scoreAll(bundle.encodeContext(profile), bundle.readCatalog()!!).toList()
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
            val bundle = Bundle.open(
                TestBundle.write(directory) { it["methods"] = TestBundle.methods(items) - "forward" },
            )
            assertEquals(0.0, GoldenCheck.run(bundle, FakeRuntime().load(bundle, 1)), 1e-7)
        }
    }

    @Test
    fun `the best films with their titles`() {
        val bundle = Bundle.open(TestBundle.write(directory))
        val best = Recommender(bundle, FakeRuntime().load(bundle, 1)).recommend(profile, bundle.readCatalog()!!, 3)
        val expected = expectedScores(bundle).withIndex().sortedByDescending { it.value }.take(3)
        assertEquals(expected.map { it.index }, best.map { it.index })
        assertEquals(expected.map { it.value }, best.map { it.score })
        assertEquals(expected.map { "Film ${10 * it.index + 10}" }, best.map { it.title })
    }

    @Test
    fun `what native code must not see is refused`() {
        val manifest = Bundle.open(TestBundle.write(directory)).manifest
        val inputs = InputCheck(manifest)
        fun refused(text: String, check: () -> Unit) {
            val error = assertThrows(BundleError.InvalidInput::class.java) { check() }
            assertTrue(text in error.message!!, error.message)
        }
        assertEquals(2, inputs.rank(longArrayOf(0, 20), longArrayOf(1, 2, 3, 20)))
        refused("3 context values") { inputs.rank(LongArray(3), LongArray(2)) }
        refused("3 ids do not divide") { inputs.rank(LongArray(2), LongArray(3)) }
        refused("0 candidates") { inputs.rank(LongArray(2), LongArray(0)) }
        refused("5 candidates, where rank takes 1 to 4") { inputs.rank(LongArray(2), LongArray(10)) }
        refused("the id 21 is not in 0..20") { inputs.rank(longArrayOf(0, 21), LongArray(2)) }
        refused("the id -1") { inputs.rank(LongArray(2), longArrayOf(0, -1)) }
        refused("9 rows, where forward takes 1 to 8") { inputs.score(LongArray(36)) }
        val without = Bundle.open(
            TestBundle.write(directory) { it["methods"] = TestBundle.methods() - "recommend" },
        )
        assertThrows(BundleError.MissingMethod::class.java) { InputCheck(without.manifest).recommend(LongArray(2)) }
    }

    /** The keys of rows 7 to 12 are 10, 30, 50 and -2, 20, 40. */
    @Test
    fun `without a catalog the program's own items come with their keys`() {
        val bundle = Bundle.open(TestBundle.write(directory, catalog = null))
        val recommender = Recommender(bundle, FakeRuntime().load(bundle, 1))
        val keys = listOf("10", "30", "50", "-2", "20", "40")
        val expected = keys.sortedByDescending { FakeRuntime.score(bundle.encode(profile + ("film" to it)).toList()) }
        assertEquals(expected.take(3), recommender.recommend(profile, null, 20).map { it.title })
        assertEquals(expected.take(2), recommender.recommend(profile, null, 2).map { it.title })
        assertEquals(6, recommender.numItems(null))

        val neither = Bundle.open(
            TestBundle.write(directory, catalog = null) { it["methods"] = TestBundle.methods() - "recommend" },
        )
        assertEquals(0, Recommender(neither, FakeRuntime().load(neither, 1)).numItems(null))
    }

    @Test
    fun `an engine that returns another number of scores`() {
        val bundle = Bundle.open(TestBundle.write(directory))
        val engine = object : Engine by FakeRuntime().load(bundle, 1) {
            override fun rank(context: LongArray, items: LongArray) = FloatArray(1)
        }
        assertThrows(BundleError.EngineFailure::class.java) {
            Recommender(bundle, engine).scoreAll(LongArray(2), bundle.readCatalog()!!)
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
