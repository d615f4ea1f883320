package org.ondevice.demo

import org.ondevice.core.Json
import org.ondevice.core.JsonError

/** What was measured of one bundle. */
data class Figures(
    val loadMicros: Double,
    val p50Micros: Double,
    val p95Micros: Double,
    val memoryBytes: Long?,
)

/**
 * One bundle.
 *
 * @property totalBytes of all its files, or null when it cannot be read; [titleBytes] of them are the catalog's.
 * @property figures null until they are measured.
 */
data class CompareColumn(
    val name: String,
    val totalBytes: Long? = null,
    val titleBytes: Long = 0,
    val figures: Figures? = null,
    val problem: String? = null,
)

/** How the last thing ended that the second screen was asked to do. */
sealed interface Outcome {
    data object Measured : Outcome

    data object Stopped : Outcome

    data class Replaced(val name: String) : Outcome

    data class Failed(val problem: String) : Outcome
}

/** What the second screen is doing. */
sealed interface CompareWork {
    data object Listing : CompareWork

    /** @property name the [place]-th of [total] bundles is being measured. */
    data class Measuring(val name: String, val place: Int, val total: Int, val isStopping: Boolean) : CompareWork

    data object Replacing : CompareWork

    /** @property outcome of what was done last; null at first. */
    data class Idle(val outcome: Outcome?) : CompareWork
}

/** What the second screen shows. */
data class CompareState(
    val columns: List<CompareColumn> = emptyList(),
    val work: CompareWork = CompareWork.Listing,
) {
    val isMeasured: Boolean get() = columns.any { it.figures != null }
}

/** Measured columns as a text that outlives the process. */
object SavedFigures {
    fun write(columns: List<CompareColumn>): String = Json.write(
        columns.mapNotNull { column ->
            val figures = column.figures ?: return@mapNotNull null
            val numbers = listOf(figures.loadMicros, figures.p50Micros, figures.p95Micros)
            column.name to listOf(column.totalBytes) + numbers + listOf(figures.memoryBytes)
        }.toMap(),
    )

    /** Bytes of the bundle that was measured, and its figures, by name. */
    fun read(text: String): Map<String, Pair<Long, Figures>> = try {
        (Json.parse(text) as Map<*, *>).entries.associate { (name, values) ->
            val numbers = (values as List<*>).map { it as Number? }
            val times = numbers.subList(1, 4).map { it!!.toDouble() }
            name as String to (numbers[0]!!.toLong() to Figures(times[0], times[1], times[2], numbers[4]?.toLong()))
        }
    } catch (_: JsonError) {
        emptyMap()
    }
}
