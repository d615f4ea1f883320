package org.ondevice.core

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.File

/** Models of the next item that read the time gaps of a history. */
class TimeGapsTest {
    @TempDir
    lateinit var directory: File

    private fun opened(gaps: String?, hasCatalog: Boolean = true, change: (MutableMap<String, Any?>) -> Unit = {}): Recommender {
        directory.listFiles()!!.forEach { it.deleteRecursively() }
        val bundle = ModelBundle.open(TestNextItem.write(directory, hasCatalog = hasCatalog, gaps = gaps, change = change))
        return Recommender(bundle, FakeRuntime().load(bundle, 1), bundle.readCatalog())
    }

    private fun taps(vararg taps: Pair<Any?, Number?>) = taps.map { (key, at) -> Tap(key, at?.toDouble()) }

    private fun refused(part: String, ask: () -> Unit) {
        val error = assertThrows(BundleError.InvalidInput::class.java) { ask() }
        assertTrue(part in error.message!!, error.message)
        assertTrue("\n" !in error.message!!)
    }

    @Test
    fun `buckets are powers of two of whole seconds`() {
        assertEquals(listOf(1, 2, 2, 3, 3, 3, 3, 4), List(8) { TimeGaps.bucket(it.toDouble()) })
        for (bits in 1..62) {
            val first = (1L shl bits) - 1.0 // 1 more has bits + 1 bits
            val bucket = minOf(bits + 1, 31)
            assertEquals(bucket, TimeGaps.bucket(first), "$first")
            assertEquals(bucket, TimeGaps.bucket(1.5 * first), "1.5 * $first")
            if (bits <= 45) {
                assertEquals(minOf(bits, 31), TimeGaps.bucket(first - 1), "$first - 1")
                assertEquals(minOf(bits, 31), TimeGaps.bucket(first - 1.0 / 64), "$first - 1/64")
            }
        }
        assertEquals(31, TimeGaps.bucket(Double.MAX_VALUE))
        assertEquals(31, TimeGaps.bucket(Double.POSITIVE_INFINITY))
        assertEquals(1, TimeGaps.bucket(0.999))
        for (none in listOf(null, -1e-9, -1.0, -1e300, Double.NaN)) assertEquals(0, TimeGaps.bucket(none), "$none")
    }

    private fun check(kind: String, expected: List<Long>, times: List<Double?>, now: Double, places: Int = 4) =
        assertEquals(expected, TimeGaps.buckets(kind, times, now, places).toList(), "$kind, $times, $now, $places")

    @Test
    fun `gaps since the item before, and until the one after`() {
        val times = listOf(100.0, 100.0, 101.5, 109.0)
        check("since", listOf(0, 1, 2, 4), times, 200.0)
        check("until", listOf(1, 2, 4, 7), times, 200.0)
        for (kind in listOf("since", "until")) check(kind, listOf(0, 0, 0, 0), emptyList(), 200.0)
        check("since", listOf(0, 0, 0, 0), listOf(100.0), 103.0)
        check("until", listOf(0, 0, 0, 3), listOf(100.0), 103.0)
    }

    @Test
    fun `an item that is too old to be read still has a gap to the next`() {
        val times = listOf(0.0, 3.0, 3.0, 4.0)
        check("since", listOf(3, 1, 2), times, 4.0, places = 3)
        check("until", listOf(1, 2, 1), times, 4.0, places = 3)
        check("since", listOf(2), times, 4.0, places = 1)
    }

    @Test
    fun `gaps that are not known, or below 0`() {
        val times = listOf(50.0, null, 60.0, 59.0, 59.5)
        check("since", listOf(0, 0, 0, 0, 1), times, 40.0, places = 5)
        check("until", listOf(0, 0, 0, 1, 0), times, 40.0, places = 5)
        check("until", listOf(0, 0), listOf(null, null), 40.0, places = 2)
    }

    /** Unknown items are passed over before gaps are taken, and there is a place for repeated ones. */
    @Test
    fun `a context has rows, then the buckets of the gaps between known items`() {
        val eight = TestNextItem.NUM_FILMS.toLong()
        val history = taps(
            999 to 0, 20 to 100, null to 102, "10" to 107, 777 to 108, 20.0 to null, "?" to 109, 30 to 120, 888 to 121,
        )
        val since = opened("since").bundle.encodeContext(history, 150.0)
        assertEquals(listOf<Long>(0, 1, 2, 4, 0, 0), since.toList())
        val until = opened("until").bundle.encodeContext(history, 150.0)
        assertEquals(listOf<Long>(0, 1, 2, 0, 0, 5), until.toList())
        val bundle = opened("since").bundle
        assertEquals(listOf(eight, eight, eight, 0, 0, 0), bundle.encodeContext(emptyList(), 150.0).toList())
        assertEquals(listOf(eight, eight, 4L, 0, 0, 0), bundle.encodeContext(taps(50 to 3), 150.0).toList())
        val without = opened(null).bundle
        assertEquals(listOf<Long>(0, 1, 2), without.encodeContext(history, 150.0).toList())
    }

