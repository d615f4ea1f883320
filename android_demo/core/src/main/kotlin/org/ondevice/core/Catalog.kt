package org.ondevice.core

/** One item of a catalogue. Its values are read when they are asked for. */
public class CatalogItem internal constructor(private val catalog: Catalog, public val index: Int) {
    /** The canonical text of the item's key: what tells it from every other. */
    public val key: String get() = catalog.key(index)

    /** What to show: the title, or the key where there is none. */
    public val title: String get() = catalog.title(index)

    /** The raw value of an item field: a [Long], [Double], [Boolean] or [String], or null where it is not known. */
    public operator fun get(field: String): Any? = catalog.value(field, index)

    /** The raw values of all item fields, by name. */
    public val fields: Map<String, Any?> get() = catalog.fieldNames.associateWith { this[it] }
}

/** Says whether an item may be recommended. */
public fun interface ItemFilter {
    public fun accepts(item: CatalogItem): Boolean
}

/**
 * The items to rank: the known keys of the item's field, in the order of the program's rows, which is that of
 * `recommend`'s item_index.
 *
 * @property rows their program rows.
 */
public class Catalog private constructor(
    private val bundle: ModelBundle,
    private val keyField: Int,
    private val columns: Map<String, List<Any?>>,
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

    internal fun title(index: Int): String = columns[TITLE]?.get(index) as? String ?: key(index)

    internal fun value(field: String, index: Int): Any? = columns[field]?.get(index)

    internal companion object {
        private const val TITLE = "title"

        fun read(data: ByteArray, bundle: ModelBundle): Catalog {
            val manifest = bundle.manifest
            val keyField = manifest.catalogField ?: throw BundleError.BadCatalog("the manifest names no key_field")
            val items = try {
                (Json.parse(data.decodeToString()) as? Map<*, *>)?.get("items") as? List<*>
            } catch (error: JsonError) {
                throw BundleError.BadCatalog(error.message!!, error)
            } ?: throw BundleError.BadCatalog("it has no list \"items\"")
            val numKeys = bundle.vocabulary.numKeys(keyField)
            if (items.size != numKeys) throw BundleError.BadCatalog("it has ${items.size} items, the model knows $numKeys")
            val names = manifest.itemFields.map { manifest.fields[it].name }
            val values = items.mapIndexed { index, item ->
                item as? Map<*, *> ?: throw BundleError.BadCatalog("items[$index] is no object")
            }
            val columns = (names + TITLE).associateWith { name -> values.map { it[name] } }
            val rows = IntArray(items.size * names.size) { place ->
                val position = manifest.itemFields[place % names.size]
                val raw = columns.getValue(names[place % names.size])[place / names.size]
                bundle.vocabulary.row(position, manifest.fields[position].canonicalText(raw))
            }
            return Catalog(bundle, keyField, columns, ItemRows(rows, names.size))
        }
    }
}
