package org.ondevice.core

import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import java.util.Random
import java.util.TreeSet
import java.util.zip.Deflater

class VocabularyTest {
    private fun read(writer: VocabularyWriter, numRows: Int = 100) = Vocabulary.read(writer.bytes(), numRows)

    private fun file(vararg content: Int) = "ODV2".toByteArray() + ByteArray(content.size) { content[it].toByte() }

    /** Several groups of each form, in an order of their own, and all codes of subsets. */
    private fun mixed(): ByteArray {
        val codes = listOf(128, 1, 64, 2, 65, 128, 0).iterator()
        return VocabularyWriter(2) { _, _ -> codes.next() }
            .field(60, 7)
            .texts(20, listOf("a", "漢字", "漢字|b")).integers(1, listOf(3, 4, 17)).integers(40, listOf(5, 99), width = 3)
            .texts(30, listOf("", "ab", "漢")).integers(10, listOf(-3, 6, 8, 9)).integers(50, listOf(7, 8), width = 3)
            .integers(33, listOf(-2, 5))
            .field(61, 3).hashed(44, 3).texts(26, listOf("b")).texts(28, listOf("a", "c"))
            .bytes().also { check(!codes.hasNext()) }
    }

    /**
     * Worked out by hand: zigzag(3) = 6; 3, 4 and 10 are the places 0, 1 and 7 of eight, their gaps 0, 0 and 5, which
     * k = 1 gives as 00, 00 and 1101. The first group has the places 0 and 2 of three, the text that is not in the
     * third one the place 1, whose gap is 1.
     */
    @Test
    fun `bytes written by hand`() {
        val (a, b, c) = listOf('a'.code, 'b'.code, 'c'.code)
        val data = file(
            1, // fields
            9, 4, // unknown row, groups
            0, 2, 1, 8, 1, 1, 5, 2, 0, 7, 1, 0, // rows 0-1, 8: integers; rows 5-6, 7: texts
            6, 7, 1, 1, 0b00001101, // 3, 4, 10
            128, 0b10100000, // 3, 10
            0, 1, 0, 2, 1, 1, a, b, c, b, // "ab", "ac", "b"
            64, 1, 0b10000000, // "ab", "b"
        )
        val vocabulary = Vocabulary.read(data, 9)
        val texts = listOf("3", "10", "ab", "b", "ac", "4")
        assertEquals(listOf(0, 1, 5, 6, 7, 8), texts.map { vocabulary.row(0, it) })
        assertEquals(listOf(9, 9, 9), listOf("a", "5", "abc").map { vocabulary.row(0, it) })
        assertEquals(texts, List(vocabulary.numKeys(0)) { vocabulary.key(0, it) })
        val codes = listOf(1, 128, 64).iterator()
        val writer = VocabularyWriter(1) { _, _ -> codes.next() }.field(9, 4)
            .integers(0, listOf(3, 10)).integers(8, listOf(4)).texts(5, listOf("ab", "b")).texts(7, listOf("ac"))
        assertArrayEquals(data, writer.bytes())
    }

    @Test
    fun `groups share the keys of their form`() {
        val vocabulary = Vocabulary.read(mixed(), 60 + 2)
        val keys = listOf("3", "4", "17", "-3", "6", "8", "9", "a", "漢字", "漢字|b", "", "ab", "漢", "-2", "5") +
            listOf("005", "099", "007", "008")
        val rows = listOf(1..3, 10..13, 20..22, 30..32, 33..34, 40..41, 50..51).flatten()
        assertEquals(keys, List(vocabulary.numKeys(0)) { vocabulary.key(0, it) })
        assertEquals(rows, keys.map { vocabulary.row(0, it) })
        assertEquals(listOf(60, 60, 60), listOf("7", "05", "b").map { vocabulary.row(0, it) })
        assertEquals(listOf(26, 28, 29), listOf("b", "a", "c").map { vocabulary.row(1, it) })
        assertTrue(vocabulary.row(1, "d") in 44..46)
    }

