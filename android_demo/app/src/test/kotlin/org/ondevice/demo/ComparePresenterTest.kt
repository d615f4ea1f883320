package org.ondevice.demo

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNotNull
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import org.ondevice.core.TestBundle
import java.io.File
import java.io.IOException
import java.io.InputStream

class ComparePresenterTest {
    @TempDir
    lateinit var root: File

    private fun started(app: App = App(root), saved: String? = null): App {
        app.compare.start(saved)
        app.worker.runAll()
        return app
    }

    private fun picked(program: String = "new", name: String? = "model.zip", change: (MutableMap<String, Any?>) -> Unit = {}) =
        FakeFile.of(TestBundle.write(File(root, "picked").apply { deleteRecursively() }, program, change = change), name)

    private fun App.replace(name: String?, file: PickedFile) {
        compare.replace(name, file)
        worker.runAll()
    }

    private fun App.column(name: String) = compare.state.columns.single { it.name == name }

    @Test
    fun `bundles are listed with their bytes, and measured when asked`() {
        val app = started()
        assertEquals(listOf("int8", "ours"), app.compare.state.columns.map { it.name })
        assertTrue(app.compare.state.columns.all { it.totalBytes!! > 0 && it.figures == null })
        app.compare.measure()
        assertEquals(CompareWork.Measuring("int8", 1, 2, isStopping = false), app.compare.state.work)
        app.compare.measure()
        app.worker.runOne()
        assertEquals(CompareWork.Measuring("ours", 2, 2, isStopping = false), app.compare.state.work)
        assertNotNull(app.column("int8").figures)
        app.worker.runAll()
        assertEquals(Outcome.Measured, app.outcome)
        for (column in app.compare.state.columns) {
            val figures = column.figures!!
            assertTrue(figures.p50Micros <= figures.p95Micros)
            assertTrue(figures.loadMicros > 0)
            assertEquals(0L, figures.memoryBytes)
        }
        assertEquals(0, app.runtime.numOpen)
    }

    @Test
    fun `titles are told apart from the model`() {
        val column = started().column("ours")
        assertEquals(File(root, "bundles/ours/${TestBundle.CATALOG}").length(), column.titleBytes)
        assertTrue(column.totalBytes!! > column.titleBytes)
    }

    @Test
    fun `measuring is stopped at the next call, and what was measured stays`() {
        val app = started()
        app.compare.measure()
        app.worker.runOne()
        app.compare.stopMeasuring()
        assertEquals(CompareWork.Measuring("ours", 2, 2, isStopping = true), app.compare.state.work)
        app.worker.runAll()
        assertEquals(Outcome.Stopped, app.outcome)
        assertNotNull(app.column("int8").figures)
        assertNull(app.column("ours").figures)
        assertEquals(0, app.runtime.numOpen)
        assertEquals(emptyList<String>(), app.logged)
        app.compare.measure()
        app.worker.runAll()
        assertNotNull(app.column("ours").figures)
    }

    @Test
    fun `the other screen ranks while a bundle is measured`() {
        val app = started()
        app.recommend.start(null)
        app.worker.runAll()
        app.compare.measure()
        app.recommend.recommend()
        app.worker.runAll()
        assertEquals(6, app.ranked.films.size)
        assertEquals(Outcome.Measured, app.outcome)
    }

    @Test
    fun `figures outlive the process, but not a bundle that changed`() {
        val app = started()
        app.compare.measure()
        app.worker.runAll()
        val again = started(App(root), app.compare.save())
        assertEquals(app.compare.state.columns, again.compare.state.columns)
        again.replace("ours", picked("a longer program"))
        val last = started(App(root), app.compare.save())
        assertEquals(app.column("int8"), last.column("int8"))
        assertNull(last.column("ours").figures)
        assertNull(started(App(root), "no figures").column("ours").figures)
    }

    @Test
    fun `a picked bundle replaces, and the figures of the others stay`() {
        val app = started()
        app.compare.measure()
        app.worker.runAll()
        app.replace("ours", picked())
        assertEquals(Outcome.Replaced("ours"), app.outcome)
        assertEquals("new", app.program("ours"))
        assertNull(app.column("ours").figures)
        assertNotNull(app.column("int8").figures)
    }

