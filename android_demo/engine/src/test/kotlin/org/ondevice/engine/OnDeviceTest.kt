package org.ondevice.engine

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import org.ondevice.core.BundleError
import org.ondevice.core.BundleStore
import org.ondevice.core.Engine
import org.ondevice.core.FakeRuntime
import org.ondevice.core.ModelBundle
import org.ondevice.core.ModelLibrary
import org.ondevice.core.ModelRuntime
import org.ondevice.core.Query
import org.ondevice.core.ScoredItem
import org.ondevice.core.Tap
import org.ondevice.core.TestNextItem
import org.ondevice.core.TestShipped
import java.io.File
import java.util.concurrent.CompletableFuture
import java.util.concurrent.CountDownLatch
import java.util.concurrent.ExecutionException
import java.util.concurrent.Executor
import java.util.concurrent.Executors
import java.util.concurrent.TimeUnit
import kotlin.coroutines.Continuation
import kotlin.coroutines.EmptyCoroutineContext
import kotlin.coroutines.startCoroutine

/** The facade without Android: over a fake runtime, with a thread in place of the main one. */
class OnDeviceTest {
    @TempDir
    lateinit var root: File

    private val main = Executors.newSingleThreadExecutor { Thread(it, "main-of-the-test") }
    private val profile = mapOf("user" to 8, "zip" to "H2X")
    private val runtime = FakeRuntime()

    private fun library(runtime: ModelRuntime = this.runtime) =
        ModelLibrary(BundleStore(root, TestShipped(mapOf("ours" to "v1", "other" to "v2"))), runtime)

    private class Answer<T> : Callback<T> {
        val future = CompletableFuture<T>()
        lateinit var thread: String

        override fun onResult(result: T) {
            thread = Thread.currentThread().name
            future.complete(result)
        }

        override fun onError(error: Throwable) {
            thread = Thread.currentThread().name
            future.completeExceptionally(error)
        }

        fun get(): T = try {
            future.get(10, TimeUnit.SECONDS)
        } catch (error: ExecutionException) {
            throw error.cause!!
        }
    }

    private fun open(library: ModelLibrary = library(), name: String = "ours"): OnDevice =
        Answer<OnDevice>().also { OnDevice.open(library, name, main, main, it) }.get()

    private fun <T> await(block: suspend () -> T): T {
        val future = CompletableFuture<T>()
        block.startCoroutine(
            Continuation(EmptyCoroutineContext) { it.fold(future::complete, future::completeExceptionally) },
        )
        return try {
            future.get(10, TimeUnit.SECONDS)
        } catch (error: ExecutionException) {
            throw error.cause!!
        }
    }

    @Test
    fun `new items that cannot be taken are refused, and the model goes on`() {
        open().use { model ->
            val file = File(root, "new.json").also { it.writeText("[]") }
            assertThrows(BundleError.BadNewItems::class.java) { await { model.takeItems(file) } }
            val answer = Answer<Unit>().also { model.takeItems(file, it) }
            assertThrows(BundleError.BadNewItems::class.java) { answer.get() }
            assertEquals(2, await { model.recommend(profile, Query(2)) }.size)
        }
    }

    @Test
    fun `callbacks and coroutines get the same answers`() {
        open().use { model ->
            assertEquals(6, model.numItems)
            assertEquals("test", model.info.manifest.name)
            val callback = Answer<List<ScoredItem>>()
            model.recommend(profile, Query(3), callback)
            val best = callback.get()
            assertEquals("main-of-the-test", callback.thread)
            assertEquals(best.map { it.key to it.score }, await { model.recommend(profile, Query(3)) }.map { it.key to it.score })
            val items = listOf(mapOf("film" to 30), mapOf("film" to 999))
            val scores = Answer<FloatArray>().also { model.rank(profile, items, it) }.get().toList()
            assertEquals(scores, await { model.rank(profile, items) }.toList())
            val row = profile + items.first()
            assertEquals(scores.first(), Answer<Float>().also { model.score(row, it) }.get())
            assertEquals(scores.first(), await { model.score(row) })
        }
    }

