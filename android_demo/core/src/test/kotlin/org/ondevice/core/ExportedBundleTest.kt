package org.ondevice.core

import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.condition.EnabledIfSystemProperty
import java.io.File

/** Bundles that the exporter wrote: `mvn test -Dbundle.dir=DIRECTORY[:DIRECTORY...]`; without one, nothing to test. */
@EnabledIfSystemProperty(named = "bundle.dir", matches = ".+", disabledReason = "needs -Dbundle.dir=BUNDLE")
class ExportedBundleTest {
    private val bundles by lazy {
        System.getProperty("bundle.dir").split(File.pathSeparator).map { ModelBundle.open(File(it)) }
    }

    @Test
    fun `golden cases become their ids exactly`() = bundles.forEach { bundle ->
        assertTrue(bundle.manifest.golden.size >= 2)
        for (case in bundle.manifest.golden) {
            assertArrayEquals(case.ids, bundle.encode(case.raw).map { it.toInt() }.toIntArray(), case.raw.toString())
            val gaps = bundle.encodeContext(case).drop(bundle.manifest.contextColumns.size).map { it.toInt() }
            assertArrayEquals(case.gaps, gaps.toIntArray(), case.raw.toString())
        }
    }

    @Test
    fun `every known key is found at a row of its own`() = bundles.forEach { bundle ->
        val rows = HashSet<Int>()
        for (field in bundle.manifest.fields.indices) {
            for (index in 0 until bundle.vocabulary.numKeys(field)) {
                val key = bundle.vocabulary.key(field, index)
                val row = bundle.vocabulary.row(field, key)
                assertTrue(rows.add(row), "field $field, key $key: row $row again")
                assertTrue(row < bundle.manifest.numRows)
            }
        }
    }

    @Test
    fun `the catalog is in the order of the program's rows`() = bundles.forEach { bundle ->
        val catalog = bundle.readCatalog() ?: return@forEach
        val itemKey = bundle.manifest.itemKey ?: return@forEach
        val field = bundle.manifest.fields.indexOfFirst { it.name == itemKey }
        val column = bundle.manifest.itemFields.takeWhile { it != field }.sumOf { bundle.manifest.fields[it].slots }
        val rows = LongArray(catalog.size * catalog.rows.numFields)
        catalog.rows.copy(0, catalog.size, rows)
        val keyRows = List(catalog.size) { rows[it * catalog.rows.numFields + column] }
        if ("recommend" in bundle.manifest.methods) {
            assertEquals(bundle.vocabulary.numKeys(field), catalog.size)
            assertEquals(keyRows.sorted().distinct(), keyRows)
        }
    }

    @Test
    fun `new items are what Python makes of them`() = bundles.forEach { bundle ->
        val file = File(bundle.directory, "new_items.json").takeIf { it.isFile } ?: return@forEach
        val expected = JsonObject(Json.parse(File(bundle.directory, "new_items_expected.json").readText()) as Map<*, *>, "")
        val new = NewItems.read(bundle, file)
        assertEquals(expected.list("places"), new.places.map { it.toLong() })
        val rows = expected.list("coefficients")
        assertEquals(rows.size, new.size)
        rows.forEachIndexed { index, row ->
            val numbers = (row as List<*>).map { (it as Number).toFloat() }
            assertArrayEquals(numbers.toFloatArray(), new.coefficients[index], 1e-5f)
        }
    }
}
