package org.ondevice.core

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.File
import kotlin.concurrent.thread

class HistoryTest {
    @TempDir
    lateinit var root: File

    private val file get() = File(root, "taps.json")

    private fun opened(maximum: Int = 1000, disk: Disk = QuickDisk()) = History.open(file, maximum, disk)

    @Test
    fun `taps are there after the process ends, and gone after they are wiped`() {
        val history = History.open(File(root, "new/taps.json"))
        assertEquals(emptyList<String>(), history.keys)
        val before = history.keys
        listOf("10", "Épopée \"\n", "10").forEach { history.add(it) }
        assertEquals(emptyList<String>(), before)
        assertEquals(listOf("10", "Épopée \"\n", "10"), History.open(File(root, "new/taps.json")).keys)
        history.remove("10")
        assertEquals(listOf("Épopée \"\n"), History.open(File(root, "new/taps.json")).keys)
        history.clear()
        assertEquals(emptyList<String>(), history.keys)
        assertEquals(emptyList<String>(), File(root, "new").list()!!.toList())
        history.clear()
    }

    @Test
    fun `times of taps are kept`() {
        val history = opened()
        val before = Tap.now()
        history.add("10")
        val after = Tap.now()
        history.add("20", 1_700_000_000.25)
        history.add("10", null)
        history.add("30", 3.0)
        for (each in listOf(history, opened())) {
            assertEquals(listOf("10", "20", "10", "30"), each.taps.map { it.key })
            assertEquals(each.keys, each.taps.map { it.key })
            assertTrue(each.taps[0].at!! in before..after, each.taps.toString())
            assertEquals(listOf(1_700_000_000.25, null, 3.0), each.taps.drop(1).map { it.at })
        }
        assertTrue(before > 1.6e9, "$before s since 1970")
        history.remove("10")
        assertEquals(listOf(1_700_000_000.25, 3.0), opened().taps.map { it.at })
        assertEquals(listOf(3.0), opened(maximum = 1).taps.map { it.at })
        assertThrows(IllegalArgumentException::class.java) { history.add("40", Double.NaN) }
        assertEquals(listOf("20", "30"), opened().keys)
    }

    @Test
    fun `a file of before there were times is read, and written with them`() {
        file.writeText("""{"format":"ondevice-history","format_version":1,"keys":["10","20"]}""")
        val history = opened()
        assertEquals(listOf("10" to null, "20" to null), history.taps.map { it.key to it.at })
        history.add("30", 7.5)
        assertEquals(listOf("10" to null, "20" to null, "30" to 7.5), opened().taps.map { it.key to it.at })
        val text = """{"format":"ondevice-history","format_version":2,"keys":["10","20","30"],"times":[null,null,7.5]}"""
        assertEquals(text, file.readText())
    }

    @Test
    fun `of more than the maximum the oldest go`() {
        val history = opened(maximum = 3)
        repeat(5) { history.add("$it") }
        assertEquals(listOf("2", "3", "4"), history.keys)
        assertEquals(listOf("3", "4"), opened(maximum = 2).keys)
        assertThrows(IllegalArgumentException::class.java) { opened(maximum = 0) }
    }

    /** Ends the process, or takes the phone's power, at every step in turn. */
    private fun everyStep(allowed: Set<List<String>>, change: (History) -> Unit) {
        for (losesPower in listOf(false, true)) {
            for (last in generateSequence(0) { it + 1 }) {
                root.listFiles()!!.forEach { it.deleteRecursively() }
                opened().apply { add("10", 1.5) }.add("20", 2.5)
                val disk = EndingDisk(root, last, losesPower).apply { begin() }
                val history = opened(disk = disk)
                val hasEnded = try {
                    change(history)
                    false
                } catch (_: Ended) {
                    true
                }
                val what = "ended at step $last, ${if (losesPower) "without power" else "killed"}: ${root.list()!!.toList()}"
                val again = opened()
                assertTrue(again.keys in allowed, "$what: ${again.keys}")
                assertEquals(again.keys.map { TIMES[it] }, again.taps.map { it.at }, what)
                if (!hasEnded) assertEquals(allowed.last(), again.keys, what)
                again.add("40")
                assertEquals("40", opened().keys.last(), what)
                again.clear()
                assertEquals(emptyList<String>(), root.list()!!.toList(), what)
                if (!hasEnded) break
            }
        }
    }

    @Test
    fun `a process that ends leaves the taps of before or those of after`() {
        everyStep(linkedSetOf(listOf("10", "20"), listOf("10", "20", "30"))) { it.add("30", 3.5) }
        everyStep(linkedSetOf(listOf("10", "20"), listOf("20"))) { it.remove("10") }
        everyStep(linkedSetOf(listOf("10", "20"), emptyList())) { it.clear() }
    }

    @Test
    fun `a file of something else is refused and left as it is, until it is wiped`() {
        val contents = listOf(
            "", "not JSON", "[1]", "{}", """{"format":"ondevice-bundle"}""",
            """{"format":"ondevice-history","format_version":3,"keys":[],"times":[]}""",
            """{"format":"ondevice-history","format_version":1}""",
            """{"format":"ondevice-history","format_version":1,"keys":[10]}""",
            """{"format":"ondevice-history","format_version":2,"keys":[]}""",
            """{"format":"ondevice-history","format_version":2,"times":[]}""",
            """{"format":"ondevice-history","format_version":2,"keys":["10","20"],"times":[1]}""",
            """{"format":"ondevice-history","format_version":2,"keys":["10"],"times":["1"]}""",
            """{"format":"ondevice-history","format_version":2,"keys":["10"],"times":[1e999]}""",
            """{"format":"ondevice-history","format_version":2,"keys":[10],"times":[1]}""",
        )
        for (content in contents) {
            file.writeText(content)
            val error = assertThrows(BundleError.BadHistory::class.java, { opened() }, content)
            assertTrue(error.message!!.startsWith("taps.json is no history that this app wrote: "), error.message)
            assertFalse("\n" in error.message!!)
            assertEquals(content, file.readText())
        }
        History.wipe(file)
        assertEquals(emptyList<String>(), opened().keys)
        file.mkdirs()
        assertThrows(BundleError.BadHistory::class.java) { opened() }
    }

    @Test
    fun `threads wait for each other`() {
        val history = opened()
        val threads = List(8) { number -> thread { repeat(20) { history.add("$number-$it") } } }
        threads.forEach { it.join() }
        assertEquals(160, history.keys.toSet().size)
        assertEquals(history.keys, opened().keys)
    }

    @Test
    fun `what cannot be written changes nothing`() {
        val history = opened()
        history.add("10")
        File(root, "taps.json.part/in the way").mkdirs()
        assertThrows(java.io.IOException::class.java) { history.add("20") }
        assertEquals(listOf("10"), history.keys)
        assertEquals(listOf("10"), opened().keys)
    }

    private companion object {
        /** When the taps of [everyStep] were. */
        val TIMES = mapOf("10" to 1.5, "20" to 2.5, "30" to 3.5)
    }
}
