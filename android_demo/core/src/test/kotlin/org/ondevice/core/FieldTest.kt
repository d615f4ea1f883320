package org.ondevice.core

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Test

class FieldTest {
    private val integer = Field("n", isContext = true, isInteger = true)
    private val text = Field("t", isContext = true, isInteger = false)

    @Test
    fun `integers have one text`() {
        val same = listOf<Any>(25L, 25, 25.0, 25f, "25", " 25 ", "25.", "25.00", "+25", "025")
        assertEquals(same.map { "25" }, same.map { integer.canonicalText(it) })
        assertEquals("-7", integer.canonicalText("-7"))
        assertEquals("0", integer.canonicalText(-0.0))
        assertEquals("1", integer.canonicalText(true))
        assertEquals("9223372036854775807", integer.canonicalText("9223372036854775807"))
    }

    @Test
    fun `what is no integer is unknown`() {
        val none = listOf(null, "", "x", "2.5", 2.5, Double.NaN, Double.POSITIVE_INFINITY, 1e19, "1e3", "9223372036854775808", emptyList<Any>())
        assertEquals(none.map { null }, none.map { integer.canonicalText(it) })
    }

    @Test
    fun `texts keep every character`() {
        assertEquals(listOf("02138", " a ", "é", null, null), listOf("02138", " a ", "é", "", null).map { text.canonicalText(it) })
        assertEquals(listOf("25", "25", "True"), listOf(25L, 25.0, true).map { text.canonicalText(it) })
    }

    /** The right column is what Python's repr prints. */
    @Test
    fun `fractions are written as Python writes them`() {
        val texts = mapOf(
            2.5 to "2.5", -0.1 to "-0.1", 0.0001 to "0.0001", 0.00001 to "1e-05", -1.25e-7 to "-1.25e-07", 1e-100 to "1e-100",
            0.1 + 0.2 to "0.30000000000000004", 2e-3 to "0.002", 123456.789 to "123456.789", 5e-324 to "5e-324",
        )
        for ((value, expected) in texts) assertEquals(expected, text.canonicalText(value))
        assertEquals(null, text.canonicalText(Double.NaN))
        assertEquals("100000000000000000000", text.canonicalText(1e20))
    }

    /** floor(ln(v)^2): ln(3)^2 = 1.2, ln(8)^2 = 4.3, ln(1000)^2 = 47.7. */
    @Test
    fun `log buckets`() {
        val bucket = Field("b", isContext = true, isInteger = true, transform = "log_bucket", origin = 0.0)
        val values = listOf<Any?>(3, 8, "1000", 2, 2.0, 0, -5, "1e3", " 8 ", "x", null, Double.NaN)
        assertEquals(
            listOf("1", "4", "47", "1", "1", "1", "1", "47", "4", null, null, null),
            values.map { bucket.canonicalText(it) },
        )
        val shifted = Field("b", isContext = true, isInteger = true, transform = "log_bucket", origin = 1000.0)
        assertEquals(listOf("1", "47", "1"), listOf(999, 2000, 1002).map { shifted.canonicalText(it) })
    }

    /** ln(3)^2 = 1.2, ln(5)^2 = 2.6, ln(1000)^2 = 47.7; 2 and below stay as they are. */
    @Test
    fun `logarithms of integers`() {
        val field = Field("i", isContext = true, isInteger = true, transform = "log_integer", missing = -100)
        val values = listOf<Any?>(3, 5, "1000", 2, 1L, 0, "-3", null, "", "x", "2.5")
        assertEquals(
            listOf("1", "2", "47", "2", "1", "0", "-3", "-100", "-100", null, null),
            values.map { field.canonicalText(it) },
        )
    }

    @Test
    fun `hexadecimal texts`() {
        val field = Field("h", isContext = true, isInteger = true, transform = "hex", missing = -1)
        val values = listOf<Any?>("68fd1e64", "FFFFFFFF", "0000000a", "a", null, "", "?", "-1", " a", 10, "1".repeat(16))
        assertEquals(
            listOf("1761418852", "4294967295", "10", "10", "-1", "-1", null, null, null, null, null),
            values.map { field.canonicalText(it) },
        )
    }

    @Test
    fun `a missing value may have a key of its own`() {
        val field = Field("n", isContext = true, isInteger = true, missing = -7)
        assertEquals(listOf("-7", "-7", "5", null), listOf(null, "", "5", "x").map { field.canonicalText(it) })
    }

    @Test
    fun `several values are a list or a text with separators`() {
        val tags = Field("t", isContext = true, isInteger = false, slots = 3, separator = "|")
        val codes = Field("c", isContext = true, isInteger = true, slots = 2)
        val same = listOf<Any>(listOf("a", "b"), arrayOf("a", null, "b", "a"), "a|b", " a ||b", setOf("a", "b"))
        assertEquals(same.map { listOf("a", "b", null) }, same.map { tags.canonicalTexts(it) })
        assertEquals(listOf("a", "b", "c"), tags.canonicalTexts("a|b|c|d"))
        assertEquals(listOf(null, null, null), tags.canonicalTexts(null))
        assertEquals(listOf("a|b", null, null), tags.canonicalTexts(listOf("a|b")))
        assertEquals(listOf("3", "1"), codes.canonicalTexts(listOf(3.0, "x", 1, 2)))
        assertEquals(listOf("7", null), codes.canonicalTexts(7))
        assertEquals(listOf(true, false, false), listOf(listOf(1, "x"), listOf(1, null), "?").map { codes.isForeign(it) })
        assertEquals("a|b", tags.joined(listOf("a", null, "b")))
    }

    /** Boundaries are the smallest numbers of their buckets. */
    @Test
    fun `numbers are buckets`() {
        val field = Field("n", isContext = true, isInteger = true, boundaries = doubleArrayOf(1.5, 3.0))
        val values = listOf<Any?>(-1e9, 1.49, 1.5, "2", 3L, 1e300, null, "", "x", Double.NaN, Double.POSITIVE_INFINITY)
        assertEquals(
            listOf("0", "0", "1", "1", "2", "2", null, null, null, null, null),
            values.map { field.canonicalText(it) },
        )
        assertEquals(listOf(true, false), listOf("long ago", "?").map { field.isForeign(it) })
    }
}
