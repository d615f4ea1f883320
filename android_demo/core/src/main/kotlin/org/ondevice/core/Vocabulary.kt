package org.ondevice.core

import java.nio.charset.CharacterCodingException

/**
 * `vocabulary.bin`: from a field's value, as canonical text, to the program's row id.
 *
 * Keys stay in sorted primitive arrays and are found by binary search: about 4 bytes for an integer key, its UTF-8
 * bytes and 4 more for a text. A hashed field has none, one of fingerprints only those.
 */
public class Vocabulary private constructor(private val fields: Array<FieldKeys>) {
    public val numFields: Int get() = fields.size

    /** Number of values of [field] that have a row of their own and can be named, as fingerprints cannot. */
    public fun numKeys(field: Int): Int = fields[field].groups.sumOf { it.numKeys }

    /** The rows of the known values of [field], in ascending order. */
    internal fun keyRows(field: Int): IntArray {
        val rows = IntArray(numKeys(field))
        var place = 0
        for (group in fields[field].groups) repeat(group.numKeys) { rows[place++] = group.baseRow + it }
        return rows
    }

    /** The place of a canonical text among the known values of [field], in the order of rows, or -1. */
    public fun indexOf(field: Int, text: String?): Int {
        val keys = fields[field]
        val row = row(field, text)
        var first = 0
        for (group in keys.groups) {
            if (row in group.baseRow until group.baseRow + group.numKeys) {
                val index = first + row - group.baseRow
                return if (group.key(row - group.baseRow) == text) index else -1
            }
            first += group.numKeys
        }
        return -1
    }

    /** The [index]-th known value of [field], in the order of the program's rows. */
    public fun key(field: Int, index: Int): String {
        var rest = index
        for (group in fields[field].groups) {
            if (rest < group.numKeys) return group.key(rest)
            rest -= group.numKeys
        }
        throw IndexOutOfBoundsException("field $field has ${numKeys(field)} keys, not ${index + 1}")
    }

    /**
     * The row of a canonical text, or the field's unknown row for null and, unless the field is hashed, for a text
     * that is not there. Fingerprints take a few of those for others.
     */
    public fun row(field: Int, text: String?): Int {
        val keys = fields[field]
        if (text == null) return keys.unknownRow
        if (keys.fingerprints != null) return utf8(text)?.let { keys.fingerprints.row(it) } ?: keys.unknownRow
        val width = integerWidth(text)
        if (width >= 0) {
            val number = text.toLong()
            for (group in keys.groups) {
                if (group is IntegerKeys && group.width == width) {
                    val index = group.find(number)
                    if (index >= 0) return group.baseRow + index
                }
            }
        } else {
            val bytes = utf8(text) ?: return keys.unknownRow
            for (group in keys.groups) {
                if (group is TextKeys) {
                    val index = group.find(bytes)
                    if (index >= 0) return group.baseRow + index
                }
            }
        }
        for (group in keys.groups) if (group is HashedKeys) return group.row(text) ?: keys.unknownRow
        return keys.unknownRow
    }

    /** The rows of all slots of a field, for its raw value. */
    internal fun rows(position: Int, field: Field, raw: Any?): IntArray =
        field.canonicalTexts(raw).map { row(position, it) }.toIntArray()

    /** Whether a history's value [raw] has a row of its own; others are passed over. */
    internal fun isKnown(position: Int, field: Field, raw: Any?): Boolean =
        field.sequence(listOf(raw)).any { row(position, it) != row(position, null) }

    /** The rows of a history's slots: those of the last values of [raw] that have one, which end in the last slot. */
    internal fun history(position: Int, field: Field, raw: Any?, slots: Int): IntArray {
        val unknown = row(position, null)
        val known = field.sequence(raw).map { row(position, it) }.filter { it != unknown }.takeLast(slots)
        return IntArray(slots) { slot -> known.getOrNull(slot - slots + known.size) ?: unknown }
    }

    /** A field has either [groups] or [fingerprints]. */
    private class FieldKeys(val unknownRow: Int, val groups: List<Keys>, val fingerprints: Fingerprints?)

