package org.ondevice.core

/** How to measure. Each number of candidates is asked of `rank`, in batches that the program accepts. */
class BenchmarkPlan(
    val numCandidates: List<Int> = listOf(1, 100, 1000),
    val numThreads: List<Int> = listOf(1, 2, 4),
    val numWarmups: Int = 20,
    val numCalls: Int = 200,
) {
    init {
        require(numCandidates.isNotEmpty() && numCandidates.all { it >= 1 }) { "candidates: $numCandidates" }
        require(numThreads.isNotEmpty() && numThreads.all { it in 1..64 }) { "threads: $numThreads" }
        require(numWarmups >= 0 && numCalls >= 1) { "$numWarmups warm-ups, $numCalls calls" }
    }
}

/** Memory of this process, in bytes; null where the system does not tell. */
class MemoryUse(val pssBytes: Long?, val peakRssBytes: Long?)

/** One bundle at one number of threads. */
class Measurement(
    val numThreads: Int,
    val loadNanos: Long,
    val before: MemoryUse,
    val after: MemoryUse,
    val latencies: Map<Int, Latency>,
) {
    fun toJson(): Map<String, Any?> = linkedMapOf(
        "num_threads" to numThreads,
        "load_ms" to loadNanos / 1e6,
        "pss_before_bytes" to before.pssBytes,
        "pss_after_bytes" to after.pssBytes,
        "peak_rss_bytes" to after.peakRssBytes,
        "rank_us" to latencies.entries.associate { (numCandidates, latency) ->
            numCandidates.toString() to linkedMapOf(
                "p50" to latency.p50Micros,
                "p95" to latency.p95Micros,
                "calls" to latency.numCalls,
            )
        },
    )
}

/**
 * Measures bundles: load time, latency and memory for each number of threads.
 *
 * Only one program is loaded at a time, since the runtime's pool of threads belongs to the whole process.
 */
class Benchmark(
    private val runtime: ModelRuntime,
    private val memory: () -> MemoryUse,
    private val clock: () -> Long = System::nanoTime,
) {
    fun run(bundle: ModelBundle, plan: BenchmarkPlan): List<Measurement> {
        Preflight.check(bundle.manifest, runtime)
        return plan.numThreads.map { measure(bundle, plan, it) }
    }

    private fun measure(bundle: ModelBundle, plan: BenchmarkPlan, numThreads: Int): Measurement {
        val before = memory()
        val start = clock()
        return runtime.load(bundle, numThreads).use { engine ->
            val loadNanos = clock() - start
            val recommender = Recommender(bundle, engine)
            val context = bundle.encodeContext(bundle.contextOf(bundle.manifest.golden.first().raw))
            val latencies = plan.numCandidates.associateWith { numCandidates ->
                val candidates = candidates(bundle, numCandidates)
                Latency.measure(plan.numWarmups, plan.numCalls, clock) { recommender.scoreAll(context, candidates) }
            }
            Measurement(numThreads, loadNanos, before, memory(), latencies)
        }
    }

    companion object {
        /** The first items of the catalog, over again where there are fewer; without one, the golden items. */
        fun candidates(bundle: ModelBundle, numCandidates: Int): ItemRows {
            val catalog = bundle.readCatalog()
            if (catalog != null) return catalog.rows.at(IntArray(numCandidates) { it % catalog.size })
            val golden = bundle.manifest.golden.flatMap { case -> bundle.encodeItem(bundle.itemOf(case.raw)).map { it.toInt() } }
            val rows = ItemRows(golden.toIntArray(), bundle.manifest.itemFields.size)
            return rows.at(IntArray(numCandidates) { it % rows.size })
        }
    }
}