    @Test
    fun `integers from one end of 64 bits to the other`() {
        val (smallest, largest) = listOf(Long.MIN_VALUE + 2, Long.MAX_VALUE - 2)
        val groups = listOf(listOf(smallest, -1, largest), listOf(smallest + 1, 0, 1L shl 62), listOf(largest - 1))
        val writer = VocabularyWriter(1).field(9, 3)
        groups.forEachIndexed { index, keys -> writer.integers(3 * index, keys) }
        val vocabulary = read(writer)
        assertEquals((0..6).toList(), groups.flatten().map { vocabulary.row(0, it.toString()) })
        assertEquals(groups.flatten().map { it.toString() }, List(7) { vocabulary.key(0, it) })
        val others = listOf("-9223372036854775807", "9223372036854775806", "2")
        assertEquals(listOf(9, 9, 9), others.map { vocabulary.row(0, it) })
        assertEquals(5, read(VocabularyWriter(1).field(9, 1).integers(5, listOf(smallest))).row(0, "$smallest"))
    }

    private fun deflated(plain: ByteArray, size: Int = plain.size - 4, cut: Int = 0): ByteArray {
        val deflater = Deflater(9, true).apply { setInput(plain, 4, plain.size - 4); finish() }
        val buffer = ByteArray(plain.size + 100)
        val packed = buffer.copyOf(deflater.deflate(buffer) - cut)
        return "ODVD".toByteArray() + VocabularyWriter(size).bytes().drop(4) + packed
    }

    @Test
    fun `a deflated file reads as the plain one`() {
        val texts = List(80) { "Action|Drama|%02d".format(it) }
        val plain = VocabularyWriter(1).field(90, 1).texts(3, texts).bytes()
        val data = deflated(plain)
        assertTrue(data.size < plain.size / 2)
        val vocabulary = Vocabulary.read(data, 100)
        assertEquals(texts, List(80) { vocabulary.key(0, it) })
        assertEquals(listOf(3, 82, 90), listOf(texts[0], texts[79], "Drama").map { vocabulary.row(0, it) })
    }

    @Test
    fun `a deflated file is unpacked whole or not at all`() {
        val plain = VocabularyWriter(1).field(90, 1).texts(3, List(80) { "Action|Drama|%02d".format(it) }).bytes()
        val wrong = listOf(
            deflated(plain, size = plain.size - 5), deflated(plain, size = plain.size - 3), deflated(plain, cut = 1),
            deflated(plain) + 1, "ODVD".toByteArray() + byteArrayOf(5) + ByteArray(9) { -1 },
            "ODVD".toByteArray() + byteArrayOf(-1, -1, -1, -1, 127, 3, 0),
        )
        for (data in wrong) assertThrows(BundleError.CorruptVocabulary::class.java) { Vocabulary.read(data, 100) }
        assertThrows(BundleError.TruncatedVocabulary::class.java) { Vocabulary.read("ODVD".toByteArray(), 100) }
    }

    @Test
    fun `the form of a text`() {
        val widths = mapOf(
            "0" to 0, "7" to 0, "-7" to 0, "12" to 0, "02138" to 5, "00" to 2, "000000000000000001" to 18,
            "0000000000000000001" to -1, "-0" to -1, "-07" to -1, "" to -1, "-" to -1, "+7" to -1, " 7" to -1,
            "7a" to -1, "1.0" to -1, "٣" to -1, "9223372036854775805" to 0, "9223372036854775806" to -1,
            "9223372036854775808" to -1, "-9223372036854775806" to 0, "-9223372036854775808" to -1,
        )
        for ((text, width) in widths) assertEquals(width, Vocabulary.integerWidth(text), "\"$text\"")
    }

