package org.ondevice.demo

import android.content.Intent
import android.os.BatteryManager
import android.os.PowerManager
import android.view.WindowManager
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test
import org.ondevice.core.Json
import org.robolectric.ParameterizedRobolectricTestRunner.Parameters
import org.robolectric.Shadows.shadowOf
import java.io.File

class BenchmarkScreenTest(setting: Setting) : Screen(setting) {
    private fun json(name: String) = Json.parse(File(app.filesDir, name).readText()) as Map<*, *>

    @Test
    fun `nothing is asked`() {
        val activity = open(BenchmarkActivity::class.java)
        settle(activity)
        assertReads(look(activity, "benchmark-idle"), "Nothing is measured.")
    }

    @Test
    fun `over the lock screen, interrupted, and to the end`() {
        val power = shadowOf(app.getSystemService(PowerManager::class.java))
        power.setCurrentThermalStatus(PowerManager.THERMAL_STATUS_SEVERE)
        @Suppress("DEPRECATION")
        app.sendStickyBroadcast(
            Intent(Intent.ACTION_BATTERY_CHANGED)
                .putExtra(BatteryManager.EXTRA_LEVEL, 40).putExtra(BatteryManager.EXTRA_SCALE, 50)
                .putExtra(BatteryManager.EXTRA_TEMPERATURE, 315),
        )
        val asked = Intent().putExtra("run", "R1").putExtra("candidates", "1,100").putExtra("threads", "1")
            .putExtra("warmups", 1).putExtra("calls", 5).putExtra("pause_ms", 1)
        val controller = control(BenchmarkActivity::class.java, asked)
        val activity = controller.setup().get()
        assertTrue(shadowOf(activity).showWhenLocked && shadowOf(activity).turnScreenOn)
        assertTrue(shadowOf(activity.window).getFlag(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON))
        await { app.benchmark.state is BenchmarkState.Measuring }

        power.turnScreenOn(false)
        controller.pause().stop()
        layOut(activity)
        assertReads(look(activity, "benchmark-stopped"), "Stopped at 1 of ")
        assertEquals("the screen went off", json("benchmark.json")["why"])

        power.turnScreenOn(true)
        controller.restart().start().resume()
        await { app.benchmark.state is BenchmarkState.Done }
        settle(activity)
        assertReads(look(activity, "benchmark-done"), "Done.")
        val latency = json("latency.json")
        assertEquals("R1", latency["run"])
        assertEquals(emptyMap<String, String>(), latency["errors"])
        val measured = (latency["bundles"] as Map<*, *>).values.map { (it as Map<*, *>)["measurements"] as List<*> }
        assertEquals(app.bundles.store.names().size, measured.size)
        val before = (measured.first().single() as Map<*, *>)["before"] as Map<*, *>
        assertEquals(listOf(3L, 80L, 31.5), listOf("thermal_status", "battery_percent", "battery_celsius").map { before[it] })
    }

    companion object {
        @JvmStatic
        @Parameters(name = "{0}")
        fun settings(): List<Array<Any>> = Setting.entries.map { arrayOf(it) }
    }
}
