package org.ondevice.demo

import android.widget.Button
import android.widget.ImageButton
import android.widget.LinearLayout
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertTrue
import org.junit.Test
import org.robolectric.ParameterizedRobolectricTestRunner.Parameters
import java.io.File

class NextScreenTest(setting: Setting) : Screen(setting) {
    private fun opened(): NextActivity {
        val activity = open(NextActivity::class.java)
        await { app.next.state !is NextState.Loading }
        settle(activity)
        return activity
    }

    private val ready get() = app.next.state as NextState.Ready

    /** Taps a button of the first film, and waits for the answer. */
    private fun NextActivity.tapFirst(button: Int) {
        val before = ready
        val row = findViewById<LinearLayout>(R.id.films).getChildAt(0)
        row.findViewById<ImageButton>(button).performClick()
        await { app.next.state !== before }
        settle(this)
    }

    @Test
    fun `films are liked and disliked, and the list answers`() {
        val activity = opened()
        val popular = ready.films
        val start = look(activity, "next-start")
        assertReads(start, "This is what is popular.")
        assertReads(start, popular.first().title)
        assertFalse("a title is no key", popular.first().title == popular.first().key)
        repeat(2) { activity.tapFirst(R.id.like) }
        activity.tapFirst(R.id.dislike)
        val look = look(activity, "next-liked")
        assertEquals(2, ready.liked.size)
        assertEquals(popular.first().title, ready.liked.last())
        assertEquals(1, ready.numDisliked)
        assertReads(look, "You like ${ready.liked.first()} · ${ready.liked.last()}")
        assertReads(look, ready.films.first().title)
        assertTrue((ready.films.map { it.key } - popular.map { it.key }.toSet()).isNotEmpty())
    }

    @Test
    fun `without a model`() {
        removeBundles()
        assertReads(look(opened(), "next-empty"), "No model in this app says what comes next.")
    }

    @Test
    fun `when the file of taps is something else`() {
        File(app.filesDir, "taps").mkdirs()
        File(app.filesDir, "taps/liked.json").writeText("something else")
        val activity = opened()
        assertReads(look(activity, "next-failed"), "liked.json is no history that this app wrote")
        activity.findViewById<Button>(R.id.again).performClick()
        await { app.next.state is NextState.Ready }
    }

    companion object {
        @JvmStatic
        @Parameters(name = "{0}")
        fun settings(): List<Array<Any>> = Setting.entries.map { arrayOf(it) }
    }
}