    @Test
    fun `a padded number is not the number`() {
        val vocabulary = read(
            VocabularyWriter(1).field(0, 3)
                .integers(1, listOf(2138)).integers(2, listOf(2138), width = 5).integers(3, listOf(2138), width = 6),
        )
        assertEquals(listOf(1, 2, 3, 0), listOf("2138", "02138", "002138", "0002138").map { vocabulary.row(0, it) })
        assertEquals(listOf("2138", "02138", "002138"), List(3) { vocabulary.key(0, it) })
    }

    @Test
    fun `random keys come back at their rows and others at the unknown row`() {
        val random = Random(5)
        fun <T> groups(keys: Collection<T>) = keys.groupBy { random.nextInt(4) }.values
        repeat(200) { round ->
            val magnitude = random.nextInt(62)
            val keys = TreeSet<Long>()
            repeat(1 + random.nextInt(60)) { keys.add(random.nextLong() shr magnitude) }
            val texts = TreeSet(VocabularyWriter.BY_BYTES)
            repeat(random.nextInt(60)) {
                val text = String(CharArray(1 + random.nextInt(8)) { "abé漢 |'x"[random.nextInt(8)] })
                texts.add(text + "😀".take(2 * random.nextInt(2)))
            }
            val padded = TreeSet(List(random.nextInt(60)) { random.nextInt(100).toLong() })
            val writer = VocabularyWriter(1) { size, total ->
                val numLowBits = VocabularyWriter.riceCode(size, total)
                if (total > 300uL) numLowBits else listOf(numLowBits, 64 + random.nextInt(4), 128)[random.nextInt(3)]
            }
            var row = 2
            val expected = LinkedHashMap<String, Int>()
            fun rows(texts: List<String>): Int = row.also { texts.forEach { expected[it] = row++ } }
            val writes = groups(keys).map { group ->
                val first = rows(group.map { it.toString() });
                { writer.integers(first, group) }
            } + groups(padded).map { group ->
                val first = rows(group.map { "%03d".format(it) });
                { writer.integers(first, group, width = 3) }
            } + groups(texts).map { group ->
                val first = rows(group);
                { writer.texts(first, group) }
            }
            writer.field(1, writes.size)
            writes.shuffled(random).forEach { it() }
            val vocabulary = read(writer, 200)

            for ((key, at) in expected) assertEquals(at, vocabulary.row(0, key), "round $round")
            assertEquals(expected.keys.toList(), List(vocabulary.numKeys(0)) { vocabulary.key(0, it) })
            repeat(50) {
                val other = random.nextLong() shr magnitude
                if (other !in keys) assertEquals(1, vocabulary.row(0, other.toString()))
                if ("$other!" !in texts) assertEquals(1, vocabulary.row(0, "$other!"))
            }
        }
    }

    /** FNV-1a of "foobar", its published test vector, and of "7": 0xbf9cf968 and 0x320ca3f6. */
    @Test
    fun `a hashed field gives every text a row and knows no keys`() {
        assertEquals(listOf(0x811c9dc5u, 0xbf9cf968u, 0x320ca3f6u), listOf("", "foobar", "7").map { Vocabulary.hash(it.toByteArray()) })
        val vocabulary = read(VocabularyWriter(2).field(90, 1).hashed(3, 60).field(91, 1).integers(1, listOf(5)))
        assertEquals(3 + (0xbf9cf968L % 60).toInt(), vocabulary.row(0, "foobar"))
        assertEquals(3 + (0x320ca3f6L % 60).toInt(), vocabulary.row(0, "7"))
        assertEquals(listOf(90, 90), listOf(null, "\ud800").map { vocabulary.row(0, it) })
        assertEquals(listOf(0, 1), listOf(0, 1).map { vocabulary.numKeys(it) })
        assertEquals(listOf(1, 91), listOf("5", "foobar").map { vocabulary.row(1, it) })
        assertThrows(BundleError.CorruptVocabulary::class.java) { read(VocabularyWriter(1).field(0, 1).hashed(3, 98)) }
    }

