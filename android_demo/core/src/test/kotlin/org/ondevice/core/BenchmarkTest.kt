package org.ondevice.core

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.File
import java.util.concurrent.CancellationException

class BenchmarkTest {
    @TempDir
    lateinit var directory: File

    /** Between ranks by straight lines: of 1 to 5 µs, the 95th percentile is at rank 3.8. */
    @Test
    fun `percentiles by hand`() {
        val latency = Latency(longArrayOf(5000, 1000, 4000, 2000, 3000))
        assertEquals(3.0, latency.p50Micros, 1e-9)
        assertEquals(4.8, latency.p95Micros, 1e-9)
        assertEquals(1.0, latency.percentileMicros(0.0), 1e-9)
        assertEquals(5.0, latency.percentileMicros(100.0), 1e-9)
        assertEquals(1.5, Latency(longArrayOf(1000, 2000)).p50Micros, 1e-9)
        assertEquals(7.0, Latency(longArrayOf(7000)).p95Micros, 1e-9)
        assertThrows(IllegalArgumentException::class.java) { Latency(longArrayOf()) }
        assertThrows(IllegalArgumentException::class.java) { latency.percentileMicros(101.0) }
    }

    @Test
    fun `warm-ups do not count`() {
        var now = 0L
        var calls = 0
        val latency = Latency.measure(3, 5, clock = { now }) { now += if (calls++ < 3) 1_000_000 else 2000 }
        assertEquals(8, calls)
        assertEquals(5, latency.numCalls)
        assertEquals(2.0, latency.p95Micros, 1e-9)
    }

    @Test
    fun `measuring ends when it is asked to, with nothing left loaded`() {
        val bundle = ModelBundle.open(TestBundle.write(directory))
        val cancellation = Cancellation()
        val runtime = FakeRuntime()
        var numCalls = 0
        val benchmark = Benchmark(runtime, { MemoryUse(null, null) }, clock = {
            if (numCalls++ == 9) cancellation.cancel()
            0
        })
        val plan = BenchmarkPlan(listOf(1), listOf(1, 2), numWarmups = 0, numCalls = 100)
        assertThrows(CancellationException::class.java) { benchmark.run(bundle, plan, cancellation) }
        assertEquals(10, numCalls, "the load took two, each call two")
        assertEquals(0, runtime.numOpen)
        assertEquals(listOf(1), runtime.threads)
    }

    @Test
    fun `a bundle is measured with each number of threads`() {
        val runtime = FakeRuntime()
        var now = 0L
        val benchmark = Benchmark(runtime, { MemoryUse(pssBytes = 5, peakRssBytes = null) }, clock = { now += 1500; now })
        val plan = BenchmarkPlan(listOf(1, 10), listOf(1, 4), numWarmups = 2, numCalls = 3)
        val bundle = ModelBundle.open(TestBundle.write(File(directory, "ours")))
        val measured = benchmark.run(bundle, plan)
        assertEquals(listOf(1, 4), runtime.threads)
        assertEquals(0, runtime.numOpen)
        assertEquals(listOf(1, 4, 2), runtime.batchSizes.distinct())
        assertEquals(2 * 5 * (1 + 3), runtime.batchSizes.size)

        val measurement = JsonObject(Json.parse(Json.write(measured[1].toJson())) as Map<*, *>, "")
        assertEquals(4, measurement.int("num_threads"))
        assertEquals(0.0015, measurement.double("load_ms"), 1e-12)
        assertEquals(1.5, measurement.child("rank_us").child("10").double("p50"), 1e-12)
        assertEquals(null, measurement.raw("peak_rss_bytes"))
    }

    @Test
    fun `candidates are repeated where the catalog is short`() {
        val bundle = ModelBundle.open(TestBundle.write(directory))
        val rows = LongArray(16)
        Benchmark.candidates(bundle, 8).copy(0, 8, rows)
        assertEquals(rows.slice(0..3), rows.slice(12..15))
        val golden = ModelBundle.open(TestBundle.write(File(directory, "plain"), catalog = null))
        Benchmark.candidates(golden, 3).copy(0, 3, rows)
        assertEquals(listOf(8L, 17L, 20L, 16L, 8L, 17L), rows.slice(0..5))
    }

    @Test
    fun `a plan that cannot be`() {
        assertThrows(IllegalArgumentException::class.java) { BenchmarkPlan(numCandidates = listOf(0)) }
        assertThrows(IllegalArgumentException::class.java) { BenchmarkPlan(numThreads = emptyList()) }
        assertThrows(IllegalArgumentException::class.java) { BenchmarkPlan(numCalls = 0) }
    }
}
