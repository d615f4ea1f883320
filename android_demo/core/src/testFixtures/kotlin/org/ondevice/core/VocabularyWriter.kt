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
    private var numFingerprintBits = 0

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

    /** [numBits] are the same in all groups; rows are in the order that [placed] gives the keys of all of them. */
    fun fingerprints(baseRow: Int, keys: List<String>, numBits: Int): VocabularyWriter {
        numFingerprintBits = numBits
        return group(baseRow, keys.size, 254, texts = keys)
    }

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
            val texts = same.flatMap { it.texts }.let { if (form == 254) placed(it) else it.sortedWith(BY_BYTES) }
            when (form) {
                0 -> writeTexts(texts)
                254 -> writeFingerprints(texts)
                else -> writeIntegers(integers)
            }
            if (texts.isEmpty()) split(same.map { it.integers }, integers) else split(same.map { it.texts }, texts)
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

    private fun writeFingerprints(keys: List<String>) {
        byte(numFingerprintBits)
        for (level in levels(keys)) {
            out.write(packed(CharArray(level.numBits) { if (it in level.keys) '1' else '0' }.concatToString()))
        }
        val fingerprints = keys.map { mixed(it, 64).toString(2).padStart(64, '0').takeLast(numFingerprintBits) }
        out.write(packed(fingerprints.joinToString("")))
    }

    private fun packed(bits: CharSequence) =
        bits.chunked(8).map { it.padEnd(8, '0').toInt(2).toByte() }.toByteArray()

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
        val payload = packed(bits)
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

        /** A level of a perfect hash: the keys that are alone at one of its bits, by that bit. */
        private class Level(val numBits: Int, val keys: Map<Int, String>)

        private fun levels(keys: List<String>): List<Level> {
            val levels = ArrayList<Level>()
            var left = keys
            while (left.isNotEmpty()) {
                val byBit = left.groupBy { ((mixed(it, levels.size) shr 32) * left.size.toULong() shr 32).toInt() }
                val alone = byBit.filterValues { it.size == 1 }.mapValues { it.value.single() }
                levels.add(Level(left.size, alone.toSortedMap()))
                left = left - alone.values.toSet()
            }
            return levels
        }

        /** [keys] in the order of their places in the perfect hash of all of them. */
        fun placed(keys: List<String>): List<String> = levels(keys).flatMap { it.keys.values }

        private fun mixed(key: String, seed: Int): ULong {
            val hash = key.toByteArray().fold(14695981039346656037u) { hash, byte ->
                (hash xor byte.toUByte().toULong()) * 1099511628211u
            }
            val first = hash + (seed + 1).toULong() * 0x9e3779b97f4a7c15u
            val second = (first xor (first shr 30)) * 0xbf58476d1ce4e5b9u
            val third = (second xor (second shr 27)) * 0x94d049bb133111ebu
            return third xor (third shr 31)
        }

        fun riceCode(size: Int, total: ULong): Int = 63 - (total / size.toULong()).countLeadingZeroBits()
    }
}
