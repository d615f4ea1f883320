package org.ondevice.demo

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import org.ondevice.core.BundleError
import org.ondevice.core.TestBundle
import org.ondevice.core.TestNextItem
import java.io.File

class RecommendPresenterTest {
    @TempDir
    lateinit var root: File

    private fun started(app: App = App(root), saved: SavedProfile? = null): App {
        app.recommend.start(saved)
        app.worker.runAll()
        return app
    }

    private fun App.value(field: String) = ready.profile.inputs.single { it.field == field }.value

    private val App.isWorking get() = recommend.state is RecommendState.Loading || ready.answer is Answer.Ranking

    @Test
    fun `the first bundle is loaded, with the profile of its first case`() {
        val app = App(root)
        app.recommend.start(null)
        assertEquals(RecommendState.Loading(), app.recommend.state)
        app.worker.runAll()
        assertEquals(Answer.NotAsked, app.ready.answer)
        assertNull(app.ready.warning)
        assertEquals(Models(listOf("int8", "ours"), "int8"), app.ready.models)
        assertEquals(0, app.ready.profile.example)
        assertEquals(listOf("user", "zip"), app.ready.profile.inputs.map { it.field })
        assertEquals("7", app.value("user"))
        assertEquals("02138", app.value("zip"))
        assertEquals(listOf("7", "8", "1000"), app.ready.profile.inputs.first().choices.map { it.key })
        assertEquals(emptyList<String>(), app.logged)
    }

    @Test
    fun `films are ranked best first`() {
        val app = started()
        app.recommend.recommend()
        assertEquals(Answer.Ranking, app.ready.answer)
        app.worker.runAll()
        assertEquals(6, app.ranked.numRanked)
        assertEquals(6, app.ranked.films.size)
        assertEquals(app.ranked.films.map { it.score }.sortedDescending(), app.ranked.films.map { it.score })
        assertTrue(app.ranked.films.all { it.title.startsWith("Film ") })
        assertTrue(app.ranked.nanos > 0)
    }

    @Test
    fun `other values are a profile of one's own, and end the ranking`() {
        val app = started()
        app.recommend.recommend()
        app.worker.runAll()
        app.recommend.setValue("user", "8")
        assertEquals(Answer.NotAsked, app.ready.answer)
        assertNull(app.ready.profile.example)
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
        assertEquals(Answer.NotAsked, app.ready.answer)
    }

    @Test
    fun `of two choices in a row the second stays`() {
        val app = started()
        app.recommend.selectBundle("ours")
        app.recommend.selectBundle("int8")
        val seen = ArrayList<String?>()
        app.recommend.watch { seen.add(it.models.selected) }
        app.worker.runAll()
        assertEquals(setOf<String?>("int8"), seen.toSet())
        assertFalse(app.isWorking)
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
        assertEquals("H2X", (new.first() as RecommendState.Ready).profile.inputs.last().value)
        assertEquals(app.ready, new.last())
        assertTrue(app.ready.answer is Answer.Ranked)
        assertEquals("int8", app.ready.models.selected)
    }

    @Test
    fun `the process may end`() {
        val app = started()
        app.recommend.selectBundle("ours")
        app.worker.runAll()
        app.recommend.setValue("user", "1000")
        app.recommend.recommend()
        app.worker.runAll()
        val titles = app.ranked.films.map { it.title }

        val again = started(App(root), app.recommend.save())
        assertEquals("ours", again.ready.models.selected)
        assertNull(again.ready.profile.example)
        assertEquals("1000", again.value("user"))
        assertEquals("02138", again.value("zip"))
        assertEquals(titles, again.ranked.films.map { it.title })
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
        app.worker.runAll()
        app.compare.replace(null, FakeFile.of(TestBundle.write(File(root, "new"), "new"), "more.zip"))
        app.worker.runAll()
        assertEquals(listOf("int8", "more", "ours"), app.ready.models.names)
        val reloaded = app.runtime.threads.size
        assertTrue(reloaded > loads)
        app.recommend.start(null)
        app.worker.runAll()
        assertEquals(reloaded, app.runtime.threads.size)
        assertEquals("8", app.value("user"))
        assertEquals("new", app.program("int8"))
    }