    /** A group as it is announced, before any keys. */
    private class Group(val baseRow: Int, val numKeys: Int, val form: Int)

    private abstract class Keys(val baseRow: Int) {
        abstract val numKeys: Int
        abstract fun key(index: Int): String
    }

    /** Keys that fit 32 bits are kept in an [IntArray], others in a [LongArray]; the other array is empty. */
    private class IntegerKeys(baseRow: Int, val width: Int, keys: LongArray) : Keys(baseRow) {
        override val numKeys = keys.size
        private val isNarrow = keys.first() >= Int.MIN_VALUE && keys.last() <= Int.MAX_VALUE
        private val narrow = if (isNarrow) IntArray(keys.size) { keys[it].toInt() } else IntArray(0)
        private val wide = if (isNarrow) LongArray(0) else keys

        override fun key(index: Int): String {
            val number = if (isNarrow) narrow[index].toLong() else wide[index]
            return number.toString().padStart(width, '0')
        }

        fun find(number: Long): Int = when {
            !isNarrow -> wide.asBinarySearch(number)
            number in Int.MIN_VALUE..Int.MAX_VALUE -> java.util.Arrays.binarySearch(narrow, number.toInt())
            else -> -1
        }

        private fun LongArray.asBinarySearch(number: Long) = java.util.Arrays.binarySearch(this, number)
    }

    /** Key i is `bytes[ends[i-1], ends[i])`, ascending as unsigned bytes. */
    private class TextKeys(baseRow: Int, private val bytes: ByteArray, private val ends: IntArray) : Keys(baseRow) {
        override val numKeys get() = ends.size

        private fun start(index: Int) = if (index == 0) 0 else ends[index - 1]

        override fun key(index: Int): String = bytes.decodeToString(start(index), ends[index])

        /** The keys at ascending [places], with rows from [baseRow]. */
        fun only(baseRow: Int, places: IntArray): TextKeys {
            var end = 0
            val newEnds = IntArray(places.size) { index ->
                end += ends[places[index]] - start(places[index])
                end
            }
            val copy = ByteArray(end)
            places.forEachIndexed { index, place ->
                bytes.copyInto(copy, if (index == 0) 0 else newEnds[index - 1], start(place), ends[place])
            }
            return TextKeys(baseRow, copy, newEnds)
        }

        fun find(wanted: ByteArray): Int {
            var low = 0
            var high = ends.size - 1
            while (low <= high) {
                val middle = (low + high) ushr 1
                val order = compareUnsigned(bytes, start(middle), ends[middle], wanted, 0, wanted.size)
                when {
                    order < 0 -> low = middle + 1
                    order > 0 -> high = middle - 1
                    else -> return middle
                }
            }
            return -1
        }
    }

    /** No keys at all: every text has one of [numRows] rows, by its hash. */
    private class HashedKeys(baseRow: Int, private val numRows: Int) : Keys(baseRow) {
        override val numKeys = 0

        override fun key(index: Int): String = throw IndexOutOfBoundsException("a hashed field knows no keys")

        /** Null for half of a surrogate pair. */
        fun row(text: String): Int? = utf8(text)?.let { baseRow + (hash(it) % numRows.toUInt()).toInt() }
    }

