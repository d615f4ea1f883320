package org.ondevice.core

import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import java.util.Random

class FingerprintsTest {
    private fun file(vararg content: Int) = "ODV2".toByteArray() + ByteArray(content.size) { content[it].toByte() }

    /** Rows 0-3 and 5-6 of a program of 10, unknown row 9. */
    private fun small(): ByteArray = VocabularyWriter(1) { _, _ -> 128 }.field(9, 2)
        .fingerprints(0, listOf("42", "é", "", "x"), 12).fingerprints(5, listOf("02138", "Drama"), 12).bytes()

    /** [numKeys] texts of every kind, in an order of their own. */
    private fun texts(random: Random, numKeys: Int): List<String> {
        val texts = LinkedHashSet<String>()
        while (texts.size < numKeys) {
            texts += when (random.nextInt(4)) {
                0 -> (random.nextLong() shr random.nextInt(64)).toString()
                1 -> "%05d".format(random.nextInt(100_000))
                2 -> "Action|Drama|${random.nextInt(100_000)}"
                else -> CharArray(1 + random.nextInt(8)) { "abé漢 |'x"[random.nextInt(8)] }.concatToString() + "😀"
            }
        }
        return texts.toList()
    }

    /** The six keys leave four after the first level, two after the second and after the third. */
    @Test
    fun `bytes worked out apart`() {
        val data = file(
            1, // fields
            9, 2, // unknown row, groups
            0, 4, 254, 5, 2, 254, // rows 0-3; rows 5-6
            12, 0b00001100, 0b11000000, 0b00000000, 0b11000000, // levels of 6, 4, 2 and 2 bits
            0xb0, 0x7c, 0x2f, 0xf7, 0x2a, 0x27, 0xf4, 0x62, 0x59, // "", "Drama", "é", "02138", "42", "x"
            128, 0b10101100, // "", "é", "42", "x"
        )
        val vocabulary = Vocabulary.read(data, 10)
        val texts = listOf("", "é", "42", "x", "Drama", "02138")
        assertEquals(listOf(0, 1, 2, 3, 5, 6), texts.map { vocabulary.row(0, it) })
        val others = listOf("2138", "042", "a", "X", "drama", "\ud800", null)
        assertEquals(others.map { 9 }, others.map { vocabulary.row(0, it) })
        assertArrayEquals(data, small())
    }

    /** Published test vectors. */
    @Test
    fun `64-bit FNV-1a`() {
        val expected = mapOf("" to 0xcbf29ce484222325u, "a" to 0xaf63dc4c8601ec8cu, "foobar" to 0x85944171f73967e8u)
        for ((text, hash) in expected) assertEquals(hash, Fingerprints.hash(text.toByteArray()).toULong())
    }

    @Test
    fun `random keys come back at their rows and most others at the unknown row`() {
        val random = Random(7)
        val allBits = listOf(1, 7, 8, 12, 16, 31, 32)
        for (numKeys in listOf(1, 2, 3, 50, 5000)) for (numBits in allBits) {
            val texts = texts(random, numKeys + 500)
            val keys = texts.take(numKeys)
            val places = VocabularyWriter.placed(keys).withIndex().associate { it.value to it.index }
            val groups = keys.groupBy { random.nextInt(4) }.values
            val expected = HashMap<String, Int>()
            var row = 3
            val starts = groups.map { group ->
                group.sortedBy { places[it] }.forEachIndexed { index, key -> expected[key] = row + index }
                row.also { row += group.size + random.nextInt(3) }
            }
            val writer = VocabularyWriter(3)
                .field(1, 1).integers(0, listOf(7))
                .field(2, groups.size)
            groups.zip(starts).shuffled(random).forEach { (group, start) -> writer.fingerprints(start, group, numBits) }
            writer.field(row, 1).texts(1, listOf("a"))
            val vocabulary = Vocabulary.read(writer.bytes(), row)

            for ((key, at) in expected) assertEquals(at, vocabulary.row(1, key), "$numKeys keys, $numBits bits, $key")
            val rows = texts.drop(numKeys).map { vocabulary.row(1, it) }
            assertTrue(rows.all { it == 2 || it in expected.values })
            if (numBits >= 12) assertTrue(rows.count { it != 2 } < 6, "$numKeys keys, $numBits bits")
            assertEquals(listOf(0, 1), listOf(vocabulary.row(0, "7"), vocabulary.row(2, "a")))
        }
    }

    @Test
    fun `a few unknown texts are taken for known ones`() {
        val texts = texts(Random(8), 25_000)
        for ((numBits, expected) in mapOf(1 to 9_600..10_400, 8 to 40..120, 32 to 0..0)) {
            val writer = VocabularyWriter(1).field(6000, 1).fingerprints(0, texts.take(5000), numBits)
            val vocabulary = Vocabulary.read(writer.bytes(), 6000)
            val numTaken = texts.drop(5000).count { vocabulary.row(0, it) != 6000 }
            assertTrue(numTaken in expected, "$numTaken of 20,000 with $numBits bits")
        }
    }

