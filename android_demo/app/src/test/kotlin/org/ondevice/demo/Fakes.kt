package org.ondevice.demo

import org.ondevice.core.BundleStore
import org.ondevice.core.FakeRuntime
import org.ondevice.core.MemoryUse
import org.ondevice.core.TestShipped
import java.io.ByteArrayInputStream
import java.io.ByteArrayOutputStream
import java.io.File
import java.io.InputStream
import java.util.zip.ZipEntry
import java.util.zip.ZipOutputStream

/** Runs what is asked when the test says so, in order. */
class FakeWorker : Worker {
    private val waiting = ArrayDeque<() -> Unit>()

    override fun <T> run(work: () -> T, done: (Result<T>) -> Unit) {
        waiting.add { done(runCatching(work)) }
    }

    fun runOne() = waiting.removeFirst()()

    fun runAll() {
        while (waiting.isNotEmpty()) runOne()
    }
}

/** A zip of a bundle, as a file that the user picks. */
class FakeFile(private val name: String?, private val content: ByteArray) : PickedFile {
    override fun name() = name

    override fun open(): InputStream = ByteArrayInputStream(content)

    companion object {
        fun of(directory: File, name: String? = "model.zip"): FakeFile {
            val out = ByteArrayOutputStream()
            ZipOutputStream(out).use { zip ->
                directory.listFiles()!!.forEach {
                    zip.putNextEntry(ZipEntry(it.name))
                    zip.write(it.readBytes())
                }
            }
            return FakeFile(name, out.toByteArray())
        }
    }
}

/** The app's parts without Android: presenters over a fake runtime, in a folder. */
class App(
    root: File,
    shipped: Map<String, String> = mapOf("int8" to "old int8", "ours" to "old ours"),
    val runtime: FakeRuntime = FakeRuntime(),
) {
    val directory = File(root, "bundles")
    val worker = FakeWorker()

    /** What went to the log, with the kind of error. */
    val logged = ArrayList<String>()
    val log = Log { what, error -> logged.add("$what: ${error.javaClass.simpleName}") }
    val bundles = Bundles(BundleStore(directory, TestShipped(shipped)), runtime, log)
    val recommend = RecommendPresenter(bundles, worker, log)

    /** The present moment, in seconds. */
    var now = 1000.0
    val next = NextPresenter(bundles, worker, File(root, "taps"), log) { now }
    val compare = ComparePresenter(bundles, worker, { MemoryUse(1000, 2000) }, log) { recommend.refresh() }

    val ready get() = recommend.state as RecommendState.Ready
    val problem get() = (recommend.state as RecommendState.Unusable).problem
    val ranked get() = ready.answer as Answer.Ranked
    val outcome get() = (compare.state.work as CompareWork.Idle).outcome

    fun program(name: String) = File(directory, "$name/model.pte").readText()
}
