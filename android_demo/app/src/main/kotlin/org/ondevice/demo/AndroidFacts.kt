package org.ondevice.demo

import android.content.Context
import android.content.Intent
import android.content.IntentFilter
import android.os.BatteryManager
import android.os.Build
import android.os.Debug
import android.os.PowerManager
import org.ondevice.core.MemoryUse
import java.io.File
import java.io.IOException

/** What Android tells of the phone and of this process, without a permission. */
class AndroidFacts(private val context: Context) : PhoneFacts {
    override fun device(): Map<String, Any?> = linkedMapOf(
        "manufacturer" to Build.MANUFACTURER,
        "model" to Build.MODEL,
        "soc" to if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.S) Build.SOC_MODEL else Build.HARDWARE,
        "android" to Build.VERSION.RELEASE,
        "sdk" to Build.VERSION.SDK_INT,
        "abi" to Build.SUPPORTED_ABIS.first(),
        "cores" to Runtime.getRuntime().availableProcessors(),
    )

    override fun memory() = MemoryUse(pssBytes = Debug.getPss() * 1024, peakRssBytes = peakRss())

    private fun peakRss(): Long? = try {
        File("/proc/self/status").useLines { lines ->
            lines.firstOrNull { it.startsWith("VmHWM:") }?.filter { it.isDigit() }?.toLongOrNull()?.times(1024)
        }
    } catch (_: IOException) {
        null
    }

    override fun conditions(): Conditions {
        val power = context.getSystemService(PowerManager::class.java)
        val battery: Intent? = context.registerReceiver(null, IntentFilter(Intent.ACTION_BATTERY_CHANGED))
        fun figure(name: String) = battery?.getIntExtra(name, -1)?.takeIf { it >= 0 }
        val level = figure(BatteryManager.EXTRA_LEVEL)
        val scale = figure(BatteryManager.EXTRA_SCALE)
        return Conditions(
            thermalStatus = if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.Q) power.currentThermalStatus else null,
            batteryPercent = if (level == null || scale == null || scale == 0) null else 100 * level / scale,
            batteryCelsius = figure(BatteryManager.EXTRA_TEMPERATURE)?.div(10.0),
            isCharging = figure(BatteryManager.EXTRA_PLUGGED)?.let { it > 0 },
            isSavingPower = power.isPowerSaveMode,
        )
    }
}
