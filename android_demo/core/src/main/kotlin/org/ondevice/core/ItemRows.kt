package org.ondevice.core

/**
 * Program rows of items, as `rank` takes them.
 *
 * Shape: (size * numFields), item after item.
 *
 * @property numFields ids of an item: one for each slot of its fields.
 */
public class ItemRows(private val rows: IntArray, public val numFields: Int) {
    init {
        require(numFields >= 1 && rows.size % numFields == 0) { "${rows.size} rows do not divide by $numFields fields" }
    }

    public val size: Int get() = rows.size / numFields

    /** Copies the rows of items [from] until [until] into [target], item after item. */
    public fun copy(from: Int, until: Int, target: LongArray) {
        for (index in from * numFields until until * numFields) target[index - from * numFields] = rows[index].toLong()
    }

    /** The rows of the items at [places]. */
    public fun at(places: IntArray): ItemRows {
        val chosen = IntArray(places.size * numFields) { rows[places[it / numFields] * numFields + it % numFields] }
        return ItemRows(chosen, numFields)
    }
}
