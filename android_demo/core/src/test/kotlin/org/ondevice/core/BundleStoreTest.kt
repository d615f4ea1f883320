package org.ondevice.core

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.File
import java.io.IOException

/** Does not wait for the storage, which takes most of a test's time. */
internal open class QuickDisk : Disk() {
    override fun syncTree(directory: File) = Unit
    override fun syncDirectory(directory: File) = Unit
}

/** Damage, failed starts and full storage; `BundleStoreKillTest` ends the process. */
class BundleStoreTest {
    @TempDir
    lateinit var root: File

    private val events = ArrayList<String>()
    private val runtime = FakeRuntime()

    /** A process of the app, which ships the bundle `ours` with the text [shipped] in place of its program. */
    private fun started(shipped: String? = null): ModelLibrary {
        val bundles = if (shipped == null) ShippedBundles.NONE else TestShipped(mapOf("ours" to shipped))
        val store = BundleStore(root, bundles, { event, _ -> events.add(event) }, QuickDisk())
        return ModelLibrary(store, runtime).apply { prepare() }
    }

    private fun program(name: String = "ours") = File(root, "$name/model.pte").readText()

    private fun ModelLibrary.replace(program: String) = install("ours") { TestBundle.write(it, program) }

    private fun ModelLibrary.start() = open("ours").use { assertTrue(it.recommend(mapOf("user" to 7)).isNotEmpty()) }

    private fun hidden() = root.list()!!.filter { it.startsWith('.') && !it.startsWith(".state-") }.sorted()

    @Test
    fun `bundles of the app are put to use, once`() {
        val library = started("v1")
        assertEquals(listOf("ours"), library.store.names())
        assertEquals("v1", program())
        library.replace("mine")
        assertEquals("mine", program())
        started("v1")
        assertEquals("mine", program())
        started("v2")
        assertEquals("v2", program())
    }

    @Test
    fun `the bundle before stays until the new one has been started`() {
        val library = started("v1")
        library.start()
        assertEquals(emptyList<String>(), hidden())
        library.replace("mine")
        assertEquals("v1", program(".previous-ours"))
        library.replace("mine again")
        assertEquals("v1", program(".previous-ours"), "of three the one that was started")
        library.start()
        assertEquals("mine again", program())
        assertEquals(emptyList<String>(), hidden())
        assertEquals(emptyList<String>(), events)
    }

    @Test
    fun `a bundle that fails its first start gives way`() {
        val library = started("v1")
        library.replace("mine")
        runtime.offset = 0.5f
        assertThrows(BundleError.WrongAnswer::class.java) { library.start() } // the one before fails as well
        runtime.offset = 0f
        assertEquals("v1", program())
        assertTrue("could not be started" in events.single(), events.single())
        library.start()
        assertEquals(emptyList<String>(), hidden())
    }

    @Test
    fun `too little memory is not the bundle's fault`() {
        val library = started("v1")
        library.replace("mine")
        for (failure in listOf(OutOfMemoryError(), BundleError.OutOfMemory(OutOfMemoryError()), IOException())) {
            runtime.failure = failure
            assertThrows(failure.javaClass) { library.start() }
        }
        runtime.failure = null
        started("v1").start()
        assertEquals("mine", program())
    }

    @Test
    fun `a bundle in whose first start the app ended gives way, and is not taken from the app again`() {
        started("v1").start()
        val library = started("v2")
        assertThrows(Ended::class.java) { library.store.start("ours") { throw Ended() } }
        val file = File(root, ".state-ours")
        file.writeText(file.readText().replace("\"starting\":null", "\"starting\":\"${library.store.info("ours").manifest.id}\""))
        started("v2").start()
        assertEquals("v1", program())
        assertTrue(events.any { "ended while" in it }, events.toString())
        started("v2").start()
        assertEquals("v1", program())
        started("v3").start()
        assertEquals("v3", program())
    }

    @Test
    fun `a bundle that is refused leaves the old one`() {
        val library = started("v1")
        val seen = ArrayList<String>()
        assertThrows(BundleError.WrongAnswer::class.java) {
            library.store.install("ours", { TestBundle.write(it, "new") }) {
                seen.add(program())
                throw BundleError.WrongAnswer("no")
            }
        }
        assertEquals(listOf("v1"), seen)
        assertEquals("v1", program())
        assertEquals(emptyList<String>(), hidden())
    }

    /** Every way in which a file is damaged, for every file of a bundle. */
    private fun damages(name: String = "ours"): List<Pair<String, () -> Unit>> =
        listOf("manifest.json", "model.pte", "vocabulary.bin", TestBundle.CATALOG).flatMap { fileName ->
            val file = File(root, "$name/$fileName")
            listOf(
                "$fileName gone" to { assertTrue(file.delete()) },
                "$fileName emptied" to { file.writeBytes(ByteArray(0)) },
                "$fileName cut" to { file.writeBytes(file.readBytes().let { it.copyOf(it.size / 2) }) },
                "$fileName longer" to { file.appendBytes(ByteArray(1)) },
                "$fileName changed" to { file.writeBytes(file.readBytes().also { it[it.size / 2] = (it[it.size / 2] + 1).toByte() }) },
                "$fileName a directory" to { assertTrue(file.delete() && file.mkdir()) },
            )
        } + ("everything gone" to { assertTrue(File(root, name).deleteRecursively() && File(root, name).mkdir()) })

