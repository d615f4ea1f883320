package org.ondevice.demo

import android.content.Context

/** Figures in the unit that suits them, with three digits or all that stand before the point. */
object Units {
    /** The figure and the unit's text. */
    fun ofMicros(micros: Double): Pair<Double, Int> = when {
        micros < 999.5 -> micros to R.string.microseconds
        micros < 999.5e3 -> micros / 1e3 to R.string.milliseconds
        else -> micros / 1e6 to R.string.seconds
    }

    fun ofBytes(bytes: Long): Pair<Double, Int> =
        if (bytes < 999_500) bytes / 1e3 to R.string.kilobytes else bytes / 1e6 to R.string.megabytes

    /** The pattern that writes [value]. */
    fun digits(value: Double): String = when {
        value < 9.995 -> "%.2f"
        value < 99.95 -> "%.1f"
        else -> "%,.0f"
    }

    fun time(context: Context, micros: Double): String = text(context, ofMicros(micros))

    fun bytes(context: Context, bytes: Long): String = text(context, ofBytes(bytes))

    private fun text(context: Context, figure: Pair<Double, Int>) =
        context.getString(figure.second, format(context, digits(figure.first), figure.first))

    /** In the digits of the screen's language, as Android formats its texts. */
    fun format(context: Context, pattern: String, value: Number): String =
        pattern.format(context.resources.configuration.locales[0], value)
}
