package org.ondevice.core

import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.File
import java.io.IOException

class ModelBundleTest {
    @TempDir
    lateinit var directory: File

    private inline fun <reified T : BundleError> refused(text: String = "", change: () -> Unit = {}): T {
        change()
        val error = assertThrows(T::class.java) { ModelBundle.open(directory) }
        assertTrue(text in error.message!!, error.message)
        return error
    }

    /** Writes the manifest anew, signed, with one entry changed. */
    private fun changed(name: String, value: Any?) = TestBundle.write(directory) { it[name] = value }

    @Test
    fun `golden cases become their ids`() {
        val bundle = ModelBundle.open(TestBundle.write(directory))
        for (case in bundle.manifest.golden) {
            assertArrayEquals(case.ids.map { it.toLong() }.toLongArray(), bundle.encode(case.raw))
        }
        val raw = bundle.manifest.golden.first().raw
        assertArrayEquals(longArrayOf(1, 4), bundle.encodeContext(bundle.contextOf(raw)))
        assertArrayEquals(longArrayOf(8, 17), bundle.encodeItem(bundle.itemOf(raw)))
        assertEquals(0.0, GoldenCheck.run(bundle, FakeRuntime().load(bundle, 1), tolerance = 1e-7), 1e-7)
    }

    @Test
    fun `absent values are unknown`() {
        val bundle = ModelBundle.open(TestBundle.write(directory))
        assertArrayEquals(longArrayOf(0, 20, 20, 16), bundle.encode(emptyMap()))
    }

    @Test
    fun `what is no field, or no integer, is refused by name`() {
        val bundle = ModelBundle.open(TestBundle.write(directory))
        fun refused(text: String, encode: () -> Unit) {
            val error = assertThrows(BundleError.InvalidInput::class.java) { encode() }
            assertTrue(text in error.message!!, error.message)
        }
        refused("\"userId\" is not a context field (did you mean \"user\"? choose from: user, zip)") {
            bundle.encodeContext(mapOf("userId" to 7))
        }
        refused("\"Genre\" is not a field (did you mean \"genre\"?") { bundle.encode(mapOf("Genre" to "Drama")) }
        refused("\"film\" is not a context field (choose from: user, zip)") { bundle.encodeContext(mapOf("film" to 10)) }
        refused("\"zip\" is not an item field") { bundle.encodeItem(mapOf("zip" to "02138")) }
        refused("the field \"user\" takes numbers, not \"nobody\"") { bundle.encodeContext(mapOf("user" to "nobody")) }
        refused("the field \"film\" takes numbers, not \"1.5\"") { bundle.encodeItem(mapOf("film" to "1.5")) }
        for (unknown in listOf(null, "", "?", 6, " 6 ", 1.5, Double.NaN)) {
            assertArrayEquals(longArrayOf(0, 20), bundle.encodeContext(mapOf("user" to unknown)))
        }
        assertArrayEquals(longArrayOf(1, 20), bundle.encodeContext(mapOf("user" to " 7 ")))
    }

    @Test
    fun `sizes are those of the files, titles apart`() {
        TestBundle.write(directory)
        val info = BundleInfo.read(directory)
        assertEquals(directory.listFiles()!!.sumOf { it.length() }, info.totalBytes)
        assertEquals(File(directory, TestBundle.CATALOG).length(), info.catalogBytes)
        assertEquals(info.totalBytes, info.modelBytes + info.catalogBytes)
        assertEquals("a program".length.toLong(), info.programBytes)
        assertEquals(0, BundleInfo.read(TestBundle.write(File(directory, "plain"), catalog = null)).catalogBytes)
    }

    @Test
    fun `what a bundle says of itself is read without reading its files`() {
        TestBundle.write(directory)
        File(directory, "model.pte").writeText("b program")
        assertEquals("test", BundleInfo.read(directory).manifest.name)
        File(directory, "model.pte").writeText("shorter")
        assertThrows(BundleError.WrongHash::class.java) { BundleInfo.read(directory) }
        File(directory, "model.pte").delete()
        assertThrows(BundleError.MissingFile::class.java) { BundleInfo.read(directory) }
    }

