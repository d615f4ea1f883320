package org.ondevice.core

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import java.util.Random
import java.util.TreeSet
import java.util.zip.Deflater

class VocabularyTest {
    private fun read(writer: VocabularyWriter, numRows: Int = 100) = Vocabulary.read(writer.bytes(), numRows)

    /** Worked out by hand: zigzag(3) = 6; deltas - 1 of 3, 4, 10 are 0 and 5; k = 1 gives 00, 1101. */
    @Test
    fun `bytes written by hand`() {
        val data = "ODV1".toByteArray() + byteArrayOf(
            1, // fields
            9, 2, // unknown row, groups
            0, 3, 1, 6, 1, 1, 0b00110100, // rows 0-2: 3, 4, 10
            5, 2, 0, 0, 2, 'a'.code.toByte(), 'b'.code.toByte(), 1, 1, 'c'.code.toByte(), // rows 5-6: "ab", "ac"
        )
        val vocabulary = Vocabulary.read(data, 9)
        assertEquals(listOf(0, 1, 2, 5, 6, 9, 9), listOf("3", "4", "10", "ab", "ac", "a", "5").map { vocabulary.row(0, it) })
        assertEquals(listOf("3", "4", "10", "ab", "ac"), List(vocabulary.numKeys(0)) { vocabulary.key(0, it) })
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
        repeat(200) { round ->
            val magnitude = random.nextInt(62)
            val keys = TreeSet<Long>()
            repeat(1 + random.nextInt(60)) { keys.add(random.nextLong() shr magnitude) }
            val texts = TreeSet(compareBy<String> { it.toByteArray().joinToString("") { byte -> "%02x".format(byte) } })
            repeat(random.nextInt(60)) {
                texts.add(String(CharArray(1 + random.nextInt(8)) { "abé漢 |'x"[random.nextInt(8)] }) + "😀".take(2 * random.nextInt(2)))
            }
            val span = (keys.last() - keys.first()).toULong()
            val numLowBits = generateSequence(0) { it + 1 }.first { (span shr it) < 5000uL }
            val writer = VocabularyWriter(1).field(1, if (texts.isEmpty()) 1 else 2)
                .integers(2, keys.toList(), numLowBits = numLowBits)
            if (texts.isNotEmpty()) writer.texts(100, texts.toList())
            val vocabulary = read(writer, 200)

            keys.forEachIndexed { index, key -> assertEquals(2 + index, vocabulary.row(0, key.toString()), "round $round") }
            texts.forEachIndexed { index, key -> assertEquals(100 + index, vocabulary.row(0, key), "round $round") }
            assertEquals(keys.map { it.toString() } + texts, List(vocabulary.numKeys(0)) { vocabulary.key(0, it) })
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
        val whole = TestBundle.vocabulary()
        Vocabulary.read(whole, TestBundle.NUM_ROWS)
        for (size in 4 until whole.size) {
            assertThrows(BundleError.TruncatedVocabulary::class.java, {
                Vocabulary.read(whole.copyOf(size), TestBundle.NUM_ROWS)
            }, "$size bytes")
        }
    }

    @Test
    fun `no change of a byte ends in anything but a vocabulary or a sentence`() {
        val whole = TestBundle.vocabulary()
        var numRefused = 0
        for (position in whole.indices) {
            for (bit in 0 until 8) {
                val data = whole.copyOf()
                data[position] = (data[position].toInt() xor (1 shl bit)).toByte()
                try {
                    Vocabulary.read(data, TestBundle.NUM_ROWS)
                } catch (_: BundleError) {
                    numRefused++
                }
            }
        }
        assertTrue(numRefused > whole.size, "$numRefused of ${8 * whole.size}")
    }

    @Test
    fun `rules of the format`() {
        fun refused(writer: VocabularyWriter, numRows: Int = 100) = assertThrows(BundleError.CorruptVocabulary::class.java) {
            read(writer, numRows)
        }.message!!

        assertTrue("2 bytes follow" in refused(VocabularyWriter(1).field(0, 0).byte(0).byte(0)))
        assertTrue("unknown row" in refused(VocabularyWriter(1).field(11, 0), numRows = 10))
        assertTrue("3 keys from row 8" in refused(VocabularyWriter(1).field(0, 1).integers(8, listOf(1, 2, 3)), numRows = 10))
        assertTrue("no form 2" in refused(VocabularyWriter(1).field(0, 1).integers(0, listOf(1), width = 1)))
        assertTrue("wider than 3" in refused(VocabularyWriter(1).field(0, 1).integers(0, listOf(1, 1000), width = 3)))
        assertTrue("wider than 3" in refused(VocabularyWriter(1).field(0, 1).integers(0, listOf(-1), width = 3)))
        assertTrue("out of order" in refused(VocabularyWriter(1).field(0, 1).texts(0, listOf("b", "a"))))
        assertTrue("out of order" in refused(VocabularyWriter(1).field(0, 1).texts(0, listOf("a", "a"))))
        assertTrue("Rice parameter" in refused(VocabularyWriter(1).field(0, 1).varint(0).varint(1).byte(1).varint(0).byte(64).varint(0)))
        val overflow = VocabularyWriter(1).field(0, 1).varint(0).varint(2).byte(1).varint(-2L).byte(1).varint(1).byte(0)
        assertTrue("out of order" in refused(overflow))
        assertThrows(BundleError.CorruptVocabulary::class.java) { Vocabulary.read("ODV2\u0000".toByteArray(), 1) }
    }

    @Test
    fun `bits that fill the last byte must be zero and bytes that follow are refused`() {
        fun group(vararg payload: Int): VocabularyWriter {
            val writer = VocabularyWriter(1).field(0, 1).varint(0).varint(2).byte(1).varint(0).byte(0)
            writer.varint(payload.size.toLong())
            payload.forEach { writer.byte(it) }
            return writer
        }
        assertEquals(1, read(group(0b10000000)).row(0, "2"))
        assertThrows(BundleError.CorruptVocabulary::class.java) { read(group(0b10000001)) }
        assertThrows(BundleError.CorruptVocabulary::class.java) { read(group(0b10000000, 0)) }
        assertThrows(BundleError.TruncatedVocabulary::class.java) { read(group(0b11111111)) }
    }

    @Test
    fun `a count that the file cannot hold is refused before memory is taken`() {
        val texts = VocabularyWriter(1).field(0, 1).varint(0).varint(1_000_000_000).byte(0)
        assertThrows(BundleError.TruncatedVocabulary::class.java) { read(texts, Int.MAX_VALUE) }
        val integers = VocabularyWriter(1).field(0, 1).varint(0).varint(1_000_000_000).byte(1).varint(0).byte(3).varint(0)
        assertThrows(BundleError.TruncatedVocabulary::class.java) { read(integers, Int.MAX_VALUE) }
        assertThrows(BundleError.TruncatedVocabulary::class.java) { read(VocabularyWriter(1_000_000)) }
    }
}
