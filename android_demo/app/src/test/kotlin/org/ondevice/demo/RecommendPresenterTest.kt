package org.ondevice.demo

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertNotNull
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import org.ondevice.core.BundleError
import org.ondevice.core.TestBundle
import java.io.File

class RecommendPresenterTest {
    @TempDir
    lateinit var root: File

    private fun started(app: App = App(root), saved: SavedProfile? = null): App {
        app.recommend.start(saved)
        app.worker.runAll()
        return app
    }

    private fun App.value(field: String) = recommend.state.inputs.single { it.field == field }.value

    @Test
    fun `the first bundle is loaded, with the profile of its first case`() {
        val app = App(root)
        app.recommend.start(null)
        assertTrue(app.recommend.state.isBusy)
        app.worker.runAll()
        val state = app.recommend.state
        assertFalse(state.isBusy)
        assertNull(state.problem)
        assertEquals(listOf("int8", "ours"), state.bundleNames)
        assertEquals("int8", state.selected)
        assertEquals(0, state.example)
        assertEquals(listOf("user", "zip"), state.inputs.map { it.field })
        assertEquals("7", app.value("user"))
        assertEquals("02138", app.value("zip"))
        assertEquals(listOf("7", "8", "1000"), state.inputs.first().choices)
    }

    @Test
    fun `films are ranked best first`() {
        val app = started()
        app.recommend.recommend()
        assertTrue(app.recommend.state.isBusy)
        app.worker.runAll()
        val ranking = app.recommend.state.ranking!!
        assertEquals(6, ranking.numRanked)
        assertEquals(6, ranking.films.size)
        assertEquals(ranking.films.map { it.score }.sortedDescending(), ranking.films.map { it.score })
        assertTrue(ranking.films.all { it.title.startsWith("Film ") })
        assertTrue(ranking.nanos > 0)
    }

    @Test
    fun `other values are a profile of one's own, and end the ranking`() {
        val app = started()
        app.recommend.recommend()
        app.worker.runAll()
        app.recommend.setValue("user", "8")
        assertNull(app.recommend.state.ranking)
        assertNull(app.recommend.state.example)
        app.recommend.setValue("user", "nobody")
        assertEquals("", app.value("user"))
        app.recommend.selectExample(0)
        assertEquals("7", app.value("user"))
    }

    @Test
    fun `a ranking for values that changed meanwhile is not shown`() {
        val app = started()
        app.recommend.recommend()
        app.recommend.setValue("user", "8")
        app.worker.runAll()
        assertNull(app.recommend.state.ranking)
        assertFalse(app.recommend.state.isBusy)
    }

    @Test
    fun `of two choices in a row the second stays`() {
        val app = started()
        app.recommend.selectBundle("ours")
        app.recommend.selectBundle("int8")
        val seen = ArrayList<String?>()
        app.recommend.watch { seen.add(it.selected) }
        app.worker.runAll()
        assertEquals(setOf<String?>("int8"), seen.toSet())
        assertFalse(app.recommend.state.isBusy)
    }

    @Test
    fun `an activity made anew finds the state, and is the one that is told`() {
        val app = started()
        app.recommend.setValue("zip", "H2X")
        val old = ArrayList<RecommendState>()
        val first: (RecommendState) -> Unit = { old.add(it) }
        app.recommend.watch(first)
        val new = ArrayList<RecommendState>()
        app.recommend.watch { new.add(it) }
        app.recommend.unwatch(first)
        app.recommend.start(SavedProfile("ours", 1, emptyMap()))
        app.recommend.recommend()
        app.worker.runAll()
        assertEquals(1, old.size)
        assertEquals("H2X", new.first().inputs.last().value)
        assertNotNull(new.last().ranking)
        assertEquals("int8", new.last().selected)
    }

    @Test
    fun `the process may end`() {
        val app = started()
        app.recommend.selectBundle("ours")
        app.worker.runAll()
        app.recommend.setValue("user", "1000")
        app.recommend.recommend()
        app.worker.runAll()
        val titles = app.recommend.state.ranking!!.films.map { it.title }

        val again = started(App(root), app.recommend.save())
        val state = again.recommend.state
        assertEquals("ours", state.selected)
        assertNull(state.example)
        assertEquals("1000", again.value("user"))
        assertEquals("02138", again.value("zip"))
        assertEquals(titles, state.ranking!!.films.map { it.title })
    }

    @Test
    fun `the process may end again while it is loading`() {
        val app = App(root)
        val saved = SavedProfile("ours", null, mapOf("user" to "8"), isRanked = true)
        app.recommend.start(saved)
        assertEquals(saved, app.recommend.save())
        app.worker.runAll()
        assertEquals("8", app.value("user"))
        assertEquals("8", app.recommend.save().values["user"])
    }

