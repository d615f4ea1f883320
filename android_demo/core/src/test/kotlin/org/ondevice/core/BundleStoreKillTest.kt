package org.ondevice.core

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.File
import java.nio.file.Files
import java.nio.file.attribute.BasicFileAttributes

/** The process has ended; nothing that it would have done happens. */
class Ended : Error()

/**
 * Ends the process at its step number [last], half-way through where the step has halves.
 *
 * @property losesPower what was not synced is lost then: files are empty, names are those of the last sync.
 */
internal class EndingDisk(private val root: File, private val last: Int, private val losesPower: Boolean) : QuickDisk() {
    var numSteps = 0
        private set
    private val synced = HashSet<Any>()
    private val undo = ArrayList<() -> Unit>()

    private fun key(file: File): Any =
        Files.readAttributes(file.toPath(), BasicFileAttributes::class.java).fileKey()

    /** Runs [half] and ends where this step is the last; else runs [whole]. */
    fun step(half: () -> Unit = {}, whole: () -> Unit = {}) {
        if (numSteps > last) throw Ended()
        if (numSteps++ < last) return whole()
        half()
        if (losesPower) losePower()
        throw Ended()
    }

    private fun losePower() {
        undo.asReversed().forEach { it() }
        for (file in root.walk()) if (file.isFile && key(file) !in synced) file.writeBytes(ByteArray(0))
    }

    override fun makeDirectory(directory: File) = step { super.makeDirectory(directory) }

    override fun rename(from: File, to: File) {
        step {
            val replaced = if (to.isFile) to.readBytes() else null
            check(from.renameTo(to))
            undo.add {
                to.renameTo(from)
                if (replaced != null) to.writeBytes(replaced).also { synced.add(key(to)) }
            }
        }
        step { syncDirectory(to.parentFile) }
    }

    override fun syncDirectory(directory: File) {
        if (directory == root) undo.clear()
    }

    override fun deleteTree(directory: File) = step(
        half = { directory.listFiles().orEmpty().take(2).forEach { it.delete() } },
        whole = { super.deleteTree(directory) },
    )

    override fun write(file: File, text: String) = step(
        half = { file.writeText(text.take(text.length / 2)) },
        whole = {
            file.writeText(text)
            synced.add(key(file))
        },
    )

    override fun syncTree(directory: File) = step {
        directory.listFiles()!!.forEach { synced.add(key(it)) }
    }

    /** What is there when the process begins is on the storage. */
    fun begin() {
        for (file in root.walk()) if (file.isFile) synced.add(key(file))
    }
}

class BundleStoreKillTest {
    @TempDir
    lateinit var root: File

    private fun program() = File(root, "ours/model.pte").readText()

    private fun library(shipped: String?, disk: Disk = QuickDisk()): ModelLibrary {
        val bundles = if (shipped == null) ShippedBundles.NONE else TestShipped(mapOf("ours" to shipped))
        return ModelLibrary(BundleStore(root, bundles, Journal.NONE, disk), FakeRuntime())
    }

    private fun ModelLibrary.start() = open("ours").use { assertTrue(it.recommend(mapOf("user" to 7)).isNotEmpty()) }

    /**
     * Runs [act] from the state that [before] makes, ended at every step in turn, with and without a loss of power;
     * the next process must find one of the [expected] bundles, whole, and leave nothing behind.
     */
    private fun everyStep(
        expected: Set<String>,
        shipped: String?,
        before: () -> Unit,
        act: (ModelLibrary, EndingDisk) -> Unit,
    ): Int {
        var numSteps = 0
        for (losesPower in listOf(false, true)) {
            for (last in generateSequence(0) { it + 1 }) {
                root.listFiles()!!.forEach { it.deleteRecursively() }
                before()
                val disk = EndingDisk(root, last, losesPower).apply { begin() }
                val hasEnded = try {
                    act(library(shipped, disk), disk)
                    false
                } catch (_: Ended) {
                    true
                }
                val what = "ended at step $last, ${if (losesPower) "without power" else "killed"}: ${root.list()!!.toList()}"
                val again = library(shipped)
                again.prepare()
                again.start()
                assertTrue(program() in expected, "$what: ${program()}")
                assertEquals(setOf("ours", ".state-ours"), root.list()!!.toSet() + ".state-ours", what)
                val now = program()
                library(shipped).apply { prepare() }.start()
                assertEquals(now, program(), what)
                if (!hasEnded) break
                numSteps++
            }
        }
        return numSteps
    }

    /** Copies a bundle file by file, with the end between any two. */
    private fun EndingDisk.copy(target: File, program: String) {
        val source = Files.createTempDirectory("bundle").toFile()
        for (file in TestBundle.write(source, program).listFiles()!!.sorted()) {
            step(half = { File(target, file.name).writeBytes(file.readBytes().let { it.copyOf(it.size / 2) }) }) {
                file.copyTo(File(target, file.name))
            }
        }
        source.deleteRecursively()
    }

    private fun used(program: String, shipped: String?) {
        if (shipped == null) TestBundle.write(File(root, "ours"), program)
        library(shipped).apply { prepare() }.start()
        assertEquals(program, program())
    }

    @Test
    fun `when the app is first started`() {
        val numSteps = everyStep(setOf("v1"), "v1", {}) { library, _ ->
            library.prepare()
            library.start()
        }
        assertTrue(numSteps >= 16, "$numSteps steps")
    }

    @Test
    fun `when the app brings a new bundle`() {
        val numSteps = everyStep(setOf("v1", "v2"), "v2", { used("v1", "v1") }) { library, _ ->
            library.prepare()
            library.start()
        }
        assertTrue(numSteps >= 30, "$numSteps steps")
    }

    @Test
    fun `when a bundle is replaced and started`() {
        val numSteps = everyStep(setOf("old", "new"), null, { used("old", null) }) { library, disk ->
            library.prepare()
            library.install("ours") { disk.copy(it, "new") }
            assertEquals("new", program())
            library.store.start("ours") { disk.step() }
            library.start()
        }
        assertTrue(numSteps >= 40, "$numSteps steps")
    }

    @Test
    fun `when a bundle of the app's is mended`() {
        val damaged = { used("v1", "v1").also { File(root, "ours/vocabulary.bin").writeText("") } }
        everyStep(setOf("v1"), "v1", damaged) { library, _ ->
            library.prepare()
            library.start()
        }
    }

    @Test
    fun `when a bundle on trial is damaged`() {
        val damaged = {
            used("old", null)
            library(null).install("ours") { TestBundle.write(it, "new") }
            File(root, "ours/vocabulary.bin").writeText("")
        }
        everyStep(setOf("old"), null, damaged) { library, _ ->
            library.prepare()
            library.start()
        }
    }

    @Test
    fun `when a bundle is put back after a crash`() {
        val crashed = {
            used("old", null)
            library(null).install("ours") { TestBundle.write(it, "new") }
            val disk = EndingDisk(root, 2, losesPower = false)
            try {
                library(null, disk).store.start("ours") { disk.step().also { throw Ended() } }
            } catch (_: Ended) {
                // in the middle of the start
            }
            assertTrue("\"starting\":\"" in File(root, ".state-ours").readText())
        }
        everyStep(setOf("old"), null, crashed) { library, _ ->
            library.prepare()
            library.start()
        }
    }
}
