package org.ondevice.core

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Test

class JsonTest {
    @Test
    fun `values`() {
        val text = """ {"a": [1, -2.5, 1e3, true, false, null], "b": {"c": "x\"\\\/\n\t\u00e9\ud83d\ude00"}, "d": [], "e": {}} """
        val expected = mapOf(
            "a" to listOf(1L, -2.5, 1000.0, true, false, null),
            "b" to mapOf("c" to "x\"\\/\n\té😀"),
            "d" to emptyList<Any>(),
            "e" to emptyMap<String, Any>(),
        )
        assertEquals(expected, Json.parse(text))
        assertEquals(expected, Json.parse(Json.write(expected)))
        assertEquals(12345678901234567890.0, Json.parse("12345678901234567890"))
    }

    @Test
    fun `what is not JSON is refused`() {
        val wrong = listOf(
            "", " ", "{", "[1,", "[1 2]", "{\"a\" 1}", "{a: 1}", "{\"a\":1,}", "[,]", "01", "+1", ".5", "1.", "1e", "NaN", "Infinity",
            "truth", "\"", "\"\\x\"", "\"\\u12g4\"", "\"\\u12", "\"\n\"", "1 1", "{\"a\":1,\"a\":2}", "[".repeat(65) + "]".repeat(65),
        )
        for (text in wrong) assertThrows(JsonError::class.java, { Json.parse(text) }, text)
    }

    @Test
    fun `the writer refuses what JSON cannot hold`() {
        assertThrows(IllegalArgumentException::class.java) { Json.write(Double.NaN) }
        assertThrows(IllegalArgumentException::class.java) { Json.write(listOf(Any())) }
        assertEquals("\"\\u0001\\n\"", Json.write("\u0001\n"))
    }
}