    @Test
    fun `a bundle replaced on the other screen is read again, with the same profile`() {
        val app = started()
        app.recommend.setValue("user", "8")
        app.recommend.start(null)
        app.worker.runAll()
        assertEquals(listOf(1, 1), app.runtime.threads.takeLast(2))
        val loads = app.runtime.threads.size

        app.compare.replace("int8", FakeFile.of(TestBundle.write(File(root, "new"), "new")))
        app.compare.replace(null, FakeFile.of(TestBundle.write(File(root, "new"), "new"), "more.zip"))
        app.worker.runAll()
        app.recommend.start(null)
        app.worker.runAll()
        assertTrue(app.runtime.threads.size > loads)
        assertEquals("8", app.value("user"))
        assertEquals("new", app.program("int8"))
    }

    @Test
    fun `without bundles there is nothing, until one is added`() {
        val app = started(App(root, emptyMap()))
        assertNull(app.recommend.state.selected)
        assertNull(app.recommend.state.problem)
        app.recommend.recommend()
        app.compare.start(null)
        app.compare.replace(null, FakeFile.of(TestBundle.write(File(root, "new")), "mine.zip"))
        app.worker.runAll()
        app.recommend.start(null)
        app.worker.runAll()
        assertEquals("mine", app.recommend.state.selected)
    }

    @Test
    fun `a bundle without a catalog ranks its own items, by their keys`() {
        val app = App(root, emptyMap())
        TestBundle.write(File(app.directory, "plain"), catalog = null)
        started(app)
        app.recommend.recommend()
        app.worker.runAll()
        assertTrue(app.recommend.state.hasCatalog)
        assertTrue(app.recommend.state.ranking!!.films.all { it.title.toIntOrNull() != null })
    }

    /** What a person reads for each failure; the other bundle can still be chosen. */
    private fun sentence(expected: String, app: App = App(root), breakIt: (File) -> Unit) {
        app.bundles.prepare()
        app.bundles.close()
        breakIt(File(app.directory, "int8"))
        started(app)
        assertEquals("int8: $expected", app.recommend.state.problem)
        assertFalse(app.recommend.state.isBusy)
        app.runtime.failure = null
        app.recommend.selectBundle("ours")
        app.worker.runAll()
        assertNull(app.recommend.state.problem)
        app.directory.deleteRecursively()
    }

    @Test
    fun `every failure has its sentence`() {
        sentence("The bundle \"int8\" has no file model.pte. Export it again, or pick the whole bundle.") {
            File(it, "model.pte").delete()
        }
        sentence(
            "The file model.pte of \"int8\" is damaged: its SHA-256 is not the one that was exported. " +
                "Copy the bundle again.",
        ) { File(it, "model.pte").writeText("another") }
        sentence(
            "This app's runtime has no operator demo::none.out. Export the bundle for the stock runtime, or update " +
                "the app.",
        ) { directory -> TestBundle.write(directory) { it["ops"] = listOf("demo::none.out") } }
        sentence("This app's runtime has no backend DemoBackend. Export the bundle for XNNPACK.") { directory ->
            TestBundle.write(directory) { it["backends"] = listOf("DemoBackend") }
        }
        sentence("This bundle has format version 3; this app reads up to 2. Update the app.") { directory ->
            TestBundle.write(directory) { it["format_version"] = 3 }
        }
        sentence("There is not enough free memory for this bundle. Close other apps, or choose a smaller bundle.", App(root).apply {
            bundles.prepare()
            runtime.failure = OutOfMemoryError()
        }) {}
    }

    @Test
    fun `a failure while ranking is told, and can be tried again`() {
        val app = started()
        app.bundles.close()
        app.runtime.failure = BundleError.EngineFailure("the runtime refused it", 0x21)
        app.recommend.recommend()
        app.worker.runAll()
        assertEquals("The model could not be run: the runtime refused it (code 0x21).", app.recommend.state.problem)
        app.runtime.failure = null
        app.recommend.recommend()
        app.worker.runAll()
        assertNull(app.recommend.state.problem)
        assertNotNull(app.recommend.state.ranking)
    }

    @Test
    fun `a bundle of the app that does not answer its cases is named, and the others work`() {
        val app = App(root)
        app.runtime.offset = 0.5f
        started(app)
        val problem = app.recommend.state.problem!!
        assertTrue("int8: The model does not answer its own test cases" in problem, problem)
        assertTrue("ours: The model" in problem, problem)
        assertEquals(emptyList<String>(), app.recommend.state.bundleNames)
    }
}