    @Test
    fun `damage to any file is mended from the app`() {
        for ((what, damage) in damages()) {
            started("v1")
            damage()
            val library = started("v1")
            library.start()
            assertEquals("v1", program(), what)
            assertTrue("copied from the app again" in events.single(), what)
            events.clear()
            damage()
            library.start() // also of a process that goes on
            assertEquals(1, events.size, what)
            assertEquals(emptyList<String>(), hidden(), what)
            root.deleteRecursively()
            events.clear()
        }
    }

    @Test
    fun `damage to any file of a bundle on trial is mended by the one before`() {
        for ((what, damage) in damages()) {
            TestBundle.write(File(root, "ours"), "old")
            val library = started()
            library.start()
            library.replace("mine")
            damage()
            started().start()
            assertEquals("old", program(), what)
            assertTrue("the bundle before it" in events.single(), what)
            root.deleteRecursively()
            events.clear()
        }
    }

    @Test
    fun `a damaged bundle of the user's gives way to the app's, on trial to the one before`() {
        for ((what, damage) in damages()) {
            started("v1").replace("mine")
            damage()
            started("v1").start()
            assertEquals("v1", program(), what)
            val library = started("v1")
            library.replace("mine")
            library.start()
            damage()
            started("v1").start()
            assertEquals("v1", program(), what)
            root.deleteRecursively()
            events.clear()
        }
    }

    @Test
    fun `damage to the one before is no harm, and it is not put back`() {
        for ((what, damage) in damages(".previous-ours")) {
            val library = started("v1")
            library.start()
            library.replace("mine")
            damage()
            runtime.offset = 0.5f
            assertThrows(BundleError.WrongAnswer::class.java, { library.start() }, what)
            runtime.offset = 0f
            assertEquals("mine", program(), what)
            started("v1").start()
            assertEquals("mine", program(), what)
            assertEquals(emptyList<String>(), hidden(), what)
            root.deleteRecursively()
        }
    }

    @Test
    fun `without another bundle the damage is told`() {
        TestBundle.write(File(root, "ours"))
        val library = started()
        File(root, "ours/vocabulary.bin").writeText("")
        assertThrows(BundleError.WrongHash::class.java) { library.open("ours") }
        assertThrows(BundleError.WrongHash::class.java) { library.store.info("ours") }
        assertThrows(BundleError.MissingFile::class.java) { library.open("none") }
    }

    @Test
    fun `a damaged state keeps what is there`() {
        for (text in listOf("", "{", "[]", "{\"current\":1}")) {
            started("v1").replace("mine")
            File(root, ".state-ours").writeText(text)
            val library = started("v1")
            library.start()
            assertEquals("mine", program(), text)
            root.deleteRecursively()
        }
    }

    @Test
    fun `what is listed is not read`() {
        val library = started("v1")
        assertEquals("test", library.store.info("ours").manifest.name)
        File(root, "ours/model.pte").writeText("v0") // of the same size
        assertEquals(2, library.store.info("ours").programBytes)
        assertEquals(emptyList<String>(), events)
        File(root, "ours/model.pte").writeText("")
        assertEquals(2, library.store.info("ours").programBytes)
        assertEquals("v1", program())
    }

    @Test
    fun `a full storage leaves the old bundle`() {
        TestBundle.write(File(root, "ours"), "old")
        for (failing in 0..5) {
            var numRenames = 0
            val disk = object : QuickDisk() {
                override fun rename(from: File, to: File) {
                    if (numRenames++ == failing) throw IOException("No space left on device")
                    super.rename(from, to)
                }
            }
            val library = ModelLibrary(BundleStore(root, ShippedBundles.NONE, { event, _ -> events.add(event) }, disk), runtime)
            try {
                library.replace("new")
            } catch (error: IOException) {
                assertEquals("No space left on device", error.message)
            }
            val now = program()
            library.start()
            started().start()
            assertEquals(now, program())
            assertEquals(if (failing < 3) "old" else "new", now, "rename $failing")
            library.replace("old")
            library.start()
        }
    }

    @Test
    fun `a new name is a new bundle`() {
        val library = started("v1")
        library.install("more") { TestBundle.write(it) }
        assertEquals(listOf("more", "ours"), library.store.names())
        assertEquals("test", library.store.open("more").manifest.name)
        assertFalse(File(root, ".previous-more").exists())
    }

    @Test
    fun `names cannot lead out of the store`() {
        val store = BundleStore(root)
        for (name in listOf("..", ".", "", "a/b", ".hidden", "x".repeat(65))) {
            assertThrows(IllegalArgumentException::class.java, { store.directory(name) }, name)
            assertThrows(IllegalArgumentException::class.java, { store.install(name, {}) {} }, name)
        }
        assertEquals(emptyList<String>(), root.list()!!.toList())
    }
}
