package org.ondevice.demo

import android.widget.Button
import android.widget.Spinner
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertTrue
import org.junit.Test
import org.robolectric.ParameterizedRobolectricTestRunner.Parameters
import java.io.File

class RecommendScreenTest(setting: Setting) : Screen(setting) {
    private fun opened(): RecommendActivity {
        val activity = open(RecommendActivity::class.java)
        await { app.recommend.state !is RecommendState.Loading }
        settle(activity)
        return activity
    }

    private val ready get() = app.recommend.state as RecommendState.Ready

    private fun RecommendActivity.recommend() {
        findViewById<Button>(R.id.recommend).performClick()
        await { ready.answer !is Answer.Ranking }
        settle(this)
    }

    @Test
    fun `while a model is loaded`() {
        synchronized(app.bundles) { // the worker waits for them
            val look = look(open(RecommendActivity::class.java), "recommend-loading")
            assertReads(look, "Loading the model")
            assertTrue(app.recommend.state is RecommendState.Loading)
        }
        await { app.recommend.state is RecommendState.Ready }
    }

    @Test
    fun `at the start`() {
        val look = look(opened(), "recommend-start")
        assertReads(look, "ondevice")
        assertReads(look, ready.models.selected!!)
        assertReads(look, "Example")
    }

    @Test
    fun `another model is chosen, and after Recommend its best films are in sight`() {
        val activity = opened()
        val name = ready.models.names.last()
        activity.findViewById<Spinner>(R.id.bundle).setSelection(ready.models.names.size - 1)
        await { (app.recommend.state as? RecommendState.Ready)?.models?.selected == name }
        settle(activity)
        assertReads(look(activity, "recommend-chosen"), name)
        activity.recommend()
        val look = look(activity, "recommend-ranked")
        val films = (ready.answer as Answer.Ranked).films
        assertEquals(20, films.size)
        assertReads(look, "titles ranked in")
        assertReads(look, films.first().title)
        assertFalse("a title is no key", films.first().title == films.first().key)
    }

    @Test
    fun `without a model`() {
        removeBundles()
        assertReads(look(opened(), "recommend-empty"), "There is no model in this app.")
    }

    @Test
    fun `with a damaged model`() {
        val name = File(app.filesDir, "bundles").list()!!.min()
        damage(name)
        val activity = opened()
        val look = look(activity, "recommend-unusable")
        assertTrue(app.recommend.state is RecommendState.Unusable)
        assertReads(look, "model.pte of \"$name\" is damaged")
        assertFalse(activity.findViewById<Button>(R.id.recommend).isEnabled)
    }

    @Test
    fun `when a ranking fails`() {
        val activity = opened()
        app.bundles.close()
        damage(ready.models.selected!!)
        activity.recommend()
        assertReads(look(activity, "recommend-failed"), "is damaged")
    }

    @Test
    fun `with nothing to rank`() {
        removeCatalog(File(app.filesDir, "bundles").list()!!.min())
        val activity = opened()
        activity.recommend()
        assertReads(look(activity, "recommend-nothing"), "ships no catalog")
    }

    companion object {
        @JvmStatic
        @Parameters(name = "{0}")
        fun settings(): List<Array<Any>> = Setting.entries.map { arrayOf(it) }
    }
}
