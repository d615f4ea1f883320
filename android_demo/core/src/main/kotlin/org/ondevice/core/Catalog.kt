package org.ondevice.core

import java.io.File

/**
 * `catalog.json`: the items to rank, in the order of `recommend`'s item_index.
 *
 * @property titles what to show for each item.
 * @property numFields item fields per item.
 */
class Catalog(val titles: List<String>, private val rows: IntArray, val numFields: Int) {
    val size: Int get() = titles.size

    /** Copies the program rows of items [from] until [until] into [target], item after item. */
    fun copyRows(from: Int, until: Int, target: LongArray) {
        for (index in from * numFields until until * numFields) target[index - from * numFields] = rows[index].toLong()
    }

    companion object {
        fun read(file: File, bundle: Bundle): Catalog {
            val items = try {
                (Json.parse(file.readText()) as? Map<*, *>)?.get("items") as? List<*>
            } catch (error: JsonError) {
                throw BundleError.BadCatalog(error.message!!, error)
            } ?: throw BundleError.BadCatalog("it has no list \"items\"")
            if (items.isEmpty()) throw BundleError.BadCatalog("it has no items")
            val numFields = bundle.manifest.itemFields.size
            val rows = IntArray(items.size * numFields)
            val titles = items.mapIndexed { index, item ->
                val values = item as? Map<*, *> ?: throw BundleError.BadCatalog("items[$index] is no object")
                @Suppress("UNCHECKED_CAST")
                val ids = bundle.encodeItem(values as Map<String, Any?>)
                ids.forEachIndexed { field, id -> rows[index * numFields + field] = id.toInt() }
                title(values, bundle.manifest.itemKey) ?: throw BundleError.BadCatalog("items[$index] has no title")
            }
            return Catalog(titles, rows, numFields)
        }

        private fun title(item: Map<*, *>, itemKey: String?): String? =
            item["title"] as? String ?: itemKey?.let { item[it] }?.toString()
    }
}
