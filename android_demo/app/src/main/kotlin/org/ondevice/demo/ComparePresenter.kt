package org.ondevice.demo

import org.ondevice.core.Benchmark
import org.ondevice.core.BenchmarkPlan
import org.ondevice.core.BundleInfo
import org.ondevice.core.BundleStore
import org.ondevice.core.Cancellation
import org.ondevice.core.MemoryUse
import org.ondevice.core.ModelBundle
import java.io.InputStream
import java.util.concurrent.CancellationException

/** A file that the user picked. Asked on the worker's thread: whoever provides it may be slow, or gone. */
interface PickedFile {
    fun name(): String?

    fun open(): InputStream
}

/** @param onReplaced told, on the main thread, when another bundle was put to use. */
class ComparePresenter(
    private val bundles: Bundles,
    private val worker: Worker,
    private val memory: () -> MemoryUse,
    private val log: Log,
    private val onReplaced: () -> Unit,
) : Presenter<CompareState>(CompareState()) {
    private var isStarted = false
    private var stop = Cancellation()

    /** Lists the bundles, with the figures of [saved] where the process was ended since they were measured. */
    fun start(saved: String?) {
        if (isStarted) return
        isStarted = true
        val measured = saved?.let { SavedFigures.read(it) }.orEmpty()
        worker.run({ bundles.prepare(); list() }) { result ->
            val columns = result.getOrDefault(emptyList()).map { column ->
                val (bytes, figures) = measured[column.name] ?: return@map column
                if (column.totalBytes == bytes) column.copy(figures = figures) else column
            }
            // A file may have been picked meanwhile: the picker's answer comes before the list.
            val work = if (state.work is CompareWork.Listing) idle(null, result) else state.work
            state = CompareState(columns, work)
        }
    }

    fun save(): String = SavedFigures.write(state.columns)

    /** Done, as [outcome] says unless [result] failed. */
    private fun idle(outcome: Outcome?, result: Result<*>): CompareWork.Idle {
        val error = result.exceptionOrNull() ?: return CompareWork.Idle(outcome)
        return CompareWork.Idle(Outcome.Failed(log.explain("comparing models", error)))
    }

    fun measure() {
        if (state.work !is CompareWork.Idle || state.columns.isEmpty()) return
        stop = Cancellation()
        measureNext(state.columns.map { it.name }, 0)
    }

    /** Ends the measuring; the figures that are there by then stay. */
    fun stopMeasuring() {
        val work = state.work as? CompareWork.Measuring ?: return
        stop.cancel()
        state = state.copy(work = work.copy(isStopping = true))
    }

    private fun measureNext(names: List<String>, place: Int) {
        val name = names[place]
        val stop = stop
        state = state.copy(work = CompareWork.Measuring(name, place + 1, names.size, stop.isCancelled))
        worker.run({ measure(name, stop) }) { result ->
            val columns = state.columns.map { if (it.name == name) result.getOrDefault(it) else it }
            if (result.exceptionOrNull() is CancellationException) {
                state = CompareState(columns, CompareWork.Idle(Outcome.Stopped))
            } else if (result.isFailure || place + 1 == names.size) {
                state = CompareState(columns, idle(Outcome.Measured, result))
            } else {
                state = state.copy(columns = columns)
                measureNext(names, place + 1)
            }
        }
    }

    /** Replaces the bundle [name], or with null adds one, by the zip in [file]. */
    fun replace(name: String?, file: PickedFile) {
        if (state.work is CompareWork.Measuring || state.work is CompareWork.Replacing) return
        state = state.copy(work = CompareWork.Replacing)
        worker.run({ replaceNow(name, file) to list() }) { result ->
            val (replaced, listed) = result.getOrElse { null to null }
            val measured = state.columns.filter { it.name != replaced }.associateBy { it.name }
            state = CompareState(
                listed?.map { measured[it.name].orListed(it) } ?: state.columns,
                idle(replaced?.let { Outcome.Replaced(it) }, result),
            )
            if (replaced != null) onReplaced()
        }
    }

    private fun replaceNow(name: String?, file: PickedFile): String {
        val target = name ?: newName(file.name().orEmpty())
        file.open().use { bundles.replace(target, it) }
        return target
    }

    /** A name for a new bundle, from that of its file, that no other has. */
    private fun newName(fileName: String): String {
        val name = fileName.removeSuffix(".zip").replace(Regex("[^A-Za-z0-9_-]"), "-").take(MAX_NAME).trim('-')
        val first = if (BundleStore.isName(name)) name else "picked"
        val taken = bundles.store.names()
        return if (first !in taken) first else generateSequence(2) { it + 1 }.map { "$first-$it" }.first { it !in taken }
    }

    private fun list(): List<CompareColumn> {
        val present = bundles.store.names().map { name ->
            try {
                column(name, bundles.store.info(name))
            } catch (error: Throwable) { // too little memory is an Error
                CompareColumn(name, problem = log.explain("opening $name", error))
            }
        }
        val absent = bundles.problems.filterKeys { name -> present.none { it.name == name } }
        return present + absent.map { (name, problem) -> CompareColumn(name, problem = problem) }
    }

    private fun column(name: String, info: BundleInfo) = CompareColumn(name, info.totalBytes, info.catalogBytes)

    /** This column, where its figures are of the bundle that is [listed]. */
    private fun CompareColumn?.orListed(listed: CompareColumn): CompareColumn =
        this?.takeIf { listed.problem == null && it.totalBytes == listed.totalBytes } ?: listed

    private fun measure(name: String, stop: Cancellation): CompareColumn = try {
        val bundle = bundles.store.open(name)
        column(name, bundle.info).copy(figures = figures(bundle, stop))
    } catch (error: CancellationException) {
        throw error
    } catch (error: Throwable) {
        CompareColumn(name, problem = bundles.problems[name] ?: log.explain("measuring $name", error))
    }

    private fun figures(bundle: ModelBundle, stop: Cancellation): Figures {
        bundles.close() // or the memory of what is measured would be there before
        val measurement = Benchmark(bundles.runtime, memory).run(bundle, PLAN, stop).single()
        val latency = measurement.latencies.getValue(NUM_CANDIDATES)
        val before = measurement.before.pssBytes
        val after = measurement.after.pssBytes
        val memoryBytes = if (before == null || after == null) null else maxOf(0, after - before)
        return Figures(measurement.loadNanos / 1e3, latency.p50Micros, latency.p95Micros, memoryBytes)
    }

    companion object {
        const val NUM_CANDIDATES = 100
        private const val MAX_NAME = 40
        val PLAN = BenchmarkPlan(listOf(NUM_CANDIDATES), listOf(1), numWarmups = 20, numCalls = 200)
    }
}
