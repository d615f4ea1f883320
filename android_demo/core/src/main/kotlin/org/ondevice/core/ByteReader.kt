package org.ondevice.core

import java.nio.ByteBuffer
import java.nio.charset.CharacterCodingException
import java.util.zip.DataFormatException
import java.util.zip.Inflater

/** The file that a [ByteReader] reads, with the errors of one that is damaged. */
internal enum class Source {
    VOCABULARY {
        override fun truncated(position: Int) = BundleError.TruncatedVocabulary(position)
        override fun corrupt(detail: String) = BundleError.CorruptVocabulary(detail)
    },
    CATALOG {
        override fun truncated(position: Int) = BundleError.BadCatalog("it is cut off after $position bytes")
        override fun corrupt(detail: String) = BundleError.BadCatalog(detail)
    }, ;

    abstract fun truncated(position: Int): BundleError
    abstract fun corrupt(detail: String): BundleError
}

/** Reads a file front to back; a read past the end is its [Source.truncated]. */
internal class ByteReader(private val data: ByteArray, private val source: Source) {
    private var position = 0

    val end: Int get() = data.size
    val remaining: Int get() = data.size - position
    val isAtEnd: Boolean get() = position == data.size

    fun byte(): Int {
        if (isAtEnd) throw source.truncated(data.size)
        return data[position++].toInt() and 0xff
    }

    /** An unsigned LEB128 number of at most 64 bits. */
    fun varint(): Long {
        var result = 0L
        var shift = 0
        while (true) {
            val byte = byte()
            if (shift == 63 && byte > 1) throw source.corrupt("a number of more than 64 bits")
            result = result or ((byte and 0x7f).toLong() shl shift)
            if (byte < 0x80) return result
            shift += 7
        }
    }

    /** A number of items that take at least [perItem] bytes each. */
    fun count(what: String, perItem: Int): Int {
        val count = varint()
        if (count !in 0..MAX_COUNT) throw source.corrupt("${count.toULong()} $what")
        if (count > remaining / perItem) throw source.truncated(data.size)
        return count.toInt()
    }

    fun row(what: String, numRows: Int): Int {
        val row = varint()
        if (row < 0 || row > numRows) {
            throw source.corrupt("the $what is ${row.toULong()} in a program of $numRows rows")
        }
        return row.toInt()
    }

    fun copyTo(target: ByteArray, offset: Int, size: Int) {
        data.copyInto(target, offset, position, position + size)
        position += size
    }

    /** What the rest of the data unpacks to: a varint, and the raw deflate of so many bytes. */
    fun inflated(): ByteReader {
        val size = varint()
        if (size < 0 || size > MAX_INFLATED_BYTES) {
            throw source.corrupt("it says that it unpacks to ${size.toULong()} bytes")
        }
        val inflater = Inflater(true)
        try {
            inflater.setInput(data, position, remaining)
            val content = ByteArray(size.toInt())
            var filled = 0
            while (filled < content.size && !inflater.finished()) {
                val count = inflater.inflate(content, filled, content.size - filled)
                if (count == 0 && (inflater.needsInput() || inflater.needsDictionary())) break
                filled += count
            }
            val further = if (inflater.finished()) 0 else inflater.inflate(ByteArray(1))
            if (filled != content.size || further > 0 || !inflater.finished() || inflater.remaining > 0) {
                throw source.corrupt("it does not unpack to $size bytes")
            }
            return ByteReader(content, source)
        } catch (error: DataFormatException) {
            throw source.corrupt("it cannot be unpacked (${error.message})")
        } finally {
            inflater.end()
        }
    }

