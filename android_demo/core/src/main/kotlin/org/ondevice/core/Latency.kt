package org.ondevice.core

/** Nanoseconds of repeated calls. */
public class Latency(nanos: LongArray) {
    private val sorted = nanos.sortedArray()

    init {
        require(nanos.isNotEmpty()) { "no measurements" }
    }

    public val numCalls: Int get() = sorted.size

    /** The [percent]-th percentile in microseconds, interpolated linearly between ranks. */
    public fun percentileMicros(percent: Double): Double {
        require(percent in 0.0..100.0) { "no percentile $percent" }
        val rank = percent / 100 * (sorted.size - 1)
        val below = rank.toInt()
        val above = minOf(below + 1, sorted.size - 1)
        return (sorted[below] + (rank - below) * (sorted[above] - sorted[below])) / 1000
    }

    public val p50Micros: Double get() = percentileMicros(50.0)
    public val p95Micros: Double get() = percentileMicros(95.0)

    internal companion object {
        /** Times [numCalls] calls after [numWarmups] that do not count. */
        internal fun measure(
            numWarmups: Int,
            numCalls: Int,
            clock: () -> Long = System::nanoTime,
            beforeEach: () -> Unit = {},
            call: () -> Unit,
        ): Latency {
            repeat(numWarmups) {
                beforeEach()
                call()
            }
            return Latency(
                LongArray(numCalls) {
                    beforeEach()
                    val start = clock()
                    call()
                    clock() - start
                },
            )
        }
    }
}
