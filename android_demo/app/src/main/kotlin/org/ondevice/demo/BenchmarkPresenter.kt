package org.ondevice.demo

import org.ondevice.core.Benchmark
import org.ondevice.core.BenchmarkPlan
import org.ondevice.core.BundleManifest
import org.ondevice.core.Cancellation
import org.ondevice.core.Json
import org.ondevice.core.MemoryUse
import java.io.File
import java.io.IOException
import java.util.concurrent.CancellationException

/** What the phone tells of itself. */
interface PhoneFacts {
    fun device(): Map<String, Any?>

    fun memory(): MemoryUse

    fun conditions(): Conditions
}

/**
 * Measures bundles for a computer that waits for `latency.json` in [folder]; until it is there, `benchmark.json` says
 * how far the measuring is. What is measured while the screen is out of sight does not count: a phone then slows an
 * app down, or freezes it. It is measured again when the screen is seen again.
 */
class BenchmarkPresenter(
    private val bundles: Bundles,
    private val worker: Worker,
    private val facts: PhoneFacts,
    private val folder: File,
    private val log: Log,
    private val pause: (Long) -> Unit = { Thread.sleep(it) },
) : Presenter<BenchmarkState>(BenchmarkState.Idle) {
    private var request: BenchmarkRequest? = null
    private var stop = Cancellation()
    private var waiting: List<Step> = emptyList()
    private var total = 0
    private val measured = ArrayList<Measured>()
    private val errors = LinkedHashMap<String, String>()

    /** Why the screen is out of sight; null while it is seen. */
    private var unseen: String? = "it was never shown"
    private var isMeasuring = false

    /** One more than the times that the first of [waiting] was interrupted. */
    private var attempts = 1

    private val output = File(folder, OUTPUT)
    private val progress = File(folder, PROGRESS)

    /** Begins what [read] asks under the name [run], whatever was being measured. */
    fun start(run: String, read: () -> BenchmarkRequest) {
        stop.cancel()
        listOf(output, progress).forEach { it.delete() }
        measured.clear()
        errors.clear()
        waiting = emptyList()
        isMeasuring = false
        attempts = 1
        state = BenchmarkState.Starting
        val asked = try {
            read()
        } catch (error: IllegalArgumentException) {
            log.error("reading what to measure", error)
            finish(mapOf("run" to run, "errors" to mapOf("" to "The benchmark was asked what it cannot do: ${error.message}")))
            return
        }
        request = asked
        worker.run({ bundles.prepare(); asked.names ?: bundles.store.names() }) { result ->
            if (request !== asked) return@run
            result.onFailure {
                finish(mapOf("run" to run, "errors" to mapOf("" to log.explain("preparing the benchmark", it))))
            }.onSuccess { names ->
                errors.putAll(bundles.problems)
                waiting = asked.steps(names)
                total = waiting.size
                next()
            }
        }
    }

    /** The screen can be seen. */
    fun seen() {
        unseen = null
        if (state is BenchmarkState.Stopped && !isMeasuring) next()
    }

    /** The screen cannot be seen any more, as [why] says. */
    fun unseen(why: String) {
        unseen = why
        stop.cancel()
        val step = waiting.firstOrNull() ?: return
        if (state is BenchmarkState.Measuring) attempts++
        stopAt(step, why)
    }

    private val place get() = total - waiting.size + 1

    private fun stopAt(step: Step, why: String) {
        state = BenchmarkState.Stopped(step, place, total)
        write("stopped", step, why)
    }

    private fun next() {
        val asked = request ?: return
        val step = waiting.firstOrNull()
        if (step == null) {
            finish(report(asked))
            return
        }
        unseen?.let {
            stopAt(step, it)
            return
        }
        val stop = Cancellation().also { stop = it }
        state = BenchmarkState.Measuring(step, place, total)
        write("measuring", step, null)
        isMeasuring = true
        val at = place
        val attempt = attempts
        worker.run({ measure(asked, step, at, attempt, stop) }) { result ->
            if (request !== asked) return@run
            isMeasuring = false
            result.onSuccess { done(it) }.onFailure { failed(step, it) }
            next()
        }
    }

    private fun done(result: Measured) {
        measured.add(result)
        waiting = waiting.drop(1)
        attempts = 1
    }

    /** Of a bundle that failed nothing more is measured; one that was interrupted is measured again. */
    private fun failed(step: Step, error: Throwable) {
        if (error is CancellationException && attempts <= MAX_ATTEMPTS) return
        errors[step.name] =
            if (error is CancellationException) INTERRUPTED else log.explain("measuring ${step.name}", error)
        total -= waiting.count { it.name == step.name } - 1
        waiting = waiting.filter { it.name != step.name }
        attempts = 1
    }

    private fun measure(asked: BenchmarkRequest, step: Step, place: Int, attempt: Int, stop: Cancellation): Measured {
        val bundle = bundles.store.open(step.name)
        bundles.close() // programs that are loaded at a time must have one number of threads
        pause(asked.pauseMillis)
        stop.throwIfCancelled()
        val before = facts.conditions()
        val plan = BenchmarkPlan(asked.plan.numCandidates, listOf(step.numThreads), asked.plan.numWarmups, asked.plan.numCalls)
        val measurement = Benchmark(bundles.runtime, facts::memory).run(bundle, plan, stop).single()
        stop.throwIfCancelled()
        return Measured(step, bundle, measurement, place, attempt, before, facts.conditions())
    }

    private fun report(asked: BenchmarkRequest): Map<String, Any?> = linkedMapOf(
        "format" to FORMAT,
        "format_version" to FORMAT_VERSION,
        "run" to asked.run,
        "device" to facts.device(),
        "warmups" to asked.plan.numWarmups,
        "pause_ms" to asked.pauseMillis,
        "bundles" to measured.filter { it.step.name !in errors }.groupBy { it.step.name }.mapValues { (_, steps) ->
            val bundle = steps.first().bundle
            linkedMapOf(
                "bytes" to bundle.info.fileBytes + ("bundle" to bundle.info.totalBytes),
                "model_sha256" to bundle.manifest.files.first { it.name == BundleManifest.PROGRAM }.sha256,
                "measurements" to asked.plan.numThreads.map { threads ->
                    steps.single { it.step.numThreads == threads }.toJson()
                },
            )
        },
        "errors" to errors,
    )

    private fun finish(report: Map<String, Any?>) {
        request = null
        waiting = emptyList()
        state = try {
            writeWhole(output, report)
            BenchmarkState.Done
        } catch (error: IOException) {
            BenchmarkState.Failed(log.explain("writing $output", error))
        }
    }

    private fun write(what: String, step: Step, why: String?) = try {
        val entries = linkedMapOf(
            "run" to request?.run, "state" to what, "bundle" to step.name, "num_threads" to step.numThreads,
            "place" to place, "total" to total, "why" to why,
        )
        writeWhole(progress, entries)
    } catch (error: IOException) {
        log.error("writing $progress", error)
    }

    /** A reader sees no file or all of it. */
    private fun writeWhole(file: File, content: Map<String, Any?>) {
        val part = File(folder, file.name + ".part")
        part.writeText(Json.write(content))
        if (!part.renameTo(file)) throw IOException("$file cannot be written")
    }

    companion object {
        const val OUTPUT = "latency.json"
        const val PROGRESS = "benchmark.json"
        const val FORMAT = "ondevice-latency"
        const val FORMAT_VERSION = 2
        const val MAX_ATTEMPTS = 5
        const val INTERRUPTED = "The screen was out of sight $MAX_ATTEMPTS times while it was measured. " +
            "Leave the phone alone until it is done."
    }
}
