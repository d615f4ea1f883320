package org.ondevice.core

import java.io.ByteArrayOutputStream

/** Writes `vocabulary.bin`, for tests. */
class VocabularyWriter(numFields: Int) {
    private val out = ByteArrayOutputStream().apply { write("ODV1".toByteArray()) }

    init {
        varint(numFields.toLong())
    }

    fun field(unknownRow: Int, numGroups: Int) = apply {
        varint(unknownRow.toLong())
        varint(numGroups.toLong())
    }

    fun integers(baseRow: Int, keys: List<Long>, width: Int = 0, numLowBits: Int = 2) = apply {
        varint(baseRow.toLong())
        varint(keys.size.toLong())
        out.write(1 + width)
        varint((keys.first() shl 1) xor (keys.first() shr 63))
        out.write(numLowBits)
        val bits = StringBuilder()
        keys.zipWithNext { a, b ->
            val value = (b - a - 1).toULong()
            repeat((value shr numLowBits).toInt()) { bits.append('1') }
            bits.append('0')
            for (bit in numLowBits - 1 downTo 0) bits.append(if ((value shr bit) and 1u == 1uL) '1' else '0')
        }
        val payload = bits.chunked(8).map { it.padEnd(8, '0').toInt(2).toByte() }.toByteArray()
        varint(payload.size.toLong())
        out.write(payload)
    }

    fun hashed(baseRow: Int, numRows: Int) = apply {
        varint(baseRow.toLong())
        varint(numRows.toLong())
        out.write(255)
    }

    fun texts(baseRow: Int, keys: List<String>) = apply {
        varint(baseRow.toLong())
        varint(keys.size.toLong())
        out.write(0)
        var previous = ByteArray(0)
        for (key in keys) {
            val bytes = key.toByteArray()
            val shared = previous.indices.firstOrNull { it >= bytes.size || bytes[it] != previous[it] } ?: previous.size
            varint(shared.toLong())
            varint((bytes.size - shared).toLong())
            out.write(bytes, shared, bytes.size - shared)
            previous = bytes
        }
    }

    fun varint(value: Long) = apply {
        var rest = value
        while (rest and 0x7fL.inv() != 0L) {
            out.write((rest and 0x7f or 0x80).toInt())
            rest = rest ushr 7
        }
        out.write(rest.toInt())
    }

    fun byte(value: Int) = apply { out.write(value) }

    fun bytes(): ByteArray = out.toByteArray()
}
