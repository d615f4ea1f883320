package org.ondevice.demo

import android.os.Debug
import org.ondevice.core.MemoryUse
import java.io.File
import java.io.IOException

/** What this process uses, as the system tells. */
object Memory {
    fun use(): MemoryUse = MemoryUse(pssBytes = Debug.getPss() * 1024, peakRssBytes = peakRss())

    private fun peakRss(): Long? = try {
        File("/proc/self/status").useLines { lines ->
            lines.firstOrNull { it.startsWith("VmHWM:") }?.filter { it.isDigit() }?.toLongOrNull()?.times(1024)
        }
    } catch (_: IOException) {
        null
    }
}
