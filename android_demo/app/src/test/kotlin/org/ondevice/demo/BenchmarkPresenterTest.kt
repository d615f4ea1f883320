package org.ondevice.demo

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertNotEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import org.ondevice.core.Json
import org.ondevice.core.MemoryUse
import java.io.File

class BenchmarkPresenterTest {
    @TempDir
    lateinit var root: File

    private val pauses = ArrayList<Long>()

    private inner class Phone(val app: App = App(root)) : PhoneFacts {
        var thermal = 0
        val presenter = BenchmarkPresenter(app.bundles, app.worker, this, root, app.log, pauses::add)

        override fun device() = mapOf("model" to "a phone")
        override fun memory() = MemoryUse(1000, null)
        override fun conditions() = Conditions(thermal++, 80, 31.5, isCharging = true, isSavingPower = false)

        fun start(vararg texts: Pair<String, String>, run: String = "R1", calls: Int = 3) = presenter.start(run) {
            val extras = mapOf("candidates" to "1,4", "threads" to "1,2") + texts
            BenchmarkRequest.read(run, extras::get) { name, default -> if (name == "calls") calls else default }
        }

        val step get() = presenter.state as BenchmarkState.Measuring
    }

    private fun json(name: String) = Json.parse(File(root, name).readText()) as Map<*, *>

    private fun measurements(name: String) =
        ((json("latency.json")["bundles"] as Map<*, *>)[name] as Map<*, *>)["measurements"] as List<*>

    private fun entry(name: String, place: Int, key: String) = (measurements(name)[place] as Map<*, *>)[key]

    @Test
    fun `bundles are measured in an order of chance, with pauses, and the phone's state beside the figures`() {
        val phone = Phone()
        phone.presenter.seen()
        phone.start()
        phone.app.worker.runAll()
        assertEquals(BenchmarkState.Done, phone.presenter.state)
        val latency = json("latency.json")
        assertEquals("R1", latency["run"])
        assertEquals(2L, latency["format_version"])
        assertEquals(emptyMap<String, String>(), latency["errors"])
        assertEquals(List(4) { 1000L }, pauses)
        for (name in listOf("int8", "ours")) {
            assertEquals(listOf(1L, 2L), measurements(name).map { (it as Map<*, *>)["num_threads"] })
            assertEquals(setOf("1", "4"), (entry(name, 0, "rank_us") as Map<*, *>).keys)
        }
        val places = listOf("int8", "ours").flatMap { name -> measurements(name).map { (it as Map<*, *>)["place"] } }
        assertEquals(setOf<Any?>(1L, 2L, 3L, 4L), places.toSet())
        val after = entry("int8", 0, "after") as Map<*, *>
        assertEquals(31.5, after["battery_celsius"])
        assertEquals((entry("int8", 0, "before") as Map<*, *>)["thermal_status"] as Long + 1, after["thermal_status"])
        assertEquals(1L, entry("int8", 0, "attempts"))
        assertEquals(0, phone.app.runtime.numOpen)
        assertFalse(File(root, "latency.json.part").exists())
    }

    @Test
    fun `the order depends on the run alone`() {
        fun order(run: String) = BenchmarkRequest.read(run, { null }) { _, default -> default }
            .steps(List(8) { "b$it" })
        assertEquals(order("A"), order("A"))
        assertNotEquals(order("A"), order("B"))
        assertEquals(24, order("A").distinct().size)
    }

    @Test
    fun `what is out of sight is measured again when it is seen`() {
        val phone = Phone()
        phone.start()
        phone.app.worker.runAll()
        assertTrue(phone.presenter.state is BenchmarkState.Stopped)
        assertEquals("it was never shown", json("benchmark.json")["why"])
        phone.presenter.seen()
        val first = phone.step
        assertEquals("measuring", json("benchmark.json")["state"])
        phone.presenter.unseen("the screen went off")
        assertEquals(BenchmarkState.Stopped(first.step, 1, 4), phone.presenter.state)
        assertEquals(listOf("stopped", "the screen went off", 1L), listOf("state", "why", "place").map { json("benchmark.json")[it] })
        phone.app.worker.runAll()
        assertTrue(phone.presenter.state is BenchmarkState.Stopped)
        assertFalse(File(root, "latency.json").exists())
        phone.presenter.seen()
        assertEquals(first, phone.step)
        phone.app.worker.runAll()
        val attempts = measurements(first.step.name).map { (it as Map<*, *>)["place"] to it["attempts"] }
        assertTrue(1L to 2L in attempts, attempts.toString())
        assertEquals(listOf<String>(), phone.app.logged)
    }

    @Test
    fun `seen again before the interrupted measuring has ended, nothing is measured twice`() {
        val phone = Phone()
        phone.presenter.seen()
        phone.start()
        phone.app.worker.runOne()
        phone.presenter.unseen("another app was in front of it")
        phone.presenter.seen()
        phone.app.worker.runAll()
        assertEquals(BenchmarkState.Done, phone.presenter.state)
        assertEquals(2, measurements("int8").size + measurements("ours").size - 2)
    }

    @Test
    fun `a bundle that is interrupted again and again is given up with a sentence`() {
        val phone = Phone()
        phone.presenter.seen()
        phone.start()
        phone.app.worker.runOne()
        val step = phone.step.step
        repeat(BenchmarkPresenter.MAX_ATTEMPTS) {
            assertEquals(step, phone.step.step)
            phone.presenter.unseen("the screen went off")
            phone.app.worker.runAll()
            phone.presenter.seen()
        }
        phone.app.worker.runAll()
        assertEquals(mapOf(step.name to BenchmarkPresenter.INTERRUPTED), json("latency.json")["errors"])
        assertEquals(1, (json("latency.json")["bundles"] as Map<*, *>).size)
    }

    @Test
    fun `a bundle that fails has its sentence, and a stack trace in the log`() {
        App(root).bundles.prepare()
        val phone = Phone(App(root, shipped = emptyMap()))
        File(root, "bundles/int8/model.pte").appendText("x")
        phone.presenter.seen()
        phone.start()
        phone.app.worker.runAll()
        val errors = json("latency.json")["errors"] as Map<*, *>
        assertTrue("is damaged" in errors["int8"].toString(), errors.toString())
        assertEquals(2, measurements("ours").size)
        assertEquals(listOf("measuring int8: WrongHash"), phone.app.logged)
    }

    @Test
    fun `what cannot be measured is said at once`() {
        val phone = Phone()
        phone.start("candidates" to "some")
        assertEquals(
            mapOf("" to "The benchmark was asked what it cannot do: candidates: \"some\" is no number"),
            json("latency.json")["errors"],
        )
        assertEquals("R1", json("latency.json")["run"])
        assertThrows(IllegalArgumentException::class.java) {
            BenchmarkRequest.read("R1", { null }) { name, default -> if (name == "calls") 0 else default }
        }
    }

    @Test
    fun `a new run ends the one before it`() {
        val phone = Phone()
        phone.presenter.seen()
        phone.start()
        phone.app.worker.runOne()
        phone.start("bundles" to "ours", run = "R2")
        phone.app.worker.runAll()
        assertEquals("R2", json("latency.json")["run"])
        assertEquals(setOf("ours"), (json("latency.json")["bundles"] as Map<*, *>).keys)
    }
}
