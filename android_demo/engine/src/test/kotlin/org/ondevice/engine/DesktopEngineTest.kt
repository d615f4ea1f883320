package org.ondevice.engine

import org.junit.jupiter.api.AfterEach
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.BeforeAll
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.condition.EnabledIfSystemProperty
import org.junit.jupiter.api.io.TempDir
import org.ondevice.core.Benchmark
import org.ondevice.core.ModelBundle
import org.ondevice.core.BundleError
import org.ondevice.core.Engine
import org.ondevice.core.GoldenCheck
import org.ondevice.core.Json
import org.ondevice.core.Recommender
import org.ondevice.core.Sha256
import org.ondevice.core.TopK
import org.pytorch.executorch.ExecutorchRuntimeException
import java.io.File

/**
 * The app's engine over the Android library of the runtime, on a desktop: `tools/desktop_engine.py BUNDLE ...`, which
 * prepares the library. The first bundle has `rank`; of further ones the golden cases are asked.
 */
@EnabledIfSystemProperty(named = "native.dir", matches = ".+", disabledReason = "run by tools/desktop_engine.py")
class DesktopEngineTest {
    @TempDir
    lateinit var directory: File

    private val directories = System.getProperty("bundle.dir").split(File.pathSeparator).map { File(it) }
    private val exported = directories.first()
    private val given = System.getProperty("tolerance").toDouble()
    private val opened = ArrayList<Engine>()

    private fun load(bundle: ModelBundle, numThreads: Int = 1): Engine =
        ExecuTorch.load(bundle, numThreads).also { opened.add(it) }

    /** A product outside XNNPACK, which scores the next item, adds up in another order in Python's build and Android's. */
    private fun tolerance(bundle: ModelBundle) = if (bundle.manifest.isNextItem) maxOf(given, LAST_PLACES) else given

    @AfterEach
    fun closeAll() = opened.forEach { it.close() }

    /** A copy of the bundle with its manifest, or its program, changed and signed anew. */
    private fun changed(program: ByteArray? = null, change: (MutableMap<String, Any?>) -> Unit = {}): ModelBundle {
        exported.copyRecursively(directory, overwrite = true)
        val manifest = File(directory, "manifest.json")
        @Suppress("UNCHECKED_CAST")
        val values = LinkedHashMap(Json.parse(manifest.readText()) as Map<String, Any?>)
        if (program != null) {
            File(directory, "model.pte").writeBytes(program)
            val entry = mapOf("bytes" to program.size, "sha256" to Sha256.of(program))
            values["files"] = (values["files"] as Map<*, *>) + ("model.pte" to entry)
        }
        change(values)
        values["sha256"] = "0".repeat(64)
        val text = Json.write(values)
        manifest.writeText(text.replaceFirst("0".repeat(64), Sha256.of(text.toByteArray())))
        return ModelBundle.open(directory)
    }

    /** Replaces one entry of a method of the manifest. */
    private fun changedMethod(method: String, name: String, value: Any?): ModelBundle = changed { values ->
        val methods = values["methods"] as Map<*, *>
        values["methods"] = methods + (method to ((methods[method] as Map<*, *>) + (name to value)))
    }

    private fun refused(code: Int?, call: () -> Unit) {
        val error = assertThrows(BundleError.EngineFailure::class.java) { call() }
        assertEquals(code, error.code, error.message)
    }

    @Test
    fun `golden cases`() {
        for (directory in directories) {
            val bundle = ModelBundle.open(directory)
            val difference = load(bundle).use { GoldenCheck.run(bundle, it, tolerance(bundle)) }
            println("${directory.name}: ${bundle.manifest.golden.size} golden cases, largest difference $difference")
        }
    }

    @Test
    fun `rank gives what forward gives`() {
        val bundle = ModelBundle.open(exported)
        val engine = load(bundle)
        val candidates = Benchmark.candidates(bundle, 2 * bundle.manifest.signature("rank").maximum + 1)
        val context = bundle.encodeContext(bundle.contextOf(bundle.manifest.golden.first().raw))
        val scores = Recommender(bundle, engine).scoreAll(context, candidates)
        val items = LongArray(candidates.size * candidates.numFields)
        candidates.copy(0, candidates.size, items)
        for (index in listOf(0, 1, candidates.size / 2, candidates.size - 1)) {
            val ids = LongArray(bundle.manifest.numColumns)
            bundle.manifest.contextColumns.forEachIndexed { from, to -> ids[to] = context[from] }
            bundle.manifest.itemColumns.forEachIndexed { from, to -> ids[to] = items[index * candidates.numFields + from] }
            assertEquals(engine.score(ids)[0], scores[index], 1e-5f)
        }
    }

    @Test
    fun `recommend gives the head of rank`() = directories.map { ModelBundle.open(it) }.forEach { bundle ->
        if ("recommend" in bundle.manifest.methods) load(bundle).use { compareWithRank(bundle, it) }
    }