    /** [count] texts in UTF-8: the bytes of each, then all texts, of which the ends are given. */
    fun texts(count: Int): Texts {
        val ends = IntArray(count)
        var end = 0L
        for (index in 0 until count) {
            val size = varint()
            if (size < 0 || size > remaining) throw source.truncated(data.size)
            end += size
            ends[index] = end.coerceAtMost(Int.MAX_VALUE.toLong()).toInt()
        }
        if (end > remaining) throw source.truncated(data.size)
        val bytes = data.copyOfRange(position, position + end.toInt())
        position += end.toInt()
        if (isAscii(bytes)) return Texts(bytes, ends)
        try {
            var start = 0
            for (next in ends) {
                // Each text by itself, so that a character cannot go from one to the next.
                Charsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes, start, next - start))
                start = next
            }
        } catch (_: CharacterCodingException) {
            throw source.corrupt("a text is not UTF-8")
        }
        return Texts(bytes, ends)
    }

    private fun isAscii(bytes: ByteArray): Boolean {
        for (byte in bytes) if (byte < 0) return false
        return true
    }

    fun slice(size: Long): BitReader {
        if (size < 0 || size > remaining) throw source.truncated(data.size)
        position += size.toInt()
        return BitReader(data, position - size.toInt(), position, source)
    }

    /** [numBits] bits, at least one, in whole bytes, the most significant of each number first. */
    fun bits(numBits: Long): LongArray {
        val numBytes = (numBits + 7) / 8
        if (numBytes > remaining) throw source.truncated(data.size)
        val words = LongArray(((numBits + 63) / 64).toInt())
        var last = 0
        for (index in 0 until numBytes.toInt()) {
            last = byte()
            words[index shr 3] = words[index shr 3] or (last.toLong() shl (56 - 8 * (index and 7)))
        }
        val numFilled = (8 * numBytes - numBits).toInt()
        if (last and ((1 shl numFilled) - 1) != 0) {
            throw source.corrupt("the last byte is not filled with zero bits")
        }
        return words
    }

    /** The ascending places of [size] things among [total]. They have no sign, like [total]. */
    fun subset(size: Int, total: ULong): LongArray {
        if (size.toULong() > total) throw source.corrupt("$size keys among $total numbers")
        if (size.toULong() == total) return LongArray(size) { it.toLong() }
        val code = byte()
        if (code == BITMAP) return bitmap(size, total)
        if (code > BITMAP) throw source.corrupt("no code $code of a subset")
        val payload = slice(varint())
        val numListed = if (code < COMPLEMENT) size.toULong() else total - size.toULong()
        if (numListed > payload.numBits.toULong()) throw source.truncated(payload.end)
        val places = LongArray(size)
        var numPlaces = 0
        var next = 0L
        var numOthers = total - numListed // that are still ahead: no gap is longer
        for (listed in 0 until numListed.toLong()) {
            val gap = payload.rice(code and 63)
            if (gap.toULong() > numOthers) {
                throw source.corrupt("a subset goes beyond its $total places")
            }
            numOthers -= gap.toULong()
            if (code < COMPLEMENT) {
                places[numPlaces++] = next + gap
            } else {
                for (place in next until next + gap) places[numPlaces++] = place
            }
            next += gap + 1
        }
        payload.finish()
        while (numPlaces < size) places[numPlaces++] = next++
        return places
    }

    private fun bitmap(size: Int, total: ULong): LongArray {
        if (total > 8uL * remaining.toULong()) throw source.truncated(data.size)
        val payload = slice((total.toLong() + 7) / 8)
        val places = LongArray(size)
        var numPlaces = 0L
        for (place in 0 until total.toLong()) {
            if (payload.bit() == 0) continue
            if (numPlaces < size) places[numPlaces.toInt()] = place
            numPlaces++
        }
        if (numPlaces != size.toLong()) {
            throw source.corrupt("a subset of $numPlaces things instead of $size")
        }
        payload.finish()
        return places
    }

    private companion object {
        const val COMPLEMENT = 64
        const val BITMAP = 128

        /** Fields, or groups of a field: no bundle has as many, and time grows with groups times keys. */
        const val MAX_COUNT = 1L shl 12
        const val MAX_INFLATED_BYTES = 256L shl 20
    }
}

/** Many texts in few objects: text i is `bytes[ends[i-1], ends[i])`, valid UTF-8. */
internal class Texts(private val bytes: ByteArray, private val ends: IntArray) {
    val size: Int get() = ends.size

    operator fun get(index: Int): String {
        val start = if (index == 0) 0 else ends[index - 1]
        return bytes.decodeToString(start, ends[index])
    }
}

/** Reads bits, most significant first. */
internal class BitReader(private val data: ByteArray, start: Int, val end: Int, private val source: Source) {
    private var position = start * 8L
    val numBits: Long = (end - start) * 8L

    fun bit(): Int {
        if (position == end * 8L) throw source.truncated(end)
        val bit = (data[(position shr 3).toInt()].toInt() shr (7 - (position and 7).toInt())) and 1
        position++
        return bit
    }

    /** A Rice code: the quotient as one-bits and a zero-bit, then [numLowBits] bits. */
    fun rice(numLowBits: Int): Long {
        var quotient = 0L
        while (bit() == 1) quotient++
        if (numLowBits > 0 && quotient > (-1L ushr numLowBits)) {
            throw source.corrupt("a gap of more than 64 bits")
        }
        var low = 0L
        repeat(numLowBits) { low = (low shl 1) or bit().toLong() }
        return (quotient shl numLowBits) or low
    }

    /** What is left must be the zero bits that fill the last byte. */
    fun finish() {
        if (end * 8L - position >= 8) throw source.corrupt("bytes follow the last bit of a subset")
        while (position < end * 8L) {
            if (bit() != 0) throw source.corrupt("the last byte is not filled with zero bits")
        }
    }
}
