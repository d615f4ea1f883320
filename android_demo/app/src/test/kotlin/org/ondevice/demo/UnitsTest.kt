package org.ondevice.demo

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Test
import java.util.Locale

class UnitsTest {
    private fun text(figure: Pair<Double, Int>): String {
        val unit = when (figure.second) {
            R.string.microseconds -> "µs"
            R.string.milliseconds -> "ms"
            R.string.seconds -> "s"
            R.string.kilobytes -> "kB"
            else -> "MB"
        }
        return Units.digits(figure.first).format(Locale.ROOT, figure.first) + " " + unit
    }

    @Test
    fun `times have three digits in their unit`() {
        val expected = mapOf(
            0.5 to "0.50 µs", 9.994 to "9.99 µs", 9.996 to "10.0 µs", 93.86 to "93.9 µs", 99.96 to "100 µs",
            999.4 to "999 µs", 999.6 to "1.00 ms", 2143.0 to "2.14 ms", 999_600.0 to "1.00 s",
        )
        assertEquals(expected, expected.mapValues { text(Units.ofMicros(it.key)) })
    }

    @Test
    fun `sizes have three digits or all before the point`() {
        val expected = mapOf(450L to "0.45 kB", 64_000L to "64.0 kB", 999_499L to "999 kB", 999_500L to "1.00 MB", 1_989_900L to "1.99 MB")
        assertEquals(expected, expected.mapValues { text(Units.ofBytes(it.key)) })
    }
}
