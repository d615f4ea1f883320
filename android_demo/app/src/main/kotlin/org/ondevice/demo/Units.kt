package org.ondevice.demo

import android.content.Context

/** A figure in the unit that suits it, with three digits or all that stand before the point. */
object Units {
    /** The figure and the unit's text. */
    fun ofMicros(micros: Double): Pair<Double, Int> = when {
        micros < 999.5 -> micros to R.string.microseconds
        micros < 999.5e3 -> micros / 1e3 to R.string.milliseconds
        else -> micros / 1e6 to R.string.seconds
    }

    fun ofBytes(bytes: Long): Pair<Double, Int> =
        if (bytes < 999_950) bytes / 1e3 to R.string.kilobytes else bytes / 1e6 to R.string.megabytes

    fun digits(value: Double): String = when {
        value < 9.995 -> "%.2f"
        value < 99.95 -> "%.1f"
        else -> "%,.0f"
    }.format(value)

    fun time(context: Context, micros: Double): String = text(context, ofMicros(micros))

    fun bytes(context: Context, bytes: Long): String = text(context, ofBytes(bytes))

    private fun text(context: Context, figure: Pair<Double, Int>) =
        context.getString(figure.second, digits(figure.first))
}
