package org.ondevice.demo

import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test
import org.ondevice.core.Json
import org.robolectric.ParameterizedRobolectricTestRunner.Parameters
import java.io.File

class BenchmarkScreenTest(setting: Setting) : Screen(setting) {
    @Test
    fun `from its start to the end`() {
        val activity = open(BenchmarkActivity::class.java)
        settle(activity)
        assertReads(look(activity, "benchmark-idle"), "Nothing is measured.")
        app.benchmark.start("R1") {
            BenchmarkRequest.read("R1", { mapOf("candidates" to "1,100")[it] }) { name, _ -> if (name == "calls") 5 else 1 }
        }
        await { app.benchmark.state is BenchmarkState.Measuring }
        app.benchmark.unseen("the screen went off")
        settle(activity)
        assertReads(look(activity, "benchmark-stopped"), "Stopped at 1 of ")
        app.benchmark.seen()
        settle(activity)
        await { app.benchmark.state is BenchmarkState.Done }
        settle(activity)
        assertReads(look(activity, "benchmark-done"), "Done.")
        val latency = Json.parse(File(app.filesDir, "latency.json").readText()) as Map<*, *>
        assertEquals("R1", latency["run"])
        assertEquals(emptyMap<String, String>(), latency["errors"])
        assertTrue((latency["bundles"] as Map<*, *>).size == File(app.filesDir, "bundles").list()!!.count { !it.startsWith(".") })
    }

    companion object {
        @JvmStatic
        @Parameters(name = "{0}")
        fun settings(): List<Array<Any>> = Setting.entries.map { arrayOf(it) }
    }
}