    @Test
    fun `an unpaired surrogate is unknown`() {
        val vocabulary = read(VocabularyWriter(1).field(7, 1).texts(0, listOf("?")))
        assertEquals(7, vocabulary.row(0, "\ud800"))
        assertEquals(0, vocabulary.row(0, "?"))
    }

    @Test
    fun `every cut is reported as a truncation`() {
        for (whole in listOf(TestBundle.vocabulary(), mixed())) {
            Vocabulary.read(whole, 62)
            for (size in whole.indices) {
                assertThrows(BundleError.TruncatedVocabulary::class.java, {
                    Vocabulary.read(whole.copyOf(size), 62)
                }, "$size bytes")
            }
        }
    }

    @Test
    fun `no change of a byte ends in anything but a vocabulary or a sentence`() {
        val whole = mixed()
        var numRefused = 0
        for (position in whole.indices) {
            for (value in 0 until 256) {
                val data = whole.copyOf()
                data[position] = value.toByte()
                try {
                    Vocabulary.read(data, 62)
                } catch (_: BundleError) {
                    numRefused++
                }
            }
        }
        assertTrue(numRefused > 128 * whole.size, "$numRefused of ${256 * whole.size}")
    }

    @Test
    fun `rules of the format`() {
        fun refused(expected: String, data: ByteArray, numRows: Int = 100) {
            val error = assertThrows(BundleError.CorruptVocabulary::class.java, {
                Vocabulary.read(data, numRows)
            }, expected)
            assertTrue(expected in error.message!!, "${error.message}, not $expected")
        }
        fun group(vararg content: Int) = file(1, 0, 1, 0, *content)

        refused("neither ODV2 nor ODVD", "ODV1\u0000".toByteArray())
        refused("2 bytes follow", file(1, 0, 0, 0, 0))
        refused("unknown row", file(1, 11, 0), numRows = 10)
        refused("5000 fields", VocabularyWriter(5000).bytes())
        refused("3 keys from row 8", VocabularyWriter(1).field(0, 1).integers(8, listOf(1, 2, 3)).bytes(), numRows = 10)
        refused("a group of 0 keys", group(0, 1, 0, 0))
        val two = VocabularyWriter(1).field(0, 2).integers(0, (1L..60).toList()).integers(0, (61L..120).toList())
        refused("more than 100 keys", two.bytes())
        refused("no form 2", group(1, 2, 2, 0))
        refused("no form 20", group(1, 20, 2, 0))
        refused("no form 253", group(1, 253, 2, 0))

        refused("out of order", group(2, 0, 0, 0, 1, 1, 'b'.code, 'a'.code))
        refused("out of order", group(2, 0, 0, 1, 1, 0, 'a'.code))
        refused("shares more", group(1, 0, 1, 0))
        refused("shares more", group(2, 0, 0, 2, 1, 1, 'a'.code, 'b'.code))

        refused("wider than 3", group(1, 4, 1, 0))
        refused("wider than 3", VocabularyWriter(1).field(0, 1).integers(0, listOf(1, 1000), width = 3).bytes())
        refused("3 keys among 2 numbers", group(3, 1, 0, 1))
        refused("do not go from 0 to 1", group(1, 1, 0, 1, 0, 1, 0b00000000))
        refused("do not go from 0 to 5", group(2, 1, 0, 5, 128, 0b11000000))
        refused("do not go from 0 to 5", group(2, 1, 0, 5, 128, 0b01000100))

        refused("no code 129", group(2, 1, 0, 5, 129, 0b10000100))
        refused("no code 255", group(2, 1, 0, 5, 255, 0b10000100))
        refused("a subset of 1 things instead of 2", group(2, 1, 0, 5, 128, 0b10000000))
        refused("a subset of 3 things instead of 2", group(2, 1, 0, 5, 128, 0b11000100))
        refused("zero bits", group(2, 1, 0, 5, 128, 0b10000101))
        refused("zero bits", group(2, 1, 0, 5, 0, 1, 0b01111001))
        refused("bytes follow", group(2, 1, 0, 5, 0, 2, 0b01111000, 0))
        refused("beyond its 6 places", group(2, 1, 0, 5, 0, 1, 0b01111100))
        refused("zero bits", group(3, 1, 0, 3, 64, 1, 0b10000001))
        refused("bytes follow", group(3, 1, 0, 3, 64, 2, 0b10000000, 0))
        refused("beyond its 4 places", group(3, 1, 0, 3, 64, 1, 0b11110000))
        refused("beyond its 4 places", group(2, 1, 0, 3, 64, 1, 0b11100000))
        refused("beyond its 3 places", file(1, 0, 2, 0, 2, 1, 2, 1, 1, 0, 2, 0, 1, 0b11000000))
    }