    @Test
    fun `the best films after taps`() {
        val history = listOf(10L, 20L, 30L, 40L, 50L)
        val done = history.mapIndexed { index, key -> Tap(key, 100.0 * index) }
        for ((kind, gaps) in mapOf("since" to listOf(7L, 7L, 7L), "until" to listOf(7L, 7L, 5L))) {
            for (hasCatalog in listOf(true, false)) {
                val recommender = opened(kind, hasCatalog)
                val expected = TestNextItem.ranked(history, gaps).map { it.first.toString() to it.second }
                fun best(query: Query) = recommender.recommend(done, 425.0, query).map { it.key to it.score }
                assertEquals(expected, best(Query(5)))
                // by `rank`, where the row 7 (a film) and the bucket 7 must not be taken for each other
                assertEquals(expected, best(Query(TestNextItem.NUM_FILMS)))
                assertEquals(expected.filter { it.first == "80" }, best(Query(2, candidates = listOf("80", 10))))
                assertEquals(expected.filter { it.first != "60" }, best(Query(5, excluded = listOf(60))))
                val scores = TestNextItem.films.associateWith { TestNextItem.score(history, it, gaps) }
                assertEquals(listOf(scores[80], scores[20]), recommender.rank(done, listOf(80, "20"), 425.0).toList())
            }
        }
    }

    @Test
    fun `taps are taken where no gaps are read`() {
        val recommender = opened(null)
        val expected = recommender.recommend(listOf(10, 30), Query(3)).map { it.key to it.score }
        for (at in listOf(null, 5)) {
            val best = recommender.recommend(taps(10 to at, 30 to at), 10.0, Query(3))
            assertEquals(expected, best.map { it.key to it.score })
        }
        val scores = recommender.rank(listOf(10), listOf(20, 70)).toList()
        assertEquals(scores, recommender.rank(taps(10 to null), listOf(20, 70), 10.0).toList())
        val other = ModelBundle.open(TestBundle.write(File(directory, "other")))
        refused("it reads no history") { Recommender(other, FakeRuntime().load(other, 1)).recommend(taps(10 to 1), 2.0) }
    }

    @Test
    fun `what cannot be asked`() {
        val recommender = opened("until")
        val needs = "it reads when things were done; give taps with their times, and now"
        refused(needs) { recommender.recommend(listOf(10)) }
        refused(needs) { recommender.recommend(mapOf("seen" to listOf(10))) }
        refused(needs) { recommender.rank(listOf(10), listOf(20)) }
        refused(needs) { recommender.rank(mapOf("seen" to listOf(10)), listOf(mapOf("film" to 20))) }
        refused(needs) { recommender.score(mapOf("seen" to listOf(10), "film" to 20)) }
        refused(needs) { recommender.scoreOne(LongArray(4)) }
        refused("the context has \"seen\"") { recommender.recommend(taps(10 to 1), 2.0, context = mapOf("seen" to null)) }
        refused("takes numbers") { recommender.recommend(taps("Alien" to 1), 2.0) }
        for (now in listOf(Double.NaN, Double.POSITIVE_INFINITY)) {
            refused("now is $now, it must be a number of seconds") { recommender.recommend(taps(10 to 1), now) }
        }
        refused("taps are given without the present moment") { opened(null).recommend(listOf<Any>(Tap("10", 1.0)), Query(3)) }
        refused("taps are given without the present moment") { opened(null).score(mapOf("seen" to taps(10 to 1), "film" to 20)) }
        assertThrows(IllegalArgumentException::class.java) { Tap(10, Double.NaN) }
        val inputs = InputCheck(opened("since").bundle.manifest)
        refused("3 context ids, where the model has 6 of a history and its gaps") { inputs.recommend(LongArray(3), LongArray(1)) }
        refused("the gap bucket 32 is not in 0..31") { inputs.rank(longArrayOf(8, 8, 8, 0, 0, 32), LongArray(1)) }
        refused("the gap bucket -1 is not in 0..31") { inputs.rank(longArrayOf(8, 8, 8, -1, 0, 0), LongArray(1)) }
        refused("the id 9 is not in 0..8") { inputs.rank(longArrayOf(9, 8, 8, 31, 0, 0), LongArray(1)) }
        assertEquals(1, inputs.rank(longArrayOf(8, 8, 8, 31, 31, 31), LongArray(1)))
    }

    @Suppress("UNCHECKED_CAST")
    private fun MutableMap<String, Any?>.golden() = this["golden"] as List<Map<String, Any?>>

