package org.ondevice.core

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

class NewItemsTest {
    @TempDir
    lateinit var directory: File

    /** A year before 1990 or from then on; three genres. */
    private val fields = listOf(
        mapOf("name" to "year", "side" to "item", "kind" to "number", "boundaries" to listOf(1990.0), "keys" to listOf(0, 1)),
        mapOf("name" to "genres", "side" to "item", "slots" to 3, "separator" to "|", "missing" to null, "keys" to listOf("A", "B", "C")),
    )

    /** What each value of the attributes takes of the films 30 and 60. */
    private val table = listOf(
        listOf(0.5f, 0f), listOf(0f, -1f), listOf(1f, 1f), listOf(2f, 0f), listOf(0f, 3f),
    )
    private val places = listOf(2, 5)

    private var gaps: String? = null
    private val bundle by lazy { ModelBundle.open(TestNextItem.write(File(directory, "bundle"), gaps = gaps)) }
    private val model get() = bundle.manifest.files.first { it.name == BundleManifest.PROGRAM }.sha256

    private fun attributes(
        digest: String = model,
        format: String = "ondevice.item_attributes.1",
        dtype: String = "F32",
        end: Int = 48,
        of: List<Int> = places,
        fields: List<Map<String, Any?>> = this.fields,
    ): ByteArray {
        val header = Json.write(
            mapOf(
                "__metadata__" to mapOf("format" to format, "model" to digest, "fields" to Json.write(fields)),
                "places" to mapOf("dtype" to "I32", "shape" to listOf(2), "data_offsets" to listOf(0, 8)),
                "coefficients" to mapOf("dtype" to dtype, "shape" to listOf(5, 2), "data_offsets" to listOf(8, end)),
            ),
        ).toByteArray()
        val data = ByteBuffer.allocate(8 + header.size + 48).order(ByteOrder.LITTLE_ENDIAN)
        data.putLong(header.size.toLong()).put(header)
        of.forEach { data.putInt(it) }
        table.flatten().forEach { data.putFloat(it) }
        return data.array()
    }

    private fun write(content: ByteArray = attributes()) = File(bundle.directory, NewItems.ATTRIBUTES).writeBytes(content)

    private val films = listOf(
        mapOf("film" to 901, "title" to "A New Film", "year" to 1995, "genres" to listOf("A", "B", "Z")),
        mapOf("film" to 902L, "year" to "1980"),
        mapOf("film" to "903", "genres" to "C|A|C"),
    )

    private fun opened(items: List<Map<String, Any?>> = films) =
        Recommender(bundle, FakeRuntime().load(bundle, 1), bundle.readCatalog(), NewItems.of(bundle, items))

    /** The scores of the new films after a history, from those of the films 30 and 60. */
    private fun expected(history: List<Long>, gaps: List<Long> = emptyList()): Map<String, Float> {
        val (a, b) = places.map { TestNextItem.score(history, TestNextItem.films[it], gaps) }
        return mapOf("901" to 1.5f * a - 0.5f * b, "902" to 0.5f * a, "903" to 0.5f * a + 2f * b)
    }

    @Test
    fun `new films are among the best, with their titles`() {
        write()
        for (history in listOf(emptyList(), listOf(10L, 20L))) {
            val best = opened().recommend(history, Query(TestNextItem.NUM_FILMS + 3))
            val known = TestNextItem.ranked(history).map { it.first.toString() to it.second }
            val all = (known + expected(history).toList()).sortedByDescending { it.second }
            assertEquals(all.map { it.first }, best.map { it.key })
            all.zip(best).forEach { (pair, item) -> assertEquals(pair.second, item.score, 1e-5f) }
            assertEquals("A New Film", best.first { it.key == "901" }.title)
            val untitled = best.first { it.key == "902" }
            assertEquals(listOf<Any>("902", TestNextItem.NUM_FILMS + 1), listOf(untitled.title, untitled.index))
            assertEquals(mapOf<String, Any?>("film" to 902L), untitled.fields)
            assertEquals(all.take(2).map { it.first }, opened().recommend(history, Query(2)).map { it.key })
        }
    }

