package org.ondevice.core

/** Nanoseconds of repeated calls. */
class Latency(nanos: LongArray) {
    private val sorted = nanos.sortedArray()

    init {
        require(nanos.isNotEmpty()) { "no measurements" }
    }

    val numCalls: Int get() = sorted.size

    /** The [percent]-th percentile in microseconds, interpolated linearly between ranks. */
    fun percentileMicros(percent: Double): Double {
        require(percent in 0.0..100.0) { "no percentile $percent" }
        val rank = percent / 100 * (sorted.size - 1)
        val below = rank.toInt()
        val above = minOf(below + 1, sorted.size - 1)
        return (sorted[below] + (rank - below) * (sorted[above] - sorted[below])) / 1000
    }

    val p50Micros: Double get() = percentileMicros(50.0)
    val p95Micros: Double get() = percentileMicros(95.0)

    companion object {
        /** Times [numCalls] calls after [numWarmups] that do not count. */
        fun measure(numWarmups: Int, numCalls: Int, clock: () -> Long = System::nanoTime, call: () -> Unit): Latency {
            repeat(numWarmups) { call() }
            return Latency(
                LongArray(numCalls) {
                    val start = clock()
                    call()
                    clock() - start
                },
            )
        }
    }
}