    @Test
    fun `keys are found but not named`() {
        val vocabulary = Vocabulary.read(small(), 10)
        assertEquals(0, vocabulary.numKeys(0))
        assertThrows(IndexOutOfBoundsException::class.java) { vocabulary.key(0, 0) }
    }

    @Test
    fun `rules of the format`() {
        fun refused(expected: String, data: ByteArray, numRows: Int = 100) {
            val error = assertThrows(BundleError.CorruptVocabulary::class.java, {
                Vocabulary.read(data, numRows)
            }, expected)
            assertTrue(expected in error.message!!, "${error.message}, not $expected")
        }
        fun group(numKeys: Int, vararg content: Int) = file(1, 99, 1, 0, numKeys, 254, *content)
        fun levels(numLevels: Int) = group(1, 8, *IntArray(numLevels - 1), 0b10000000, 0x93)

        assertEquals(0, Vocabulary.read(levels(64), 100).row(0, "a"))
        assertEquals(99, Vocabulary.read(levels(64), 100).row(0, "b"))
        refused("1 keys are left after 64 levels", levels(65))
        refused("5 keys are left after 64 levels", group(6, 8, 0b00001000, *IntArray(63), 0, 0))
        for (numBits in listOf(0, 33, 255)) refused("fingerprints of $numBits bits", group(1, numBits, 0b10000000, 0))
        refused("zero bits", group(1, 8, 0b10000001, 0))
        refused("zero bits", group(3, 8, 0b11110000, 0, 0, 0))
        refused("zero bits", group(3, 8, 0b01000000, 0b11100000, 0, 0, 0))
        refused("zero bits", group(1, 1, 0b10000000, 0b01000000))
        refused("zero bits", group(3, 31, 0b11100000, *IntArray(11), 0b00000001))
        refused("1 bytes follow", group(1, 8, 0b10000000, 0, 0))
        refused("2 keys from row 99", file(1, 0, 1, 99, 2, 254, 8, 0b11000000, 0, 0))
        refused("a subset of 2 things", file(1, 0, 2, 0, 1, 254, 1, 1, 254, 8, 0b11000000, 0, 0, 128, 0b11000000))
        for (other in listOf(0, 1, 6, 255)) {
            refused("fingerprints among other keys", file(1, 0, 2, 0, 1, 254, 1, 1, other, 8, 0b10000000, 0, 0, 0, 0))
            refused("fingerprints among other keys", file(1, 0, 2, 0, 1, other, 1, 1, 254, 0, 0, 8, 0b10000000, 0))
        }
        val two = VocabularyWriter(1).field(0, 2)
            .fingerprints(0, List(60) { "a$it" }, 8).fingerprints(0, List(60) { "b$it" }, 8)
        refused("more than 100 keys", two.bytes())
    }

    @Test
    fun `every cut is reported as a truncation`() {
        val keys = texts(Random(9), 300)
        val large = VocabularyWriter(2)
            .field(400, 2).fingerprints(2, keys.take(100), 9).fingerprints(110, keys.drop(100), 9)
            .field(400, 1).fingerprints(310, keys.take(90), 17).bytes()
        for (whole in listOf(small(), large)) {
            Vocabulary.read(whole, 400)
            for (size in whole.indices) {
                assertThrows(BundleError.TruncatedVocabulary::class.java, {
                    Vocabulary.read(whole.copyOf(size), 400)
                }, "$size bytes")
            }
        }
    }

    @Test
    fun `a count that the file cannot hold is refused before memory is taken`() {
        fun group() = VocabularyWriter(1).field(0, 1).varint(0).varint(1 shl 24).byte(254)
        for (writer in listOf(group(), group().byte(32), group().byte(32).byte(255))) {
            assertThrows(BundleError.TruncatedVocabulary::class.java) { Vocabulary.read(writer.bytes(), Int.MAX_VALUE) }
        }
    }

    @Test
    fun `no change of a byte ends in anything but rows of the program or a sentence`() {
        val keys = texts(Random(10), 40)
        val large = VocabularyWriter(1).field(9, 2)
            .fingerprints(10, keys.take(15), 7).fingerprints(30, keys.drop(15), 7)
        for (whole in listOf(small(), large.bytes())) {
            var numRefused = 0
            for (position in whole.indices) for (value in 0 until 256) {
                val data = whole.copyOf()
                data[position] = value.toByte()
                try {
                    val vocabulary = Vocabulary.read(data, 60)
                    for (field in 0 until vocabulary.numFields) {
                        for (key in keys) assertTrue(vocabulary.row(field, key) in 0..60)
                    }
                } catch (_: BundleError) {
                    numRefused++
                }
            }
            assertTrue(numRefused > 100 * whole.size, "$numRefused of ${256 * whole.size}")
        }
    }
}
