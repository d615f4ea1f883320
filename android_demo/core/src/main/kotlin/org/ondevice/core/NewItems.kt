package org.ondevice.core

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.pow

/**
 * Items that the training of a bundle did not know, ranked by their attributes.
 *
 * The score of such an item is a combination of the scores of a few items that the program has: the file
 * `item_attributes.safetensors`, which an export writes beside the bundle, says of which, and what each counts for each
 * value of an attribute. So the program stays as it is, and is asked for those items once.
 */
public class NewItems private constructor(
    internal val keys: List<String>,
    private val titles: List<String>,
    internal val places: IntArray,
    internal val coefficients: List<FloatArray>,
) {
    public val size: Int get() = keys.size

    internal fun title(index: Int) = titles[index].ifEmpty { keys[index] }

    /** Scores of the new items, given those of the bundle's items at [places]. */
    internal fun scores(known: FloatArray) = FloatArray(size) { item ->
        var sum = 0.0
        coefficients[item].forEachIndexed { index, share -> sum += share.toDouble() * known[index] }
        sum.toFloat()
    }

    public companion object {
        /** The file of a bundle's directory that says what attributes are worth. */
        public const val ATTRIBUTES: String = "item_attributes.safetensors"
        private const val FORMAT = "ondevice.item_attributes.1"
        private const val ITEMS_FORMAT = "ondevice.new_items.1"
        private const val TITLE = "title"
        private const val MAX_HEADER_BYTES = 16L shl 20

        /** What a known value of several counts, by how they are joined: so many to the power of minus this. */
        private val POWERS = mapOf("mean" to 1.0, "sum" to 0.0, "sqrt" to 0.5)

        /**
         * New [items] for [bundle]: of each its key, its attributes and perhaps its `title`.
         *
         * @throws BundleError.BadNewItems if the bundle has no attributes beside it, or an item has no key, one that is
         *   known already, or no attribute that the model knows.
         */
        @JvmStatic
        @Throws(BundleError::class)
        public fun of(bundle: ModelBundle, items: List<Map<String, Any?>>): NewItems {
            val attributes = Attributes.read(bundle)
            val position = bundle.manifest.catalogField ?: throw BundleError.BadNewItems("the model ranks no items by their keys")
            val keyField = bundle.manifest.fields[position]
            val allowed = listOf(keyField.name, TITLE) + attributes.columns.map { it.field.name }
            val keys = LinkedHashSet<String>()
            val coefficients = items.mapIndexed { index, item ->
                for (name in item.keys) {
                    if (name in allowed) continue
                    val near = Names.nearest(name, allowed)
                    val hint = if (near == null) "" else "did you mean \"$near\"? "
                    throw BundleError.BadNewItems("\"$name\" is no attribute (${hint}choose from: ${allowed.joinToString()})")
                }
                val key = keyField.canonicalText(item[keyField.name])
                    ?: throw BundleError.BadNewItems("item ${index + 1} has no key; give it a value of \"${keyField.name}\"")
                if (bundle.vocabulary.indexOf(position, key) >= 0 || !keys.add(key)) {
                    throw BundleError.BadNewItems("item \"$key\" is in the bundle already, or twice in the list")
                }
                attributes.coefficients(item) ?: throw BundleError.BadNewItems(
                    "item \"$key\" has no attribute that the model knows; give " +
                        attributes.columns.joinToString { it.field.name },
                )
            }
            return NewItems(keys.toList(), items.map { it[TITLE]?.toString().orEmpty() }, attributes.places, coefficients)
        }

        /**
         * The new items in a [file] that was written for [bundle].
         *
         * @throws BundleError.BadNewItems if it is no such file, or was written for another model.
         */
        @JvmStatic
        @Throws(BundleError::class)
        public fun read(bundle: ModelBundle, file: File): NewItems {
            if (!file.isFile) throw BundleError.BadNewItems("there is no file ${file.name}")
            val content = parsed(file.readText(), file.name) as? Map<*, *>
            if (content?.get("format") != ITEMS_FORMAT) {
                throw BundleError.BadNewItems("${file.name} is no file of new items ($ITEMS_FORMAT)")
            }
            checkBelongs(file.name, content["model"], bundle)
            val items = content["items"] as? List<*> ?: throw BundleError.BadNewItems("${file.name} has no list of items")
            return of(
                bundle,
                items.map { item ->
                    @Suppress("UNCHECKED_CAST") // names in JSON are texts
                    item as? Map<String, Any?> ?: throw BundleError.BadNewItems("${file.name}: an item is no object")
                },
            )
        }

        private fun parsed(text: String, file: String) = try {
            Json.parse(text)
        } catch (error: JsonError) {
            throw BundleError.BadNewItems("$file is damaged (${error.message})", error)
        }

        private fun checkBelongs(file: String, digest: Any?, bundle: ModelBundle) {
            if (digest != bundle.manifest.files.first { it.name == BundleManifest.PROGRAM }.sha256) {
                throw BundleError.BadNewItems("$file belongs to another model than \"${bundle.directory.name}\"")
            }
        }
    }

    /** An attribute with the rows of its known values. */
    private class AttributeColumn(val field: Field, val power: Double, val rows: Map<String, Int>)

    /** What a bundle's attributes are worth: [table] has a row of [places] numbers for each known value of all of them. */
    private class Attributes(val columns: List<AttributeColumn>, val places: IntArray, private val table: FloatArray) {
        /** What each of [places] counts for [item]; null where no value of it is known. */
        fun coefficients(item: Map<String, Any?>): FloatArray? {
            val sum = DoubleArray(places.size)
            var isKnown = false
            for (column in columns) {
                val raw = item[column.field.name]
                val rows = column.field.canonicalTexts(raw).mapNotNull { column.rows[it] }
                if (rows.isEmpty()) continue
                isKnown = true
                val share = rows.size.toDouble().pow(-column.power)
                for (row in rows) for (place in places.indices) sum[place] += share * table[row * places.size + place]
            }
            return if (isKnown) FloatArray(places.size) { sum[it].toFloat() } else null
        }

        companion object {
            fun read(bundle: ModelBundle): Attributes {
                val file = File(bundle.directory, ATTRIBUTES)
                if (!file.isFile) {
                    throw BundleError.BadNewItems("the bundle takes none, since it has no $ATTRIBUTES beside it")
                }
                val data = ByteBuffer.wrap(file.readBytes()).order(ByteOrder.LITTLE_ENDIAN)
                val size = if (data.remaining() < Long.SIZE_BYTES) -1 else data.getLong()
                if (size !in 2..minOf(MAX_HEADER_BYTES, data.remaining().toLong())) damaged("it has no header")
                val header = ByteArray(size.toInt()).also { data.get(it) }.decodeToString()
                val content = data.slice().order(ByteOrder.LITTLE_ENDIAN)
                try {
                    val entries = JsonObject(parsed(header, ATTRIBUTES) as? Map<*, *> ?: damaged("it has no header"), "")
                    val described = entries.child("__metadata__")
                    if (described.stringOrNull("format") != FORMAT) damaged("its format is not $FORMAT")
                    checkBelongs(ATTRIBUTES, described.string("model"), bundle)
                    val numPlaces = size(entries.child("places"), "I32", 1)[0]
                    val (numValues, width) = size(entries.child("coefficients"), "F32", 2)
                    if (width != numPlaces) damaged("$width numbers for $numPlaces items")
                    val ints = bytes(content, entries.child("places"), numPlaces).asIntBuffer()
                    val places = IntArray(numPlaces) { ints.get(it) }
                    val numKeys = bundle.manifest.catalogField?.let { bundle.vocabulary.numKeys(it) } ?: 0
                    if (places.any { it !in 0 until numKeys }) damaged("it names an item that the bundle has not")
                    val floats = bytes(content, entries.child("coefficients"), numValues * width).asFloatBuffer()
                    val table = FloatArray(numValues * width) { floats.get(it) }
                    val columns = columns(described.string("fields"))
                    if (columns.sumOf { it.rows.size } != numValues) damaged("it has $numValues values")
                    return Attributes(columns, places, table)
                } catch (error: BundleError.BadManifest) {
                    throw BundleError.BadNewItems("$ATTRIBUTES is damaged (${error.detail})", error)
                }
            }

            private fun columns(text: String): List<AttributeColumn> {
                val list = mapOf("fields" to parsed(text, ATTRIBUTES))
                var begin = 0
                return JsonObject(list, "").objects("fields").map { json ->
                    val keys = json.list("keys").map { it.toString() }
                    val power = POWERS[json.stringOrNull("pooling") ?: "mean"] ?: damaged("an unknown pooling")
                    val rows = keys.withIndex().associate { (index, key) -> key to begin + index }
                    AttributeColumn(BundleManifest.readField(json), power, rows).also { begin += keys.size }
                }
            }

            private fun size(entry: JsonObject, dtype: String, rank: Int): List<Int> {
                val shape = entry.list("shape").map { (it as? Long)?.takeIf { size -> size in 0..Int.MAX_VALUE / 8 }?.toInt() }
                if (entry.string("dtype") != dtype || shape.size != rank || null in shape) damaged("a tensor is of another shape")
                return shape.filterNotNull()
            }

            private fun bytes(content: ByteBuffer, entry: JsonObject, count: Int): ByteBuffer {
                val offsets = entry.list("data_offsets").map { it as? Long ?: -1 }
                val isWhole = offsets.size == 2 && offsets[0] >= 0 && offsets[1] - offsets[0] == 4L * count &&
                    offsets[1] <= content.capacity()
                if (!isWhole) damaged("a tensor is cut off")
                val part = content.duplicate()
                part.position(offsets[0].toInt())
                return part.slice().order(ByteOrder.LITTLE_ENDIAN)
            }

            private fun damaged(detail: String): Nothing = throw BundleError.BadNewItems("$ATTRIBUTES is damaged ($detail)")
        }
    }
}
