package org.ondevice.core

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.File

class CatalogTest {
    @TempDir
    lateinit var directory: File

    private fun read(catalog: ByteArray): Catalog =
        ModelBundle.open(TestBundle.write(directory, catalog = catalog)).readCatalog()!!

    private fun rows(catalog: Catalog): List<Long> =
        LongArray(catalog.size * catalog.rows.numFields).also { catalog.rows.copy(0, catalog.size, it) }.toList()

    @Test
    fun `items with their keys, titles, values and rows`() {
        val catalog = read(TestBundle.catalog)
        assertEquals(6, catalog.size)
        assertEquals(listOf("film", "genre"), catalog.fieldNames)
        assertEquals(TestBundle.films.map { "$it" }, List(6) { catalog[it].key })
        assertEquals(TestBundle.films.map { "Film $it" }, List(6) { catalog[it].title })
        assertEquals(TestBundle.items, List(6) { catalog[it].fields })
        assertEquals("Drama", catalog[4]["genre"])
        assertEquals(null, catalog[4]["zip"])
        val bundle = ModelBundle.open(directory)
        assertEquals(TestBundle.items.flatMap { bundle.encodeItem(it).toList() }, rows(catalog))
        assertThrows(IndexOutOfBoundsException::class.java) { catalog[6] }
        assertThrows(IndexOutOfBoundsException::class.java) { catalog[-1] }
    }

    @Test
    fun `an item is found by its key, in any form`() {
        val catalog = read(TestBundle.catalog)
        for (key in listOf<Any>(20, 20L, 20.0, "20", " 20 ")) assertEquals(4, catalog.indexOf(key), key.toString())
        assertEquals(List(6) { it }, TestBundle.films.map { catalog.indexOf(it) })
        for (key in listOf<Any>(21, "", "Film 20", 20.5)) assertEquals(-1, catalog.indexOf(key), key.toString())
    }

    @Test
    fun `texts and values say the same`() {
        val genres = listOf("Drama", "Drama|War", "Épopée", "Noir", "", "Drama")
        val texts = read(CatalogWriter(6, 1).texts("genre", genres).bytes())
        val values = read(CatalogWriter(6, 1).values("genre", genres).bytes())
        assertEquals(rows(texts), rows(values))
        assertEquals(List(6) { texts[it].fields }, List(6) { values[it].fields })
        assertEquals(listOf(17L, 18L, 19L, 16L, 16L, 17L), rows(texts).filterIndexed { index, _ -> index % 2 == 1 })
    }

    @Test
    fun `without titles keys are shown, and without a column nothing is known`() {
        val catalog = read(CatalogWriter(6, 1).texts("title", listOf("A", "", "", "", "", "")).bytes())
        assertEquals(listOf("A", "30", "50", "-2", "20", "40"), List(6) { catalog[it].title })
        assertEquals(listOf(16L), rows(catalog).filterIndexed { index, _ -> index % 2 == 1 }.distinct())
        assertEquals(mapOf("film" to 30L, "genre" to null), catalog[1].fields)
    }

    @Test
    fun `values of every kind`() {
        val values = listOf(null, true, 7L, -0.5, "ü", Long.MAX_VALUE)
        val catalog = read(CatalogWriter(6, 1).values("price", values).bytes())
        assertEquals(values, List(6) { catalog[it]["price"] })
    }

    /** As a field has it whose keys its values are not. */
    @Test
    fun `raw keys of another kind have their own column`() {
        val raw = TestBundle.films.map { "$it.0" }
        val catalog = read(CatalogWriter(6, 1).texts("film", raw).bytes())
        assertEquals(raw, List(6) { catalog[it]["film"] })
        assertEquals(TestBundle.films.map { "$it" }, List(6) { catalog[it].key })
        assertEquals((7L..12L).toList(), rows(catalog).filterIndexed { index, _ -> index % 2 == 0 })
    }

    @Test
    fun `a catalog that cannot be used`() {
        fun refused(text: String, data: ByteArray, change: (MutableMap<String, Any?>) -> Unit = {}) {
            val bundle = ModelBundle.open(TestBundle.write(directory, catalog = data, change = change))
            val error = assertThrows(BundleError.BadCatalog::class.java) { bundle.readCatalog() }
            assertTrue(text in error.message!!, error.message)
        }
        fun column(form: Int) = CatalogWriter(6, 1).list(listOf("a")).byte(form)
        val whole = TestBundle.catalog
        refused("does not begin with ODC1", "{\"items\":[]}".toByteArray())
        refused("cut off after 3 bytes", "ODC".toByteArray())
        refused("un", whole.copyOf(whole.size - 3))
        refused("does not unpack to", whole + 0)
        refused("does not unpack to 3 bytes", CatalogWriter(6, 0).bytes(size = 3))
        refused("says that it unpacks to", "ODC1".toByteArray() + ByteArray(9) { -1 } + 1)
        refused("it has 5 items, the model knows 6", CatalogWriter(5, 0).bytes())
        refused("1 bytes follow", CatalogWriter(6, 0).byte(0).bytes())
        refused("\"a\" twice", CatalogWriter(6, 2).texts("a", List(6) { "" }).texts("a", List(6) { "" }).bytes())
        refused("no form 3", column(3).byte(0).bytes())
        refused("cut off", column(1).varint(9).varint(9).bytes())
        refused("not UTF-8", column(1).list(List(5) { "" }).varint(1).byte(0xff).bytes())
        refused("65535 values", column(2).varint(65535).bytes())
        refused("no JSON", column(2).varint(1).list(listOf("nil")).bytes())
        refused("neither text nor number", column(2).varint(1).list(listOf("[[7]]")).bytes())
        refused("the value 1 of 1", column(2).varint(1).list(listOf("7")).varint(1).bytes())
        refused("no key_field", whole) { it["catalog"] = null }
    }
}
