package org.ondevice.demo

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import org.ondevice.core.BundleError
import org.ondevice.core.TestNextItem
import java.io.File

class NextPresenterTest {
    @TempDir
    lateinit var root: File

    private val taps get() = File(root, "taps")

    private fun started(): App {
        val app = App(root, emptyMap())
        if (!app.directory.exists()) TestNextItem.write(File(app.directory, "next"))
        app.next.start()
        app.worker.runAll()
        return app
    }

    private val App.shown get() = next.state as NextState.Ready

    private fun App.after(act: NextPresenter.() -> Unit): NextState.Ready {
        next.act()
        worker.runAll()
        return shown
    }

    private fun ranked(vararg history: Long) = TestNextItem.ranked(history.toList()).map { it.first.toString() }

    @Test
    fun `each like is answered, and the process may end`() {
        val app = App(root, emptyMap())
        TestNextItem.write(File(app.directory, "next"))
        app.next.start()
        assertEquals(NextState.Loading, app.next.state)
        app.worker.runAll()
        assertEquals(ranked().take(TestNextItem.NUM_FILMS), app.shown.films.map { it.key })
        assertEquals(emptyList<String>(), app.shown.liked)
        assertEquals(TestNextItem.NUM_FILMS, app.shown.numRanked)
        assertEquals(ranked(30), app.after { like("30") }.films.map { it.key })
        val liked = app.after {
            like("50")
            like("10")
        }
        assertEquals(ranked(30, 50, 10), liked.films.map { it.key })
        assertEquals(listOf("Film 10", "Film 50", "Film 30"), liked.liked)
        assertTrue(liked.nanos > 0)
        val again = started().shown
        assertEquals(liked.films.map { it.key to it.score }, again.films.map { it.key to it.score })
        assertEquals(liked.liked, again.liked)
    }

    @Test
    fun `the model reads when films were liked, and when it is asked`() {
        fun ranked(history: List<Long>, vararg gaps: Long) = TestNextItem.ranked(history, gaps.toList()).map { it.second }
        val app = App(root, emptyMap())
        TestNextItem.write(File(app.directory, "next"), gaps = "until")
        app.next.start()
        app.worker.runAll()
        assertEquals(ranked(emptyList(), 0, 0, 0), app.shown.films.map { it.score })
        assertEquals(ranked(listOf(30), 0, 0, 1), app.after { like("30") }.films.map { it.score })
        app.next.like("50") // its moment is this one, not that of the answer
        app.now = 1003.0
        app.worker.runAll()
        assertEquals(ranked(listOf(30, 50), 0, 1, 3), app.shown.films.map { it.score })
        app.now = 1063.0
        assertEquals(ranked(listOf(30, 50, 10), 1, 7, 1), app.after { like("10") }.films.map { it.score })
        app.now = 2063.0
        assertEquals(ranked(listOf(30, 50, 10), 1, 7, 10), app.after { start() }.films.map { it.score })
    }

    @Test
    fun `what is disliked is left out, and the model does not hear of it`() {
        val app = started()
        app.after { like("30") }
        val shown = app.after { dislike("50") }
        assertEquals(ranked(30) - "50", shown.films.map { it.key })
        assertEquals(1, shown.numDisliked)
        assertEquals(listOf("Film 30"), shown.liked)
        assertEquals(ranked(30) - "50", started().shown.films.map { it.key })
    }

    @Test
    fun `taps are forgotten on request`() {
        val app = started()
        app.after { like("30") }
        app.after { dislike("50") }
        assertEquals(ranked(), app.after { startAgain() }.films.map { it.key })
        assertEquals(emptyList<String>(), taps.list()!!.toList())
    }

    @Test
    fun `a file of something else is told, until a new one is started`() {
        taps.mkdirs()
        File(taps, "liked.json").writeText("something else")
        val app = started()
        val problem = (app.next.state as NextState.Failed).problem
        assertTrue(problem.startsWith("liked.json is no history that this app wrote"), problem)
        assertEquals(listOf("ranking: BadHistory"), app.logged)
        assertEquals(ranked(), app.after { startAgain() }.films.map { it.key })
    }

    @Test
    fun `without a model, or with one that fails`() {
        val app = App(root)
        app.next.start()
        app.worker.runAll()
        assertEquals(NextState.Empty, app.next.state)
        TestNextItem.write(File(app.directory, "next"))
        app.runtime.failure = BundleError.EngineFailure("the runtime refused it", 0x21)
        app.next.start()
        app.worker.runAll()
        assertEquals(NextState.Failed("The model could not be run: the runtime refused it (code 0x21)."), app.next.state)
        app.runtime.failure = null
        assertFalse(app.after { like("30") }.films.isEmpty())
    }
}