    @Test
    fun `a file that is missing`() {
        for (name in listOf("manifest.json", "model.pte", "vocabulary.bin", TestBundle.CATALOG)) {
            TestBundle.write(directory)
            val error = refused<BundleError.MissingFile>(name) { File(directory, name).delete() }
            assertEquals(name, error.file)
        }
    }

    @Test
    fun `a file of the same size with another byte`() {
        for (name in listOf("model.pte", "vocabulary.bin", TestBundle.CATALOG)) {
            TestBundle.write(directory)
            val file = File(directory, name)
            val data = file.readBytes()
            data[data.size - 1] = (data.last() + 1).toByte()
            file.writeBytes(data)
            assertEquals(name, refused<BundleError.WrongHash>("damaged").file)
        }
    }

    @Test
    fun `a file that is longer`() {
        TestBundle.write(directory)
        refused<BundleError.WrongHash>("model.pte") { File(directory, "model.pte").appendText("x") }
    }

    @Test
    fun `a manifest changed after it was signed`() {
        TestBundle.write(directory)
        val file = File(directory, "manifest.json")
        file.writeText(file.readText().replace("\"name\":\"test\"", "\"name\":\"tent\""))
        assertEquals("manifest.json", refused<BundleError.WrongHash>().file)
    }

    @Test
    fun `a manifest that is no JSON`() {
        TestBundle.write(directory)
        refused<BundleError.BadManifest>("character") { File(directory, "manifest.json").writeText("{\"sha256\":") }
        refused<BundleError.BadManifest>("JSON object") { File(directory, "manifest.json").writeText("[]") }
        refused<BundleError.BadManifest>("format") { File(directory, "manifest.json").writeText("{}") }
    }

    @Test
    fun `a manifest whose first entry is not its hash`() {
        TestBundle.write(directory)
        val values = TestBundle.manifest + ("files" to emptyMap<String, Any>())
        refused<BundleError.BadManifest>("first entry") { File(directory, "manifest.json").writeText(Json.write(values)) }
    }

    @Test
    fun `a newer format is named before anything else is read`() {
        TestBundle.write(directory)
        val text = "{\"format\":\"ondevice-bundle\",\"format_version\":4}"
        val error = refused<BundleError.NewerFormat>("Update the app") { File(directory, "manifest.json").writeText(text) }
        assertEquals(4L, error.found)
    }

    @Test
    fun `an older format must be exported again`() {
        refused<BundleError.BadManifest>("format version 2. Export the bundle again.") { changed("format_version", 2) }
    }

    @Test
    fun `entries of the manifest that cannot be`() {
        refused<BundleError.BadManifest>("num_rows") { changed("num_rows", -1) }
        refused<BundleError.BadManifest>("labels names \"age\"") { changed("labels", mapOf("age" to mapOf("1" to "young"))) }
        refused<BundleError.BadManifest>("num_rows is missing") { changed("num_rows", null) }
        refused<BundleError.BadManifest>("methods is empty") { changed("methods", emptyMap<String, Any>()) }
        refused<BundleError.BadManifest>("ops must be a list") { changed("ops", "all") }
        refused<BundleError.BadManifest>("two golden") { changed("golden", emptyList<Any>()) }
        refused<BundleError.BadManifest>("files has no model.pte") { changed("files", emptyMap<String, Any>()) }
        refused<BundleError.BadManifest>("files names") {
            changed("files", mapOf("../model.pte" to mapOf("bytes" to 1, "sha256" to "0".repeat(64))))
        }
        refused<BundleError.BadManifest>("golden id") {
            changed("golden", List(2) { mapOf("raw" to emptyMap<String, Any>(), "ids" to listOf(0, 0, 0, 21), "score" to 0.5) })
        }
        refused<BundleError.BadManifest>("methods.rank does not take the schema's fields") {
            @Suppress("UNCHECKED_CAST")
            val rank = TestBundle.methods()["rank"] as Map<String, Any?>
            @Suppress("UNCHECKED_CAST")
            changed("methods", mapOf("rank" to rank + ("inputs" to (rank["inputs"] as List<Any>).take(1))))
        }
    }