    /** A new film in the history is passed over: it has no gap, and none ends at it. */
    @Test
    fun `new films are ranked by a model that reads time gaps`() {
        gaps = "until"
        write()
        val history = listOf(10L, 20L)
        val buckets = listOf(0L, 3L, 2L)
        val best = opened().recommend(listOf(Tap(10, 100.0), Tap(902, 101.0), Tap(20, 104.0)), 106.0, Query(20))
        val known = TestNextItem.ranked(history, buckets).map { it.first.toString() to it.second }
        val all = (known + (expected(history, buckets) - "902").toList()).sortedByDescending { it.second }
        assertEquals(all.map { it.first }, best.map { it.key })
        all.zip(best).forEach { (pair, item) -> assertEquals(pair.second, item.score, 1e-5f) }
    }

    @Test
    fun `new films are left out like others, and where candidates are named`() {
        write()
        val recommender = opened()
        val keys = { query: Query, history: List<Any> -> recommender.recommend(history, query).map { it.key } }
        assertTrue("901" !in keys(Query(20), listOf(901)))
        assertTrue("902" !in keys(Query(20, excluded = listOf("902")), emptyList()))
        assertEquals(setOf("10", "20"), keys(Query(20, candidates = listOf(10, 20)), emptyList()).toSet())
        assertTrue(keys(Query(20, filter = { true }), emptyList()).none { it.startsWith("9") })
    }

    @Test
    fun `a file of new items`() {
        write()
        val file = File(directory, "new.json")
        fun content(model: String = this.model) = mapOf("format" to "ondevice.new_items.1", "model" to model, "items" to films)
        file.writeText(Json.write(content()))
        val read = NewItems.read(bundle, file)
        assertEquals(NewItems.of(bundle, films).coefficients.map { it.toList() }, read.coefficients.map { it.toList() })
        fun refused(part: String, text: String) {
            file.writeText(text)
            val error = assertThrows(BundleError.BadNewItems::class.java) { NewItems.read(bundle, file) }
            assertTrue(part in error.message!!, error.message)
        }
        refused("new.json belongs to another model than \"bundle\"", Json.write(content("0".repeat(64))))
        refused("new.json is no file of new items", "[]")
        refused("new.json is damaged", "{")
        refused("an item is no object", Json.write(content() + ("items" to listOf(3))))
        file.delete()
        assertThrows(BundleError.BadNewItems::class.java) { NewItems.read(bundle, file) }
    }

    @Test
    fun `items that cannot be taken`() {
        write()
        fun refused(part: String, item: Map<String, Any?>) {
            val error = assertThrows(BundleError.BadNewItems::class.java) { NewItems.of(bundle, films + item) }
            assertTrue(part in error.message!!, error.message)
        }
        refused("item \"10\" is in the bundle already", mapOf("film" to 10, "year" to 1990))
        refused("item \"901\" is in the bundle already, or twice", mapOf("film" to 901, "year" to 1990))
        refused("item 4 has no key; give it a value of \"film\"", mapOf("year" to 1990))
        refused("has no attribute that the model knows; give year, genres", mapOf("film" to 904, "genres" to "Z"))
        refused("\"gerne\" is no attribute (did you mean \"genres\"?", mapOf("film" to 904, "gerne" to "A"))
    }

    @Test
    fun `attributes that are none, damaged, or of another model`() {
        fun refused(part: String, content: ByteArray?) {
            if (content != null) write(content)
            val error = assertThrows(BundleError.BadNewItems::class.java) { NewItems.of(bundle, films) }
            assertTrue(part in error.message!!, error.message)
        }
        refused("it has no item_attributes.safetensors", null)
        refused("belongs to another model", attributes(digest = "0".repeat(64)))
        refused("its format is not", attributes(format = "something"))
        refused("another shape", attributes(dtype = "F16"))
        refused("cut off", attributes(end = 52))
        refused("an item that the bundle has not", attributes(of = listOf(2, 8)))
        refused("it has 5 values", attributes(fields = fields.take(1)))
        refused("it has no header", byteArrayOf(1, 2, 3))
        refused("damaged", attributes().copyOf(30))
        refused("name is missing", attributes(fields = fields.map { it - "name" }))
        for (size in attributes().indices step 7) {
            write(attributes().copyOf(size))
            assertThrows(BundleError.BadNewItems::class.java) { NewItems.of(bundle, films) }
        }
    }
}
