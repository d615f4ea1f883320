package org.ondevice.core

import java.util.concurrent.CancellationException

/** How to measure. Each number of candidates is asked of `rank`, in batches that the program accepts. */
public class BenchmarkPlan @JvmOverloads constructor(
    public val numCandidates: List<Int> = listOf(1, 100, 1000),
    public val numThreads: List<Int> = listOf(1, 2, 4),
    public val numWarmups: Int = 20,
    public val numCalls: Int = 200,
) {
    init {
        require(numCandidates.isNotEmpty() && numCandidates.all { it >= 1 }) { "candidates: $numCandidates" }
        require(numThreads.isNotEmpty() && numThreads.all { it in 1..64 }) { "threads: $numThreads" }
        require(numWarmups >= 0 && numCalls >= 1) { "$numWarmups warm-ups, $numCalls calls" }
    }
}

/** Memory of this process, in bytes; null where the system does not tell. */
public class MemoryUse(public val pssBytes: Long?, public val peakRssBytes: Long?)

/** The wish to end what is being measured, from any thread. */
public class Cancellation {
    /** Whether it was asked for. */
    @Volatile
    public var isCancelled: Boolean = false
        private set

    /** Asks for it. */
    public fun cancel() {
        isCancelled = true
    }

    /** @throws CancellationException if it was asked for. */
    public fun throwIfCancelled() {
        if (isCancelled) throw CancellationException("cancelled")
    }
}

/** One bundle at one number of threads. */
public class Measurement internal constructor(
    public val numThreads: Int,
    public val loadNanos: Long,
    public val before: MemoryUse,
    public val after: MemoryUse,
    public val latencies: Map<Int, Latency>,
) {
    public fun toJson(): Map<String, Any?> = linkedMapOf(
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
public class Benchmark @JvmOverloads constructor(
    private val runtime: ModelRuntime,
    private val memory: () -> MemoryUse,
    private val clock: () -> Long = System::nanoTime,
) {
    /**
     * One measurement for each number of threads.
     *
     * @throws CancellationException soon after [cancellation] was asked for, with no program left loaded.
     */
    @JvmOverloads
    @Throws(BundleError::class)
    public fun run(
        bundle: ModelBundle,
        plan: BenchmarkPlan,
        cancellation: Cancellation = Cancellation(),
    ): List<Measurement> {
        Preflight.check(bundle.manifest, runtime)
        return plan.numThreads.map { measure(bundle, plan, it, cancellation) }
    }

    private fun measure(
        bundle: ModelBundle,
        plan: BenchmarkPlan,
        numThreads: Int,
        cancellation: Cancellation,
    ): Measurement {
        cancellation.throwIfCancelled()
        val before = memory()
        val start = clock()
        return runtime.load(bundle, numThreads).use { engine ->
            val loadNanos = clock() - start
            val recommender = Recommender(bundle, engine)
            val context = bundle.encodeContext(bundle.manifest.golden.first())
            val latencies = plan.numCandidates.associateWith { numCandidates ->
                val candidates = candidates(bundle, numCandidates)
                Latency.measure(plan.numWarmups, plan.numCalls, clock, cancellation::throwIfCancelled) {
                    recommender.scoreAll(context, candidates)
                }
            }
            Measurement(numThreads, loadNanos, before, memory(), latencies)
        }
    }

    public companion object {
        /** The first items of the catalog, over again where there are fewer; without one, the golden items. */
        @JvmStatic
        @Throws(BundleError::class)
        public fun candidates(bundle: ModelBundle, numCandidates: Int): ItemRows {
            val catalog = bundle.readCatalog()
            if (catalog != null) return catalog.rows.at(IntArray(numCandidates) { it % catalog.size })
            val golden = bundle.manifest.golden.flatMap { case -> bundle.encodeItem(bundle.itemOf(case.raw)).map { it.toInt() } }
            val rows = ItemRows(golden.toIntArray(), bundle.manifest.itemColumns.size)
            return rows.at(IntArray(numCandidates) { it % rows.size })
        }
    }
}
