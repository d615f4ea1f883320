package org.ondevice.core

/** One item of a catalogue. Its values are read when they are asked for. */
public class CatalogItem internal constructor(private val catalog: Catalog, public val index: Int) {
    /** The canonical text of the item's key: what tells it from every other. */
    public val key: String get() = catalog.key(index)

    /** What to show: the title, or the key where there is none. */
    public val title: String get() = catalog.title(index)

    /**
     * The raw value of an item field: a [Long], [Double], [Boolean] or [String], a [List] of them where it has several,
     * or null where it is not known.
     */
    public operator fun get(field: String): Any? = catalog.value(field, index)

    /** The raw values of all item fields, by name. */
    public val fields: Map<String, Any?> get() = catalog.fieldNames.associateWith { this[it] }
}

/** Says whether an item may be recommended. */
public fun interface ItemFilter {
    public fun accepts(item: CatalogItem): Boolean
}

/** The values of all items in one field, or their titles. */
internal abstract class Column {
    abstract operator fun get(index: Int): Any?

    /** Program rows of all items in the field at [position], those of all its slots for item after item. */
    abstract fun rows(vocabulary: Vocabulary, position: Int, field: Field): IntArray
}

/** No column at all: the values are the known keys themselves. */
private class KeyColumn(private val vocabulary: Vocabulary, private val position: Int, private val field: Field) : Column() {
    override fun get(index: Int): Any = field.rawKey(vocabulary.key(position, index))

    override fun rows(vocabulary: Vocabulary, position: Int, field: Field) = vocabulary.keyRows(position)
}

private class TextColumn(private val texts: Texts) : Column() {
    override fun get(index: Int): String = texts[index]

    override fun rows(vocabulary: Vocabulary, position: Int, field: Field) =
        flat(texts.size, field.slots) { vocabulary.rows(position, field, texts[it]) }
}

/** Values of which many items have the same. */
private class ValueColumn(private val values: List<Any?>, private val places: IntArray) : Column() {
    override fun get(index: Int): Any? = values[places[index]]

    override fun rows(vocabulary: Vocabulary, position: Int, field: Field): IntArray {
        val rows = values.map { vocabulary.rows(position, field, it) }
        return flat(places.size, field.slots) { rows[places[it]] }
    }
}

/** The [slots] rows of each of [numItems], one after the other. */
private fun flat(numItems: Int, slots: Int, rows: (Int) -> IntArray): IntArray {
    val all = IntArray(numItems * slots)
    for (item in 0 until numItems) rows(item).copyInto(all, item * slots)
    return all
}

/**
 * `catalog.bin`: the items to rank. They are the known keys of the item's field, in the order of the program's rows,
 * which is that of `recommend`'s item_index.
 *
 * @property rows their program rows.
 */
public class Catalog private constructor(
    private val bundle: ModelBundle,
    private val keyField: Int,
    private val columns: Map<String, Column>,
    public val rows: ItemRows,
) {
    public val size: Int get() = rows.size

    /** Names of the item fields. */
    public val fieldNames: List<String> = bundle.manifest.itemFields.map { bundle.manifest.fields[it].name }

    /** The item at [index], from 0 until [size]. */
    public operator fun get(index: Int): CatalogItem {
        if (index !in 0 until size) throw IndexOutOfBoundsException("item $index of $size")
        return CatalogItem(this, index)
    }

    /** The place of the item with a [key], raw or canonical, or -1 where there is none. */
    public fun indexOf(key: Any): Int =
        bundle.vocabulary.indexOf(keyField, bundle.manifest.fields[keyField].keyText(key))

    internal fun key(index: Int): String = bundle.vocabulary.key(keyField, index)

    internal fun title(index: Int): String = (columns[TITLE]?.get(index) as? String)?.ifEmpty { null } ?: key(index)

    internal fun value(field: String, index: Int): Any? = columns[field]?.get(index)

    internal companion object {
        private const val MAGIC = "ODC1"
        private const val TITLE = "title"
        private const val TEXTS = 1
        private const val VALUES = 2

        fun read(data: ByteArray, bundle: ModelBundle): Catalog {
            val manifest = bundle.manifest
            val keyField = manifest.catalogField ?: corrupt("the manifest names no key_field")
            val head = ByteReader(data, Source.CATALOG)
            if (String(CharArray(4) { head.byte().toChar() }) != MAGIC) corrupt("it does not begin with $MAGIC")
            val input = head.inflated()
            val numItems = bundle.vocabulary.numKeys(keyField)
            val count = input.varint()
            if (count != numItems.toLong()) corrupt("it has ${count.toULong()} items, the model knows $numItems")

            val columns = HashMap<String, Column>()
            repeat(input.count("columns", perItem = 2)) {
                val name = input.texts(1)[0]
                if (columns.put(name, readColumn(input, numItems)) != null) corrupt("it has the column \"$name\" twice")
            }
            if (!input.isAtEnd) corrupt("${input.remaining} bytes follow the last column")
            val key = manifest.fields[keyField]
            if (key.name !in columns) columns[key.name] = KeyColumn(bundle.vocabulary, keyField, key)
            return Catalog(bundle, keyField, columns, rows(bundle, columns, numItems))
        }

        private fun readColumn(input: ByteReader, numItems: Int): Column = when (val form = input.byte()) {
            TEXTS -> TextColumn(input.texts(numItems))
            VALUES -> {
                val numValues = input.varint()
                if (numValues !in 0..input.remaining.toLong()) corrupt("${numValues.toULong()} values of a column")
                val texts = input.texts(numValues.toInt())
                val values = List(texts.size) { readValue(texts[it]) }
                val places = IntArray(numItems) {
                    val place = input.varint()
                    if (place !in values.indices) corrupt("an item has the value ${place.toULong()} of ${values.size}")
                    place.toInt()
                }
                ValueColumn(values, places)
            }
            else -> corrupt("no form $form of a column")
        }

        private fun readValue(text: String): Any? {
            val value = try {
                Json.parse(text)
            } catch (error: JsonError) {
                throw BundleError.BadCatalog("a value is no JSON: ${error.message}", error)
            }
            val parts = value as? List<*> ?: listOf(value)
            if (parts.any { it is Map<*, *> || it is List<*> }) corrupt("a value is neither text nor number")
            return value
        }

        /** A field without a column is known of no item. */
        private fun rows(bundle: ModelBundle, columns: Map<String, Column>, numItems: Int): ItemRows {
            val width = bundle.manifest.itemColumns.size
            val rows = IntArray(numItems * width)
            var place = 0
            for (position in bundle.manifest.itemFields) {
                val field = bundle.manifest.fields[position]
                val none = bundle.vocabulary.rows(position, field, null)
                val of = columns[field.name]?.rows(bundle.vocabulary, position, field)
                    ?: flat(numItems, field.slots) { none }
                for (item in 0 until numItems) {
                    of.copyInto(rows, item * width + place, item * field.slots, (item + 1) * field.slots)
                }
                place += field.slots
            }
            return ItemRows(rows, width)
        }

        private fun corrupt(detail: String): Nothing = throw BundleError.BadCatalog(detail)
    }
}