    @Test
    fun `without bundles there is nothing, until one is added`() {
        val app = started(App(root, emptyMap()))
        assertEquals(RecommendState.Empty(null), app.recommend.state)
        app.recommend.recommend()
        app.compare.start(null)
        app.worker.runAll()
        app.compare.replace(null, FakeFile.of(TestBundle.write(File(root, "new")), "mine.zip"))
        app.worker.runAll()
        assertEquals("mine", app.ready.models.selected)
    }

    @Test
    fun `a bundle without a catalog ranks its own items, by their keys`() {
        val app = App(root, emptyMap())
        TestBundle.write(File(app.directory, "plain"), catalog = null)
        started(app)
        app.recommend.recommend()
        app.worker.runAll()
        assertTrue(app.ranked.films.all { it.title.toIntOrNull() != null })
    }

    @Test
    fun `models of the next item have a screen of their own`() {
        val app = App(root)
        TestNextItem.write(File(app.directory, "next"))
        started(app)
        assertEquals(Models(listOf("int8", "ours"), "int8", hasNext = true), app.ready.models)
        val alone = App(File(root, "alone"), emptyMap())
        TestNextItem.write(File(alone.directory, "next"))
        started(alone)
        assertEquals(RecommendState.Empty(null, hasNext = true), alone.recommend.state)
    }

    @Test
    fun `a code is shown by its label, and asked by its key`() {
        val app = App(root, emptyMap())
        TestBundle.write(File(app.directory, "labelled")) { it["labels"] = mapOf("user" to mapOf("8" to "Ada", "9" to "Bob")) }
        started(app)
        assertEquals(
            listOf(Choice("7", "7"), Choice("8", "Ada"), Choice("1000", "1000")),
            app.ready.profile.inputs.first().choices,
        )
        app.recommend.setValue("user", "8")
        assertEquals("8", app.value("user"))
    }

    @Test
    fun `a program that was let go is loaded again for the next ranking`() {
        val app = started()
        app.bundles.close() // what the app does when the system asks for memory
        assertEquals(0, app.runtime.numOpen)
        app.recommend.recommend()
        app.worker.runAll()
        assertEquals(6, app.ranked.films.size)
    }

    /**
     * What a person reads for each failure of a bundle that the app has no other of, and a developer in the log; another
     * bundle can still be chosen.
     */
    private fun sentence(expected: String, failure: Throwable? = null, breakIt: (File) -> Unit) {
        App(root).bundles.prepare()
        val app = App(root, shipped = emptyMap())
        breakIt(File(app.directory, "int8"))
        app.runtime.failure = failure
        started(app)
        assertEquals("int8: $expected", app.problem)
        assertTrue(app.logged.single().startsWith("loading int8: "), app.logged.toString())
        app.runtime.failure = null
        app.recommend.selectBundle("ours")
        app.worker.runAll()
        assertNull(app.ready.warning)
        assertEquals(0, app.ready.profile.example)
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
        sentence("This bundle has format version 4; this app reads up to 3. Update the app.") { directory ->
            TestBundle.write(directory) { it["format_version"] = 4 }
        }
        val memory = "There is not enough free memory for this bundle. Close other apps, or choose a smaller bundle."
        sentence(memory, OutOfMemoryError()) {}
    }

    @Test
    fun `a damaged bundle of the app's is copied again`() {
        val app = App(root)
        app.bundles.prepare()
        File(app.directory, "int8/vocabulary.bin").writeText("")
        assertNull(started(App(root)).ready.warning)
    }

    @Test
    fun `a failure while ranking is told, and can be tried again`() {
        val app = started()
        app.bundles.close()
        app.runtime.failure = BundleError.EngineFailure("the runtime refused it", 0x21)
        app.recommend.recommend()
        app.worker.runAll()
        assertEquals(Answer.Failed("The model could not be run: the runtime refused it (code 0x21)."), app.ready.answer)
        assertEquals(listOf("ranking with int8: EngineFailure"), app.logged)
        app.runtime.failure = null
        app.recommend.recommend()
        app.worker.runAll()
        assertEquals(6, app.ranked.numRanked)
    }

    @Test
    fun `a bundle of the app that does not answer its cases is named, and the others work`() {
        val app = App(root)
        app.runtime.offset = 0.5f
        started(app)
        val problem = (app.recommend.state as RecommendState.Empty).problem!!
        assertTrue("int8: The model does not answer its own test cases" in problem, problem)
        assertTrue("ours: The model" in problem, problem)
        assertEquals(emptyList<String>(), app.recommend.state.models.names)
    }
}
