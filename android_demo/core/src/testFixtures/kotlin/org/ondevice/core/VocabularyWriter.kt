package org.ondevice.core

import java.io.ByteArrayOutputStream

/**
 * Writes `vocabulary.bin`, for tests. A field's groups must be as many as announced: the last one writes their keys.
 *
 * @property code the first byte of a subset of so many of so many things; by default Rice codes of what is in it.
 */
class VocabularyWriter(numFields: Int, private val code: (size: Int, total: ULong) -> Int = ::riceCode) {
    private class Group(val form: Int, val integers: List<Long>, val texts: List<String>)

    private val out = ByteArrayOutputStream().apply { write("ODV2".toByteArray()) }
    private val groups = ArrayList<Group>()
    private var numGroups = 0

    init {
        varint(numFields.toLong())
    }

    fun field(unknownRow: Int, numGroups: Int) = apply {
        this.numGroups = numGroups
        varint(unknownRow.toLong())
        varint(numGroups.toLong())
    }

    fun integers(baseRow: Int, keys: List<Long>, width: Int = 0) = group(baseRow, keys.size, 1 + width, integers = keys)

    fun texts(baseRow: Int, keys: List<String>) = group(baseRow, keys.size, 0, texts = keys)

    fun hashed(baseRow: Int, numRows: Int) = group(baseRow, numRows, 255)

    private fun group(
        baseRow: Int,
        numKeys: Int,
        form: Int,
        integers: List<Long> = emptyList(),
        texts: List<String> = emptyList(),
    ) = apply {
        varint(baseRow.toLong())
        varint(numKeys.toLong())
        byte(form)
        groups.add(Group(form, integers, texts))
        if (groups.size == numGroups) writeKeys()
    }

    private fun writeKeys() {
        for ((form, same) in groups.groupBy { it.form }) {
            if (form == 255) continue
            val integers = same.flatMap { it.integers }.sorted()
            val texts = same.flatMap { it.texts }.sortedWith(BY_BYTES)
            if (form == 0) writeTexts(texts) else writeIntegers(integers)
            if (form == 0) split(same.map { it.texts }, texts) else split(same.map { it.integers }, integers)
        }
        groups.clear()
    }

    private fun writeIntegers(keys: List<Long>) {
        varint((keys.first() shl 1) xor (keys.first() shr 63))
        varint(keys.last() - keys.first())
        subset(keys.map { (it - keys.first()).toULong() }, (keys.last() - keys.first()).toULong() + 1u)
    }

    private fun writeTexts(keys: List<String>) {
        val bytes = keys.map { it.toByteArray() }
        val shared = bytes.indices.map { index ->
            val before = bytes.getOrElse(index - 1) { ByteArray(0) }
            before.indices.firstOrNull { it >= bytes[index].size || bytes[index][it] != before[it] } ?: before.size
        }
        shared.forEach { varint(it.toLong()) }
        bytes.zip(shared) { key, size -> varint((key.size - size).toLong()) }
        bytes.zip(shared) { key, size -> out.write(key, size, key.size - size) }
    }

    private fun <T> split(groups: List<List<T>>, keys: List<T>) {
        var rest = keys
        for (group in groups) {
            val own = group.toSet()
            subset(rest.indices.filter { rest[it] in own }.map { it.toULong() }, rest.size.toULong())
            rest = rest.filter { it !in own }
        }
    }

    /** What is not there is counted one by one, for codes from 64 on. */
    private fun subset(places: List<ULong>, total: ULong) {
        if (places.size.toULong() == total) return
        val code = code(places.size, total)
        byte(code)
        val own = places.toSet()
        val bits = StringBuilder()
        if (code == 128) {
            for (place in 0uL until total) bits.append(if (place in own) '1' else '0')
        } else {
            var next = 0uL
            for (place in if (code < 64) places else (0uL until total).filter { it !in own }) {
                rice(bits, place - next, code and 63)
                next = place + 1u
            }
        }
        val payload = bits.chunked(8).map { it.padEnd(8, '0').toInt(2).toByte() }.toByteArray()
        if (code != 128) varint(payload.size.toLong())
        out.write(payload)
    }

    private fun rice(bits: StringBuilder, gap: ULong, numLowBits: Int) {
        repeat((gap shr numLowBits).toInt()) { bits.append('1') }
        bits.append('0')
        for (bit in numLowBits - 1 downTo 0) bits.append(if ((gap shr bit) and 1u == 1uL) '1' else '0')
    }

    fun varint(value: Long) = apply {
        var rest = value
        while (rest and 0x7fL.inv() != 0L) {
            byte((rest and 0x7f or 0x80).toInt())
            rest = rest ushr 7
        }
        byte(rest.toInt())
    }

    fun byte(value: Int) = apply { out.write(value) }

    fun bytes(): ByteArray = out.toByteArray()

    companion object {
        val BY_BYTES = compareBy<String> { it.toByteArray().joinToString("") { byte -> "%02x".format(byte) } }

        fun riceCode(size: Int, total: ULong): Int = 63 - (total / size.toULong()).countLeadingZeroBits()
    }
}