    @Test
    fun `the old bundle is there until the new one has answered`() {
        val app = started()
        val programs = ArrayList<String>()
        val watched = object : PickedFile {
            override fun name(): String? = null
            override fun open(): InputStream = picked().open().also { programs.add(app.program("ours")) }
        }
        app.runtime.offset = 0.5f
        app.replace("ours", watched)
        programs.add(app.program("ours"))
        assertEquals(listOf("old ours", "old ours"), programs)
        assertTrue("does not answer its own test cases" in (app.outcome as Outcome.Failed).problem)
        app.runtime.offset = 0f
        app.replace("ours", watched)
        assertEquals("new", app.program("ours"))
        assertEquals(Outcome.Replaced("ours"), app.outcome)
    }

    @Test
    fun `every refusal has its sentence, and leaves the old bundle`() {
        val app = started()
        fun refused(expected: String, file: PickedFile) {
            app.replace("ours", file)
            val problem = (app.outcome as Outcome.Failed).problem
            assertTrue(expected in problem, problem)
            assertEquals("old ours", app.program("ours"))
            assertTrue(app.logged.last().startsWith("comparing models: "), app.logged.toString())
            assertEquals(2, app.compare.state.columns.size)
        }
        fun failing(error: Exception) = object : PickedFile {
            override fun name(): String? = null
            override fun open(): InputStream = throw error
        }
        refused("This file is not a bundle: it has no manifest.json.", FakeFile("x", "no zip".toByteArray()))
        refused("format version 4; this app reads up to 3. Update the app.", picked { it["format_version"] = 4 })
        refused("has no operators a::b, c::d.", picked { it["ops"] = listOf("c::d", "a::b") })
        refused("The phone's storage is full.", failing(IOException("write failed: ENOSPC (No space left on device)")))
        refused("This app may not read the file any more. Pick it again.", failing(SecurityException("denied")))
        app.runtime.failure = OutOfMemoryError()
        refused("There is not enough free memory for this bundle.", picked())
        app.runtime.failure = null
        val damaged = TestBundle.write(File(root, "damaged"))
        File(damaged, "vocabulary.bin").appendText("x")
        refused("The file vocabulary.bin of", FakeFile.of(damaged))
        File(damaged, "vocabulary.bin").delete()
        refused("has no file vocabulary.bin.", FakeFile.of(damaged))
    }

    @Test
    fun `a file picked while the process was ended is not lost`() {
        val app = App(root)
        app.compare.start(null)
        app.compare.replace("ours", picked())
        assertEquals(CompareWork.Replacing, app.compare.state.work)
        app.worker.runOne()
        assertEquals(CompareWork.Replacing, app.compare.state.work)
        app.worker.runAll()
        assertEquals(Outcome.Replaced("ours"), app.outcome)
        assertEquals("new", app.program("ours"))
    }

    @Test
    fun `a new bundle gets the name of its file, and never another's`() {
        val app = started()
        app.replace(null, picked(name = "Käse 64.zip"))
        assertEquals(Outcome.Replaced("K-se-64"), app.outcome)
        app.replace(null, picked(name = "ours.zip"))
        assertEquals(Outcome.Replaced("ours-2"), app.outcome)
        assertEquals("old ours", app.program("ours"))
        app.replace(null, picked(name = null))
        app.replace(null, picked(name = "..."))
        assertEquals(listOf("K-se-64", "int8", "ours", "ours-2", "picked", "picked-2"), app.compare.state.columns.map { it.name })
    }

    @Test
    fun `a bundle that cannot be read is told in its column`() {
        started()
        val app = started(App(root, shipped = emptyMap()))
        File(app.directory, "ours/model.pte").appendText("x")
        app.compare.measure()
        app.worker.runAll()
        assertTrue("is damaged" in app.column("ours").problem!!)
        assertNotNull(app.column("int8").figures)
    }

    @Test
    fun `what the user put in place stays until the app brings another`() {
        started().replace("ours", picked())
        assertEquals("new", started(App(root)).program("ours"))
        assertEquals("newer ours", started(App(root, mapOf("ours" to "newer ours"))).program("ours"))
    }

    @Test
    fun `a replacement takes away what was wrong with the app's own bundle`() {
        val app = App(root)
        app.runtime.failure = OutOfMemoryError()
        started(app)
        assertTrue(app.compare.state.columns.all { "not enough free memory" in it.problem!! })
        app.runtime.failure = null
        app.replace("ours", picked())
        assertNull(app.column("ours").problem)
        assertNotNull(app.column("int8").problem)
    }
}