    @Test
    fun `the origin of a transform`() {
        fun fields(entry: Map<String, Any?>) = mapOf(
            "fields" to listOf("a", "b", "c").map { mapOf("name" to it, "side" to "item", "kind" to "string") } +
                (mapOf("name" to "t", "side" to "context", "kind" to "integer", "transform" to "log_bucket") + entry),
        )
        val golden = List(2) { mapOf("raw" to emptyMap<String, Any>(), "ids" to listOf(20, 20, 20, 16), "score" to 0) }
        fun bucket(entry: Map<String, Any?>): String? {
            TestBundle.write(directory) { values ->
                values["schema"] = fields(entry)
                values["methods"] = TestBundle.methods().filterKeys { it == "forward" }
                values["catalog"] = null
                values["golden"] = golden
            }
            return ModelBundle.open(directory).manifest.fields[3].canonicalText(1010)
        }
        assertEquals("47", bucket(emptyMap()))
        assertEquals("5", bucket(mapOf("origin" to 1000.0)))
        assertThrows(BundleError.BadManifest::class.java) { bucket(mapOf("origin" to null)) }
    }

    @Test
    fun `a vocabulary that was exported damaged`() {
        TestBundle.write(directory)
        File(directory, "vocabulary.bin").let { it.writeBytes(it.readBytes().copyOf(30)) }
        val values = TestBundle.manifest.toMutableMap()
        values["files"] = listOf("model.pte", "vocabulary.bin").associateWith {
            val file = File(directory, it)
            mapOf("bytes" to file.length(), "sha256" to Sha256.of(file))
        }
        File(directory, "manifest.json").writeText(TestBundle.sign(values))
        refused<BundleError.TruncatedVocabulary>("30 bytes")
    }

    @Test
    fun `a bundle without a catalog`() {
        assertNull(ModelBundle.open(TestBundle.write(directory, catalog = null)).readCatalog())
    }

    @Test
    fun `a program changed after the bundle was opened`() {
        val bundle = ModelBundle.open(TestBundle.write(directory))
        File(directory, "model.pte").writeText("b program")
        assertThrows(BundleError.WrongHash::class.java) { FakeRuntime().load(bundle, 1) }
    }

    @Test
    fun `what the runtime cannot do is named`() {
        val bundle = ModelBundle.open(TestBundle.write(directory))
        Preflight.check(bundle.manifest, FakeRuntime())
        val operators = assertThrows(BundleError.UnsupportedOperators::class.java) {
            Preflight.check(bundle.manifest, FakeRuntime(operators = setOf("aten::cat.out")))
        }
        assertEquals(listOf("aten::embedding.out"), operators.operators)
        val backends = assertThrows(BundleError.UnsupportedBackends::class.java) {
            Preflight.check(bundle.manifest, FakeRuntime(backends = emptySet()))
        }
        assertTrue("no backend XnnpackBackend" in backends.message!!)
    }

    @Test
    fun `a program that answers otherwise`() {
        val bundle = ModelBundle.open(TestBundle.write(directory))
        assertThrows(BundleError.WrongAnswer::class.java) { GoldenCheck.run(bundle, FakeRuntime(offset = 0.01f).load(bundle, 1)) }
        assertThrows(BundleError.WrongAnswer::class.java) { GoldenCheck.run(bundle, FakeRuntime(offset = Float.NaN).load(bundle, 1)) }
        TestBundle.write(directory) { values ->
            @Suppress("UNCHECKED_CAST")
            val golden = values["golden"] as List<Map<String, Any?>>
            values["golden"] = golden.map { it + ("ids" to listOf(1, 1, 1, 1)) }
        }
        val wrongIds = ModelBundle.open(directory)
        assertThrows(BundleError.WrongAnswer::class.java) { GoldenCheck.run(wrongIds, FakeRuntime().load(wrongIds, 1)) }
    }

    @Test
    fun `every error has a sentence`() {
        assertTrue("memory" in BundleError.explain(OutOfMemoryError()))
        assertTrue("storage is full" in BundleError.explain(IOException("write failed: ENOSPC (No space left on device)")))
        assertTrue("read or written" in BundleError.explain(IOException()))
        assertTrue("IllegalStateException" in BundleError.explain(IllegalStateException()))
        assertEquals(
            "The model could not be run: refused (code 0x12).",
            BundleError.explain(BundleError.EngineFailure("refused", code = 0x12)),
        )
        assertEquals("The model could not be run: refused.", BundleError.explain(BundleError.EngineFailure("refused")))
    }
}
