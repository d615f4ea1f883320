package org.ondevice.demo

import org.ondevice.core.BenchmarkPlan
import org.ondevice.core.Measurement
import org.ondevice.core.ModelBundle
import kotlin.random.Random

/**
 * What a computer asks to be measured.
 *
 * @property run the computer's name for it.
 * @property names of the bundles; null for all.
 * @property pauseMillis before each program, for the phone to cool and to end what the last one began.
 */
class BenchmarkRequest(val run: String, val names: List<String>?, val plan: BenchmarkPlan, val pauseMillis: Long = 1000) {
    /** Each bundle with each number of threads, in an order of chance: what warms the phone is nobody's misfortune. */
    fun steps(names: List<String>): List<Step> =
        names.flatMap { name -> plan.numThreads.map { Step(name, it) } }.shuffled(Random(run.hashCode()))

    companion object {
        /**
         * The request [run] in an intent's [texts] and [numbers].
         *
         * @throws IllegalArgumentException for what cannot be measured.
         */
        fun read(run: String, texts: (String) -> String?, numbers: (String, Int) -> Int): BenchmarkRequest {
            val default = BenchmarkPlan()
            fun list(name: String) = texts(name)?.split(',')?.map {
                it.trim().toIntOrNull() ?: throw IllegalArgumentException("$name: \"$it\" is no number")
            }
            val plan = BenchmarkPlan(
                list("candidates") ?: default.numCandidates,
                list("threads") ?: default.numThreads,
                numbers("warmups", default.numWarmups),
                numbers("calls", default.numCalls),
            )
            val names = texts("bundles")?.split(',')?.map { it.trim() }
            return BenchmarkRequest(run, names, plan, numbers("pause_ms", 1000).toLong())
        }
    }
}

/** A bundle with a number of threads: what is measured between two pauses. */
data class Step(val name: String, val numThreads: Int)

/**
 * How the phone is when something is measured; null where it does not tell.
 *
 * @property thermalStatus of PowerManager: 0 none, 1 light, 2 moderate: the processor is slowed down, up to 6.
 */
data class Conditions(
    val thermalStatus: Int?,
    val batteryPercent: Int?,
    val batteryCelsius: Double?,
    val isCharging: Boolean?,
    val isSavingPower: Boolean?,
) {
    fun toJson(): Map<String, Any?> = linkedMapOf(
        "thermal_status" to thermalStatus,
        "battery_percent" to batteryPercent,
        "battery_celsius" to batteryCelsius,
        "is_charging" to isCharging,
        "is_saving_power" to isSavingPower,
    )
}

/**
 * A measured step.
 *
 * @property place in the order in which all were measured, from 1.
 * @property attempts one more than the times that it was interrupted and begun again.
 */
class Measured(
    val step: Step,
    val bundle: ModelBundle,
    val measurement: Measurement,
    val place: Int,
    val attempts: Int,
    val before: Conditions,
    val after: Conditions,
) {
    fun toJson(): Map<String, Any?> = measurement.toJson() + linkedMapOf(
        "place" to place,
        "attempts" to attempts,
        "before" to before.toJson(),
        "after" to after.toJson(),
    )
}

/** What the benchmark's screen shows. */
sealed interface BenchmarkState {
    /** Nothing was asked, or the system ended the app since it was. */
    data object Idle : BenchmarkState

    data object Starting : BenchmarkState

    data class Measuring(val step: Step, val place: Int, val total: Int) : BenchmarkState

    /** Out of sight, so interrupted; it goes on when the screen is seen again. */
    data class Stopped(val step: Step, val place: Int, val total: Int) : BenchmarkState

    data object Done : BenchmarkState

    data class Failed(val problem: String) : BenchmarkState
}