    internal companion object {
        /** 32-bit FNV-1a. */
        internal fun hash(bytes: ByteArray): UInt =
            bytes.fold(0x811c9dc5u) { value, byte -> (value xor (byte.toUInt() and 0xffu)) * 0x01000193u }

        /** Null for half of a surrogate pair, which has no bytes. */
        private fun utf8(text: String): ByteArray? = try {
            text.encodeToByteArray(throwOnInvalidSequence = true)
        } catch (_: CharacterCodingException) {
            null
        }

        private const val PLAIN = "ODV2"
        private const val DEFLATED = "ODVD"
        private const val TEXTS = 0
        private const val FINGERPRINTS = 254
        private const val HASHED = 255
        private const val MAX_TEXT_BYTES = 64L shl 20

        /** Bounds memory: keys that follow one another take no bytes. */
        private const val MAX_KEYS = 1 shl 24

        /** Text at or beyond these is no integer: two values at each end of 64 bits stay free. */
        private const val MIN_INTEGER = Long.MIN_VALUE + 2
        private const val MAX_INTEGER = Long.MAX_VALUE - 2

        /**
         * How a key is stored: 0 for a canonical integer, 2 to 18 for that many digits with a zero in front, -1 for
         * a text.
         */
        internal fun integerWidth(text: String): Int {
            val start = if (text.startsWith('-')) 1 else 0
            val numDigits = text.length - start
            if (numDigits !in 1..19) return -1
            for (index in start until text.length) if (text[index] !in '0'..'9') return -1
            val isCanonical = text[start] != '0' || text == "0"
            if (isCanonical) {
                val number = text.toLongOrNull()
                if (number != null && number in MIN_INTEGER..MAX_INTEGER) return 0
            }
            return if (start == 0 && numDigits in 2..18) numDigits else -1
        }

        /** Reads [data], whose rows must lie below [numRows]; [numRows] itself is the row of zeros. */
        internal fun read(data: ByteArray, numRows: Int): Vocabulary {
            var input = ByteReader(data, Source.VOCABULARY)
            val magic = String(CharArray(4) { input.byte().toChar() })
            if (magic == DEFLATED) {
                input = input.inflated()
            } else if (magic != PLAIN) {
                corrupt("it begins with neither $PLAIN nor $DEFLATED")
            }
            val numFields = input.count("fields", perItem = 2)
            val maxKeys = minOf(numRows, MAX_KEYS)
            var numKeys = 0L
            val fields = Array(numFields) { field ->
                val unknownRow = input.row("unknown row of field $field", numRows)
                val numGroups = input.count("groups of field $field", perItem = 3)
                val groups = List(numGroups) { readGroup(input, numRows) }
                numKeys += groups.sumOf { it.numKeys.toLong() }
                if (numKeys > maxKeys) corrupt("more than $maxKeys keys in a program of $numRows rows")
                if (groups.any { it.form == FINGERPRINTS }) {
                    FieldKeys(unknownRow, emptyList(), readFingerprints(input, groups))
                } else {
                    val keys = groups.groupBy { it.form }.flatMap { (form, same) -> readKeys(input, form, same) }
                    FieldKeys(unknownRow, keys.sortedBy { it.baseRow }, null)
                }
            }
            if (!input.isAtEnd) corrupt("${input.remaining} bytes follow the last field")
            return Vocabulary(fields)
        }

        private fun readGroup(input: ByteReader, numRows: Int): Group {
            val baseRow = input.row("first row of a group", numRows)
            val numKeys = input.varint()
            if (numKeys < 1 || numKeys > numRows - baseRow) {
                corrupt("a group of ${numKeys.toULong()} keys from row $baseRow in a program of $numRows rows")
            }
            val form = input.byte()
            if (form != TEXTS && form != 1 && form !in 3..19 && form !in FINGERPRINTS..HASHED) {
                corrupt("no form $form of keys")
            }
            return Group(baseRow, numKeys.toInt(), form)
        }

        /** The keys of [groups], which are all of [form]. */
        private fun readKeys(input: ByteReader, form: Int, groups: List<Group>): List<Keys> = when (form) {
            HASHED -> groups.map { HashedKeys(it.baseRow, it.numKeys) }
            TEXTS -> {
                val all = readTexts(input, groups.sumOf { it.numKeys })
                readSplit(input, groups) { group, places -> all.only(group.baseRow, places) }
            }
            else -> {
                val all = readIntegers(input, groups.sumOf { it.numKeys }, form - 1)
                readSplit(input, groups) { group, places ->
                    IntegerKeys(group.baseRow, form - 1, LongArray(places.size) { all[places[it]] })
                }
            }
        }

        private fun readFingerprints(input: ByteReader, groups: List<Group>): Fingerprints {
            if (groups.any { it.form != FINGERPRINTS }) corrupt("fingerprints among other keys of a field")
            val fingerprints = Fingerprints.read(input, groups.sumOf { it.numKeys })
            readSplit(input, groups) { group, places ->
                places.forEachIndexed { index, place -> fingerprints.rows[place] = group.baseRow + index }
            }
            return fingerprints
        }

        /** Gives each group its ascending places in the list of all their keys. */
        private fun <T> readSplit(input: ByteReader, groups: List<Group>, keys: (Group, IntArray) -> T): List<T> {
            var rest = IntArray(groups.sumOf { it.numKeys }) { it }
            return groups.map { group ->
                val chosen = input.subset(group.numKeys, rest.size.toULong())
                val own = IntArray(chosen.size) { rest[chosen[it].toInt()] }
                val others = IntArray(rest.size - own.size)
                var numOwn = 0
                var numOthers = 0
                for (place in rest) {
                    if (numOwn < own.size && own[numOwn] == place) numOwn++ else others[numOthers++] = place
                }
                rest = others
                keys(group, own)
            }
        }

        private fun readIntegers(input: ByteReader, numKeys: Int, width: Int): LongArray {
            val zigzag = input.varint()
            val first = (zigzag ushr 1) xor -(zigzag and 1)
            val span = input.varint()
            if (first !in MIN_INTEGER..MAX_INTEGER || span.toULong() > (MAX_INTEGER - first).toULong()) {
                corrupt("an integer key beyond $MIN_INTEGER to $MAX_INTEGER")
            }
            val last = first + span
            if (width > 0 && (first < 0 || last >= pow10(width))) corrupt("a key wider than $width digits")
            val keys = input.subset(numKeys, span.toULong() + 1u)
            if (keys.first() != 0L || keys.last() != span) corrupt("integer keys that do not go from $first to $last")
            for (index in keys.indices) keys[index] += first
            return keys
        }

        private fun pow10(exponent: Int): Long = (1..exponent).fold(1L) { power, _ -> power * 10 }

        private fun readTexts(input: ByteReader, numKeys: Int): TextKeys {
            if (numKeys > input.remaining / 2) throw BundleError.TruncatedVocabulary(input.end)
            val shared = LongArray(numKeys) { input.varint() }
            val ends = IntArray(numKeys)
            var size = 0L
            var end = 0L
            var numFurther = 0L
            for (index in 0 until numKeys) {
                if (shared[index] !in 0..size) corrupt("a text shares more than the one before it has")
                val further = input.varint()
                if (further < 0 || further > input.remaining - numFurther) {
                    throw BundleError.TruncatedVocabulary(input.end)
                }
                numFurther += further
                size = shared[index] + further
                end += size
                if (end > MAX_TEXT_BYTES) corrupt("more than $MAX_TEXT_BYTES bytes of texts")
                ends[index] = end.toInt()
            }
            val bytes = ByteArray(end.toInt())
            var previous = 0
            var start = 0
            for (index in 0 until numKeys) {
                val own = start + shared[index].toInt()
                bytes.copyInto(bytes, start, previous, previous + shared[index].toInt())
                input.copyTo(bytes, own, ends[index] - own)
                if (index > 0 && compareUnsigned(bytes, previous, start, bytes, start, ends[index]) >= 0) {
                    corrupt("texts out of order")
                }
                previous = start
                start = ends[index]
            }
            return TextKeys(0, bytes, ends)
        }

        private fun compareUnsigned(a: ByteArray, aStart: Int, aEnd: Int, b: ByteArray, bStart: Int, bEnd: Int): Int {
            for (offset in 0 until minOf(aEnd - aStart, bEnd - bStart)) {
                val order = (a[aStart + offset].toInt() and 0xff) - (b[bStart + offset].toInt() and 0xff)
                if (order != 0) return order
            }
            return (aEnd - aStart) - (bEnd - bStart)
        }

        private fun corrupt(detail: String): Nothing = throw BundleError.CorruptVocabulary(detail)
    }
}