    @Test
    fun `integers do not leave 64 bits`() {
        fun writer(first: Long, span: Long) = VocabularyWriter(1).field(0, 1).varint(0).varint(2).byte(1)
            .varint((first shl 1) xor (first shr 63)).varint(span)
        val (smallest, largest) = listOf(Long.MIN_VALUE + 2, Long.MAX_VALUE - 2)
        val wrong = listOf(smallest - 1 to 1L, smallest to -4L, smallest to -1L, 1L to Long.MAX_VALUE, largest to 1L) +
            listOf(largest + 1 to 0L, -1L to -1L)
        for ((first, span) in wrong) {
            val error = assertThrows(BundleError.CorruptVocabulary::class.java) { read(writer(first, span)) }
            assertTrue("an integer key beyond" in error.message!!, error.message)
        }
        val gap = writer(0, largest).byte(63).varint(17)
        for (byte in listOf(0, 0, 0, 0, 0, 0, 0, 0, 0b11000000, 0, 0, 0, 0, 0, 0, 0, 0)) gap.byte(byte)
        val error = assertThrows(BundleError.CorruptVocabulary::class.java) { read(gap) }
        assertTrue("a gap of more than 64 bits" in error.message!!, error.message)
        assertThrows(BundleError.CorruptVocabulary::class.java) { Vocabulary.read(file(*IntArray(10) { 255 }, 1), 1) }
    }

    @Test
    fun `a count that the file cannot hold is refused before memory is taken`() {
        fun group(numKeys: Long, form: Int) = VocabularyWriter(1).field(0, 1).varint(0).varint(numKeys).byte(form)
        fun truncated(writer: VocabularyWriter) =
            assertThrows(BundleError.TruncatedVocabulary::class.java) { read(writer, Int.MAX_VALUE) }
        truncated(group(1 shl 24, 0).varint(0))
        truncated(group(1, 0).varint(0).varint(Long.MAX_VALUE))
        truncated(group(1, 0).varint(0).varint(-1))
        truncated(group(1 shl 24, 1).varint(0).varint(1L shl 60).byte(3).varint(1).byte(0))
        truncated(group(1 shl 24, 1).varint(0).varint(1L shl 60).byte(64).varint(1).byte(0))
        truncated(group(1 shl 24, 1).varint(0).varint(1L shl 60).byte(128).byte(0))
        truncated(group(2, 1).varint(-5).varint(-5).byte(64).varint(0)) // from one end of 64 bits to the other
        truncated(group(2, 1).varint(-5).varint(-5).byte(128))
        truncated(group(2, 1).varint(0).varint(5).byte(0).varint(-1))
        truncated(group(2, 1).varint(0).varint(5).byte(0).varint(1).byte(255))
        assertThrows(BundleError.CorruptVocabulary::class.java) {
            read(group(1_000_000_000, 1).varint(0).varint(999_999_999), Int.MAX_VALUE)
        }
        assertThrows(BundleError.TruncatedVocabulary::class.java) { read(VocabularyWriter(4000)) }
    }
}