    @Test
    fun `golden cases are asked with their times, and gaps must be theirs`() {
        for (kind in listOf("since", "until")) {
            val bundle = opened(kind).bundle
            assertEquals(listOf(null, 1001.0, 1004.0, 1005.5, 1005.75), bundle.manifest.golden[1].times)
            assertEquals(0.0, GoldenCheck.run(bundle, FakeRuntime().load(bundle, 1)), 1e-7)
            val plan = BenchmarkPlan(listOf(1), listOf(1), 0, 1)
            assertEquals(1, Benchmark(FakeRuntime(), { MemoryUse(1, 2) }).run(bundle, plan).size)
            fun wrong(part: String, change: Map<String, Any?>) {
                val changed = opened(kind) { it["golden"] = listOf(it.golden()[0], it.golden()[1] + change) }.bundle
                val engine = FakeRuntime().load(changed, 1)
                val error = assertThrows(BundleError.WrongAnswer::class.java, { GoldenCheck.run(changed, engine) }, "$change")
                assertTrue(part in error.message!!, error.message)
            }
            val gaps = bundle.manifest.golden[1].gaps.toList()
            wrong("case 2 has the gap ${gaps[0]} at place 1, expected 9", mapOf("gaps" to listOf(9) + gaps.drop(1)))
            wrong("case 2 has the gap ${gaps[2]} at place 3, expected 0", mapOf("gaps" to gaps.dropLast(1) + 0))
            wrong("case 2 has the gap", mapOf("times" to listOf(1, 2, 3, 4, 500)))
            wrong("case 2 scores ", mapOf("score" to TestNextItem.score(listOf(10, 20, 30, 40, 50), 60)))
            val without = TestNextItem.ranked(listOf(10, 20, 30, 40, 50)).take(2)
            val best = mapOf("items" to without.map { it.first }, "scores" to without.map { it.second })
            wrong("scores the item", mapOf("best" to best))
        }
        val late = opened("until") { it["golden"] = listOf(it.golden()[0], it.golden()[1] + ("now" to 5000)) }.bundle
        assertThrows(BundleError.WrongAnswer::class.java) { GoldenCheck.run(late, FakeRuntime().load(late, 1)) }
    }

    @Test
    fun `manifests that do not fit`() {
        fun bad(part: String, gaps: String? = "since", change: (MutableMap<String, Any?>) -> Unit = {}) {
            val error = assertThrows(BundleError.BadManifest::class.java, { opened(gaps, change = change) }, part)
            assertTrue(part in error.message!!, error.message)
        }

        fun case(vararg change: Pair<String, Any?>) =
            { it: MutableMap<String, Any?> -> it["golden"] = listOf(it.golden()[0], it.golden()[1] + mapOf(*change)) }

        @Suppress("UNCHECKED_CAST")
        fun fields(change: (List<Map<String, Any?>>) -> List<Map<String, Any?>>) = { it: MutableMap<String, Any?> ->
            val schema = it["schema"] as Map<String, Any?>
            it["schema"] = schema + ("fields" to change(schema["fields"] as List<Map<String, Any?>>))
        }
        bad("a history's gaps are \"before\"", gaps = "before")
        bad("a history's gaps are \"\"", gaps = "")
        bad("gaps must be a text", change = fields { listOf(it[0] + ("gaps" to true), it[1]) })
        bad("a field that is no history has gaps", change = fields { listOf(it[0], it[1] + ("gaps" to "since")) })
        bad("a history with gaps is not the only context field", change = fields { it + mapOf("name" to "user") })
        bad("methods.rank does not take the schema's fields", change = fields { listOf(it[0] - "gaps", it[1]) })
        bad("methods.rank does not take", gaps = null, change = fields { listOf(it[0] + ("gaps" to "until"), it[1]) })
        bad("methods.recommend does not take the schema's fields") {
            val methods = it["methods"] as Map<*, *>
            val narrow = mapOf("name" to "context_ids", "dtype" to "int64", "shape" to listOf("1", TestNextItem.LAST))
            val recommend = methods["recommend"] as Map<*, *>
            val inputs = listOf(narrow) + (recommend["inputs"] as List<*>).drop(1)
            it["methods"] = methods + ("recommend" to recommend + ("inputs" to inputs))
        }
        bad("methods.forward takes no gaps") {
            val ids = mapOf("name" to "ids", "dtype" to "int64", "shape" to listOf("batch", TestNextItem.LAST + 1))
            val scores = mapOf("name" to "scores", "dtype" to "float32", "shape" to listOf("batch"))
            val forward = mapOf("inputs" to listOf(ids), "outputs" to listOf(scores), "max_batch" to 1)
            it["methods"] = it["methods"] as Map<*, *> + ("forward" to forward)
        }
        bad("times is missing", change = case("times" to null))
        bad("now is missing", change = case("now" to null))
        bad("gaps is missing", change = case("gaps" to null))
        bad("now must be a number", change = case("now" to "today"))
        bad("a golden time is soon", change = case("times" to listOf(1, 2, 3, 4, "soon")))
        bad("a golden case has 4 times for 5 items", change = case("times" to listOf(1, 2, 3, 4)))
        bad("a golden case has 2 gaps for 3 places", change = case("gaps" to listOf(1, 2)))
        for (gap in listOf(32, -1, 1.5, null)) bad("a golden gap is not in 0..31", change = case("gaps" to listOf(1, 2, gap)))
        assertEquals(true, opened("until").bundle.manifest.hasGaps)
        assertEquals(false, opened(null).bundle.manifest.hasGaps)
        val nothing = opened(null, change = fields { listOf(it[0] + ("gaps" to null), it[1]) }).bundle.manifest
        assertEquals(listOf(false, TestNextItem.LAST), listOf(nothing.hasGaps, nothing.contextWidth))
    }
}
