package org.ondevice.core

/** The time between the items of a history, as a model of the next item reads it. */
internal object TimeGaps {
    /** The gap of an item is its time less that of the item before it. */
    const val SINCE = "since"

    /** The gap of an item is the time of the item after it less its own; of the newest, the present moment less it. */
    const val UNTIL = "until"
    val KINDS = setOf(SINCE, UNTIL)

    /** Buckets are 0 to this. */
    const val MAX_BUCKET = 31
    private const val MAX_SECONDS = (1L shl MAX_BUCKET).toDouble()

    /** How many bits 1 + the whole seconds have, [MAX_BUCKET] at most; 0 for a gap that is not known or below 0. */
    fun bucket(seconds: Double?): Int {
        if (seconds == null || !(seconds >= 0.0)) return 0
        val whole = 1 + minOf(seconds, MAX_SECONDS).toLong()
        return minOf(Long.SIZE_BITS - java.lang.Long.numberOfLeadingZeros(whole), MAX_BUCKET)
    }

    /**
     * The buckets of the last [places] items, which end in the last place; 0 where there is none.
     *
     * @param times of all known items, oldest first: an item that is too old to be read still has a gap to the next.
     */
    fun buckets(kind: String, times: List<Double?>, now: Double, places: Int): LongArray {
        val gaps = times.indices.map { index ->
            val from = if (kind == SINCE) times.getOrNull(index - 1) else times[index]
            val to = if (kind == SINCE) times[index] else if (index == times.lastIndex) now else times[index + 1]
            if (from == null || to == null) null else to - from
        }
        val read = gaps.takeLast(places).map { bucket(it).toLong() }
        return LongArray(places - read.size) + read
    }
}