    @Test
    fun `taps and the present moment reach the model`() {
        TestNextItem.write(File(root, "next"), gaps = "until")
        open(name = "next").use { model ->
            val taps = listOf(Tap("10", 100.0), Tap("20", 103.0))
            val expected = TestNextItem.ranked(listOf(10, 20), listOf(0, 3, 2)).take(3).map { it.first.toString() to it.second }
            val callback = Answer<List<ScoredItem>>().also { model.recommend(taps, 104.0, Query(3), it) }
            assertEquals(expected, callback.get().map { it.key to it.score })
            assertEquals(expected, await { model.recommend(taps, 104.0, Query(3)) }.map { it.key to it.score })
            val keys = expected.map { it.first }
            val scores = Answer<FloatArray>().also { model.rank(taps, keys, 104.0, it) }.get().toList()
            assertEquals(expected.map { it.second }, scores)
            assertEquals(scores, await { model.rank(taps, keys, 104.0) }.toList())
            assertThrows(BundleError.InvalidInput::class.java) { await { model.recommend(listOf("10", "20"), Query(3)) } }
        }
    }

    @Test
    fun `errors come back in both ways, and the model stays open`() {
        open().use { model ->
            val wrong = mapOf("userId" to 8)
            assertThrows(BundleError.InvalidInput::class.java) { await { model.recommend(wrong) } }
            val callback = Answer<List<ScoredItem>>()
            model.recommend(wrong, Query(), callback)
            assertThrows(BundleError.InvalidInput::class.java) { callback.get() }
            assertEquals("main-of-the-test", callback.thread)
            assertEquals(6, await { model.recommend(profile) }.size)
        }
    }

    @Test
    fun `a model that cannot be opened says why`() {
        assertThrows(BundleError.MissingFile::class.java) { open(name = "none") }
        val broken = library(FakeRuntime(offset = 0.5f))
        assertThrows(BundleError.WrongAnswer::class.java) { open(ModelLibrary(BundleStore(File(root, "empty"), TestShipped(mapOf("ours" to "v1"))), FakeRuntime(offset = 0.5f))) }
        assertThrows(BundleError.WrongAnswer::class.java) { open(broken) }
    }

    @Test
    fun `closing waits for what was asked before, and refuses what comes later`() {
        val model = open()
        val answers = List(20) { Answer<List<ScoredItem>>().also { model.recommend(profile, Query(), it) } }
        model.close()
        model.close()
        answers.forEach { assertEquals(6, it.get().size) }
        assertThrows(BundleError.EngineFailure::class.java) { await { model.recommend(profile) } }
        val late = Answer<List<ScoredItem>>()
        model.recommend(profile, Query(), late)
        assertThrows(BundleError.EngineFailure::class.java) { late.get() }
        val deadline = System.nanoTime() + 10_000_000_000
        while (runtime.numOpen > 0 && System.nanoTime() < deadline) Thread.sleep(1)
        assertEquals(0, runtime.numOpen)
    }

    @Test
    fun `a model that computes does not keep another waiting`() {
        val isComputing = CountDownLatch(1)
        val goOn = CountDownLatch(1)
        val slow = object : ModelRuntime by runtime {
            override fun load(bundle: ModelBundle, numThreads: Int): Engine {
                val engine = runtime.load(bundle, numThreads)
                if (bundle.program.readText() != "v1") return engine
                return object : Engine by engine {
                    override fun rank(context: LongArray, items: LongArray): FloatArray {
                        isComputing.countDown()
                        assertTrue(goOn.await(10, TimeUnit.SECONDS))
                        return engine.rank(context, items)
                    }
                }
            }
        }
        val library = library(slow)
        open(library).use { first ->
            open(library, "other").use { second ->
                val waiting = Answer<List<ScoredItem>>().also { first.recommend(profile, Query(), it) }
                assertTrue(isComputing.await(10, TimeUnit.SECONDS))
                assertEquals(6, await { second.recommend(profile) }.size)
                assertFalse(waiting.future.isDone)
                goOn.countDown()
                assertEquals(6, waiting.get().size)
            }
        }
    }
}
