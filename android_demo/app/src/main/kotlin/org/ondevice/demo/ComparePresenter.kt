package org.ondevice.demo

import org.ondevice.core.Benchmark
import org.ondevice.core.BenchmarkPlan
import org.ondevice.core.BundleError
import org.ondevice.core.BundleStore
import org.ondevice.core.Json
import org.ondevice.core.JsonError
import org.ondevice.core.MemoryUse
import org.ondevice.core.ModelBundle
import java.io.InputStream

/** One bundle's column; figures are null until they are measured. */
data class CompareColumn(
    val name: String,
    val totalBytes: Long? = null,
    val loadMillis: Double? = null,
    val p50Millis: Double? = null,
    val p95Millis: Double? = null,
    val memoryBytes: Long? = null,
    val problem: String? = null,
)

enum class CompareWork { NONE, LISTING, MEASURING, REPLACING }

/** A file that the user picked. Asked on the worker's thread: whoever provides it may be slow, or gone. */
interface PickedFile {
    fun name(): String?

    fun open(): InputStream
}

/** @property replaced the bundle that was replaced last, until something else is done. */
data class CompareState(
    val columns: List<CompareColumn> = emptyList(),
    val work: CompareWork = CompareWork.LISTING,
    val replaced: String? = null,
    val problem: String? = null,
) {
    val isMeasured: Boolean get() = columns.any { it.p50Millis != null }
}

class ComparePresenter(
    private val bundles: Bundles,
    private val worker: Worker,
    private val memory: () -> MemoryUse,
) : Presenter<CompareState>(CompareState()) {
    private var isStarted = false

    /** Lists the bundles, with the figures of [saved] where the process was ended since they were measured. */
    fun start(saved: String?) {
        if (isStarted) return
        isStarted = true
        val measured = saved?.let { CompareFigures.read(it) }.orEmpty()
        worker.run({ bundles.prepare(); list() }) { result ->
            state = state.copy(
                columns = result.getOrDefault(emptyList()).map { measured[it.name].orListed(it) },
                // A file may have been picked meanwhile: the picker's answer comes before the list.
                work = if (state.work == CompareWork.LISTING) CompareWork.NONE else state.work,
                problem = result.exceptionOrNull()?.let { BundleError.explain(it) },
            )
        }
    }

    fun save(): String = CompareFigures.write(state.columns)

    fun measure() {
        if (state.work != CompareWork.NONE) return
        state = state.copy(work = CompareWork.MEASURING, replaced = null, problem = null)
        worker.run({ bundles.close(); list().map { measure(it) } }) { result ->
            state = state.copy(
                columns = result.getOrDefault(state.columns),
                work = CompareWork.NONE,
                problem = result.exceptionOrNull()?.let { BundleError.explain(it) },
            )
        }
    }

    /** Replaces the bundle [name], or with null adds one, by the zip in [file]. */
    fun replace(name: String?, file: PickedFile) {
        if (state.work == CompareWork.MEASURING || state.work == CompareWork.REPLACING) return
        state = state.copy(work = CompareWork.REPLACING, replaced = null, problem = null)
        worker.run({ replaceNow(name, file) to list() }) { result ->
            val replaced = result.getOrNull()?.first
            val measured = state.columns.filter { it.name != replaced }.associateBy { it.name }
            state = state.copy(
                columns = result.getOrNull()?.second?.map { measured[it.name].orListed(it) } ?: state.columns,
                work = CompareWork.NONE,
                replaced = replaced,
                problem = result.exceptionOrNull()?.let { BundleError.explain(it) },
            )
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
                CompareColumn(name, bundles.store.info(name).totalBytes)
            } catch (error: Throwable) { // too little memory is an Error
                CompareColumn(name, problem = BundleError.explain(error))
            }
        }
        val absent = bundles.problems.filterKeys { name -> present.none { it.name == name } }
        return present + absent.map { (name, problem) -> CompareColumn(name, problem = problem) }
    }

    /** This column's figures, where they are of the bundle that is [listed]. */
    private fun CompareColumn?.orListed(listed: CompareColumn): CompareColumn =
        this?.takeIf { listed.problem == null && it.totalBytes == listed.totalBytes } ?: listed

    private fun measure(column: CompareColumn): CompareColumn {
        if (column.problem != null) return column
        return try {
            figures(column, bundles.store.open(column.name))
        } catch (error: Throwable) {
            column.copy(problem = BundleError.explain(error))
        }
    }

    private fun figures(column: CompareColumn, bundle: ModelBundle): CompareColumn {
        val measurement = Benchmark(bundles.runtime, memory).run(bundle, PLAN).single()
        val latency = measurement.latencies.getValue(NUM_CANDIDATES)
        val before = measurement.before.pssBytes
        val after = measurement.after.pssBytes
        return column.copy(
            loadMillis = measurement.loadNanos / 1e6,
            p50Millis = latency.p50Micros / 1e3,
            p95Millis = latency.p95Micros / 1e3,
            memoryBytes = if (before == null || after == null) null else maxOf(0, after - before),
        )
    }

    companion object {
        const val NUM_CANDIDATES = 100
        private const val MAX_NAME = 40
        val PLAN = BenchmarkPlan(listOf(NUM_CANDIDATES), listOf(1), numWarmups = 20, numCalls = 200)
    }
}

/** Measured columns as a text that outlives the process. */
object CompareFigures {
    fun write(columns: List<CompareColumn>): String = Json.write(
        columns.filter { it.p50Millis != null }.associate {
            it.name to listOf(it.totalBytes, it.loadMillis, it.p50Millis, it.p95Millis, it.memoryBytes)
        },
    )

    fun read(text: String): Map<String, CompareColumn> = try {
        (Json.parse(text) as Map<*, *>).entries.associate { (name, values) ->
            val numbers = (values as List<*>).map { it as Number? }
            name as String to CompareColumn(
                name,
                numbers[0]?.toLong(),
                numbers[1]?.toDouble(),
                numbers[2]?.toDouble(),
                numbers[3]?.toDouble(),
                numbers[4]?.toLong(),
            )
        }
    } catch (_: JsonError) {
        emptyMap()
    }
}
