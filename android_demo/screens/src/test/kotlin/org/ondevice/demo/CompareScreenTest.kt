package org.ondevice.demo

import android.view.View
import android.widget.Button
import android.widget.ImageButton
import android.widget.Toolbar
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test
import org.robolectric.ParameterizedRobolectricTestRunner.Parameters
import java.io.ByteArrayInputStream
import java.io.ByteArrayOutputStream
import java.io.File
import java.util.zip.ZipEntry
import java.util.zip.ZipOutputStream

class CompareScreenTest(setting: Setting) : Screen(setting) {
    private fun opened(): CompareActivity {
        val activity = open(CompareActivity::class.java)
        await { app.compare.state.work is CompareWork.Idle }
        settle(activity)
        return activity
    }

    private val outcome get() = (app.compare.state.work as CompareWork.Idle).outcome

    @Test
    fun `at the start`() {
        val activity = opened()
        val look = look(activity, "compare-start")
        assertReads(look, "Compare models")
        assertReads(look, "Not measured yet.")
        val column = app.compare.state.columns.first()
        assertTrue(column.titleBytes > 0)
        val toolbar = activity.findViewById<Toolbar>(R.id.toolbar)
        assertTrue("an Up button", List(toolbar.childCount) { toolbar.getChildAt(it) }.any { it is ImageButton })
        assertEquals(RecommendActivity::class.java.name, activity.parentActivityIntent!!.component!!.className)
    }

    @Test
    fun `while it measures, until it is stopped`() {
        val activity = opened()
        val button = activity.findViewById<Button>(R.id.measure)
        button.performClick()
        settleWithoutAnswers(activity)
        val look = look(activity, "compare-measuring")
        assertReads(look, "Measuring ${app.compare.state.columns.first().name}: 1 of")
        assertEquals("Stop measuring", button.text.toString())
        button.performClick()
        await { app.compare.state.work is CompareWork.Idle }
        settle(activity)
        assertEquals(Outcome.Stopped, outcome)
        assertReads(look(activity, "compare-stopped"), "Stopped.")
    }

    /** Lays out what was shown last; the worker's answers wait. */
    private fun settleWithoutAnswers(activity: CompareActivity) {
        val decor = activity.window.decorView
        val exactly = { size: Int -> View.MeasureSpec.makeMeasureSpec(size, View.MeasureSpec.EXACTLY) }
        decor.measure(exactly(decor.width), exactly(decor.height))
        decor.layout(0, 0, decor.width, decor.height)
    }

    @Test
    fun `with figures`() {
        val activity = opened()
        activity.findViewById<Button>(R.id.measure).performClick()
        await { app.compare.state.work is CompareWork.Idle }
        settle(activity)
        assertEquals(Outcome.Measured, outcome)
        val look = look(activity, "compare-measured")
        assertReads(look, "100 candidates, one thread")
        assertTrue(app.compare.state.columns.all { it.figures!!.p50Micros > 0 })
    }

    @Test
    fun `without a model`() {
        removeBundles()
        assertReads(look(opened(), "compare-empty"), "There is no model in this app.")
    }

    @Test
    fun `with a model that cannot be read`() {
        damage(File(app.filesDir, "bundles").list()!!.min())
        assertReads(look(opened(), "compare-damaged"), "is damaged")
    }

    @Test
    fun `after a model was replaced`() {
        val activity = opened()
        val name = app.compare.state.columns.first().name
        app.compare.replace(name, Zip(File(app.filesDir, "bundles/$name")))
        await { app.compare.state.work is CompareWork.Idle }
        settle(activity)
        assertEquals(Outcome.Replaced(name), outcome)
        assertReads(look(activity, "compare-replaced"), "$name was replaced")
    }

    private class Zip(private val folder: File) : PickedFile {
        override fun name() = "${folder.name}.zip"

        override fun open(): ByteArrayInputStream {
            val out = ByteArrayOutputStream()
            ZipOutputStream(out).use { zip ->
                folder.listFiles()!!.forEach {
                    zip.putNextEntry(ZipEntry(it.name))
                    zip.write(it.readBytes())
                }
            }
            return ByteArrayInputStream(out.toByteArray())
        }
    }

    companion object {
        @JvmStatic
        @Parameters(name = "{0}")
        fun settings(): List<Array<Any>> = Setting.entries.map { arrayOf(it) }
    }
}
