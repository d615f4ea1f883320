package org.ondevice.core

/**
 * A field's keys that can be found but not named: a perfect hash (BBHash, arXiv 1702.03154) gives each a place of its
 * own, where a fingerprint tells most other texts from it.
 *
 * They take about 4 bits a key, the [numBits] of its fingerprint and 4 bytes for its row.
 */
internal class Fingerprints private constructor(
    private val levels: List<Level>,
    private val numBits: Int,
    private val packed: LongArray,
) {
    /** The row of the key at each place, which whoever reads the groups fills in. */
    val rows = IntArray(levels.last().endPlace)

    /** The row of a text by its UTF-8 bytes, or null where its fingerprint is not there. */
    fun row(bytes: ByteArray): Int? {
        val hash = hash(bytes)
        val place = place(hash)
        return if (place >= 0 && mixed(hash, MAX_LEVELS) shl (64 - numBits) == fingerprint(place)) rows[place] else null
    }

    private fun place(hash: Long): Int {
        for (index in levels.indices) {
            val place = levels[index].place(mixed(hash, index))
            if (place >= 0) return place
        }
        return -1
    }

    /** In the upper bits, the others zero. */
    private fun fingerprint(place: Int): Long {
        val start = place * numBits
        val offset = start and 63
        var bits = packed[start shr 6] shl offset
        if (offset + numBits > 64) bits = bits or (packed[(start shr 6) + 1] ushr (64 - offset))
        return bits and (-1L shl (64 - numBits))
    }

    /** [numBits] bits of the perfect hash; the key of the first that is set has the place [firstPlace]. */
    private class Level(private val bits: LongArray, private val numBits: Int, firstPlace: Int) {
        /** The place of the first bit that is set in each of [bits] or after it. */
        private val places = IntArray(bits.size)
        val endPlace: Int

        init {
            var place = firstPlace
            for (index in bits.indices) {
                places[index] = place
                place += bits[index].countOneBits()
            }
            endPlace = place
        }

        /** -1 where the bit that the upper half of [hash] chooses is not set. */
        fun place(hash: Long): Int {
            val bit = (((hash ushr 32) * numBits) ushr 32).toInt()
            val word = bits[bit shr 6]
            val offset = bit and 63
            if (word shl offset >= 0) return -1
            return places[bit shr 6] + (word and (-1L ushr offset).inv()).countOneBits()
        }
    }

    companion object {
        private const val MAX_LEVELS = 64

        /** 64-bit FNV-1a. */
        fun hash(bytes: ByteArray): Long {
            var hash = 0xcbf29ce484222325uL.toLong()
            for (byte in bytes) hash = (hash xor (byte.toLong() and 0xff)) * 0x100000001b3L
            return hash
        }

        /** The hash number [seed] that follows from [hash] (splitmix64). */
        private fun mixed(hash: Long, seed: Int): Long {
            var mixed = hash + (seed + 1) * 0x9e3779b97f4a7c15uL.toLong()
            mixed = (mixed xor (mixed ushr 30)) * 0xbf58476d1ce4e5b9uL.toLong()
            mixed = (mixed xor (mixed ushr 27)) * 0x94d049bb133111ebuL.toLong()
            return mixed xor (mixed ushr 31)
        }

        /** Reads what stands before the groups' subsets; rows are still to be filled in. */
        fun read(input: ByteReader, numKeys: Int): Fingerprints {
            val numBits = input.byte()
            if (numBits !in 1..32) throw BundleError.CorruptVocabulary("fingerprints of $numBits bits")
            val levels = ArrayList<Level>()
            var numPlaces = 0
            while (numPlaces < numKeys) {
                val numLeft = numKeys - numPlaces
                if (levels.size == MAX_LEVELS) {
                    throw BundleError.CorruptVocabulary("$numLeft keys are left after $MAX_LEVELS levels")
                }
                levels.add(Level(input.bits(numLeft.toLong()), numLeft, numPlaces))
                numPlaces = levels.last().endPlace
            }
            return Fingerprints(levels, numBits, input.bits(numKeys.toLong() * numBits))
        }
    }
}
