package org.ondevice.core

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.BeforeEach
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.ByteArrayInputStream
import java.io.ByteArrayOutputStream
import java.io.File
import java.util.zip.ZipEntry
import java.util.zip.ZipOutputStream

class BundleZipTest {
    @TempDir
    lateinit var root: File

    @TempDir
    lateinit var elsewhere: File

    private lateinit var library: ModelLibrary

    @BeforeEach
    fun prepare() {
        library = ModelLibrary(BundleStore(root), FakeRuntime())
        TestBundle.write(File(root, "ours"), program = "old")
    }

    private fun program() = File(root, "ours/model.pte").readText()

    private fun zip(vararg entries: Pair<String, ByteArray>): ByteArray {
        val out = ByteArrayOutputStream()
        ZipOutputStream(out).use { zip ->
            for ((name, data) in entries) {
                zip.putNextEntry(ZipEntry(name))
                zip.write(data)
            }
        }
        return out.toByteArray()
    }

    private fun bundleEntries(folder: String): Array<Pair<String, ByteArray>> =
        TestBundle.write(elsewhere, program = "new").listFiles()!!.map { folder + it.name to it.readBytes() }.toTypedArray()

    private fun install(data: ByteArray) =
        library.install("ours") { BundleZip.unzip(ByteArrayInputStream(data), it) }

    @Test
    fun `a zip replaces a bundle`() {
        for (folder in listOf("", "exported/")) {
            TestBundle.write(File(root, "ours"), program = "old")
            install(zip(*bundleEntries(folder)))
            assertEquals("new", program())
            assertEquals(listOf("ours"), library.store.names())
        }
    }

    @Test
    fun `a damaged bundle leaves the old one`() {
        val entries = bundleEntries("")
        assertThrows(BundleError.MissingFile::class.java) {
            install(zip(*entries.filter { it.first != "model.pte" }.toTypedArray()))
        }
        val damaged = entries.map { if (it.first == "model.pte") it.first to "xyz".toByteArray() else it }
        assertThrows(BundleError.WrongHash::class.java) { install(zip(*damaged.toTypedArray())) }
        assertEquals("old", program())
    }

    @Test
    fun `files that are no bundle`() {
        fun refused(text: String, data: ByteArray) {
            val error = assertThrows(BundleError.BadArchive::class.java) { install(data) }
            assertTrue(text in error.message!!, error.message)
        }
        val one = "x".toByteArray()
        refused("no manifest.json", "not a zip".toByteArray())
        refused("no manifest.json", zip("model.pte" to one))
        refused("../", zip("../manifest.json" to one))
        refused("a/b/", zip("a/b/manifest.json" to one))
        refused("/etc", zip("/etc" to one))
        refused("\\", zip("..\\x" to one))
        refused("several folders", zip("a/manifest.json" to one, "b/model.pte" to one))
        refused("too many files", zip(*Array(17) { "f$it" to one }))
        val whole = zip(*bundleEntries(""))
        val cut = whole.copyOf(whole.size / 3)
        assertThrows(Exception::class.java) { install(cut) }
        assertEquals("old", program())
        assertFalse(File(root.parentFile, "manifest.json").exists())
    }

    @Test
    fun `a zip that unpacks to too much`() {
        val data = zip("manifest.json" to ByteArray(5000))
        assertThrows(BundleError.BadArchive::class.java) {
            BundleZip.unzip(ByteArrayInputStream(data), elsewhere, maxBytes = 4999)
        }
        BundleZip.unzip(ByteArrayInputStream(data), elsewhere, maxBytes = 5000)
    }
}