    private fun compareWithRank(bundle: ModelBundle, engine: Engine) {
        val context = bundle.encodeContext(bundle.manifest.golden.last())
        val isNextItem = bundle.manifest.isNextItem
        val left = if (isNextItem) longArrayOf(3, bundle.manifest.numRows.toLong()) else LongArray(0)
        val best = engine.recommend(context, left)
        assertEquals(best.scores.sortedDescending(), best.scores.toList())
        val known = bundle.vocabulary.numKeys(bundle.manifest.catalogField!!)
        assertEquals(best.items.size, best.items.filter { it in 0 until known }.toSet().size)
        val catalog = bundle.readCatalog() ?: return
        val scores = Recommender(bundle, engine).scoreAll(context, catalog.rows)
        if (isNextItem) for (row in context.take(bundle.manifest.contextColumns.size) + left.toList()) if (row < scores.size) scores[row.toInt()] = Float.NEGATIVE_INFINITY
        val expected = TopK.of(scores, best.items.size)
        assertArrayEquals(FloatArray(expected.size) { scores[expected[it]] }, best.scores, 1e-5f)
        assertArrayEquals(best.scores, FloatArray(best.items.size) { scores[best.items[it]] }, 1e-5f)
    }

    @Test
    fun `a batch of another size after the first`() {
        val bundle = ModelBundle.open(exported)
        val engine = load(bundle)
        val row = bundle.encode(bundle.manifest.golden.first().raw)
        val one = engine.score(row)[0]
        assertArrayEquals(FloatArray(3) { one }, engine.score(row + row + row), 1e-6f)
        assertEquals(one, engine.score(row)[0])
    }

    @Test
    fun `the runtime tells what it has`() {
        assertTrue("XnnpackBackend" in ExecuTorch.backends)
        assertTrue("aten::embedding.out" in ExecuTorch.operators)
    }

    @Test
    fun `a program changed on disk`() {
        val bundle = changed()
        File(directory, "model.pte").appendText("x")
        assertThrows(BundleError.WrongHash::class.java) { load(bundle) }
        File(directory, "model.pte").delete()
        assertThrows(BundleError.MissingFile::class.java) { load(bundle) }
    }

    @Test
    fun `an operator and a backend that the runtime has not`() {
        val operator = changed { it["ops"] = listOf("demo::none.out") }
        assertThrows(BundleError.UnsupportedOperators::class.java) { load(operator) }
        val backend = changed { it["backends"] = listOf("DemoBackend") }
        assertThrows(BundleError.UnsupportedBackends::class.java) { load(backend) }
    }

    @Test
    fun `a method that the program has not`() {
        val tensor = mapOf("name" to "x", "dtype" to "int64", "shape" to listOf(1))
        val bundle = changed { values ->
            val method = mapOf("inputs" to listOf(tensor), "outputs" to listOf(tensor))
            values["methods"] = (values["methods"] as Map<*, *>) + ("other" to method)
        }
        assertThrows(BundleError.MissingMethod::class.java) { load(bundle) }
    }

    @Test
    fun `programs that are none`() {
        val whole = File(exported, "model.pte").readBytes()
        val half = whole.copyOf(whole.size / 2)
        for (program in listOf(ByteArray(0), "no program".toByteArray(), ByteArray(100_000) { 1 }, half)) {
            val bundle = changed(program)
            assertThrows(BundleError.EngineFailure::class.java, { load(bundle) }, "${program.size} bytes")
        }
    }

    @Test
    fun `more rows than the program takes`() {
        val bundle = changedMethod("rank", "max_items", 100_000)
        val engine = load(bundle)
        val items = LongArray(100_000 * bundle.manifest.itemColumns.size)
        val context = LongArray(bundle.manifest.contextWidth)
        refused(ExecutorchRuntimeException.NOT_SUPPORTED) { engine.rank(context, items) }
    }

    @Test
    fun `what the engine refuses by itself`() {
        val bundle = ModelBundle.open(exported)
        val engine = load(bundle)
        val numRows = bundle.manifest.numRows.toLong()
        val numFields = bundle.manifest.numColumns
        assertEquals(1, engine.score(LongArray(numFields) { numRows }).size)
        val outside = listOf(numRows + 1, -1L).map { id -> LongArray(numFields) { id } }
        for (ids in outside + listOf(LongArray(0), LongArray(numFields + 1))) {
            assertThrows(BundleError.InvalidInput::class.java) { engine.score(ids) }
        }
    }

    @Test
    fun `a closed program`() {
        val bundle = ModelBundle.open(exported)
        val engine = load(bundle)
        engine.close()
        engine.close()
        refused(null) { engine.score(LongArray(bundle.manifest.numColumns)) }
    }

    @Test
    fun `one number of threads at a time`() {
        val bundle = ModelBundle.open(exported)
        val first = load(bundle, 1)
        val second = load(bundle, 1)
        assertThrows(IllegalStateException::class.java) { load(bundle, 2) }
        first.close()
        assertThrows(IllegalStateException::class.java) { load(bundle, 2) }
        second.close()
        for (numThreads in listOf(2, 4, 1)) {
            load(bundle, numThreads).use { assertTrue(GoldenCheck.run(bundle, it, tolerance(bundle)) <= tolerance(bundle)) }
        }
        assertThrows(IllegalArgumentException::class.java) { load(bundle, 0) }
    }

    private companion object {
        const val LAST_PLACES = 1e-6

        /** Before any class of the runtime: it decides which C++ runtime the libraries share. */
        @BeforeAll
        @JvmStatic
        fun loadLibraries() = System.load(File(System.getProperty("native.dir"), "libpreload.so").path)
    }
}
