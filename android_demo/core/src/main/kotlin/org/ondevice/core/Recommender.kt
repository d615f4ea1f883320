package org.ondevice.core

import java.io.Closeable

/**
 * An item of a ranking.
 *
 * @property index its place in the catalogue; new items come after all of it.
 * @property key the canonical text of its key: what tells it from every other.
 * @property title what to show: its title, or the key where there is none.
 * @property fields raw values of its fields by name; without a catalogue the key's alone.
 */
public class ScoredItem(
    public val index: Int,
    public val key: String,
    public val title: String,
    public val score: Float,
    public val fields: Map<String, Any?>,
) {
    override fun toString(): String = "$title ($key): $score"
}

/**
 * What to recommend.
 *
 * @property k how many items at most.
 * @property candidates keys of the items to choose from; null for all of the catalogue. Raw values, such as 42 or "42".
 * @property excluded keys of items to leave out, such as those already seen; keys that are in no catalogue are allowed.
 * @property filter which items are allowed; null for all.
 */
public class Query @JvmOverloads constructor(
    public val k: Int = 10,
    public val candidates: Collection<Any>? = null,
    public val excluded: Collection<Any> = emptyList(),
    public val filter: ItemFilter? = null,
) {
    init {
        require(k >= 1) { "k is $k, it must be at least 1" }
    }
}

/**
 * Ranks items for a profile, in batches that the program accepts. Calls must not overlap.
 *
 * @property engine the loaded program, which [close] closes.
 * @property catalog the items to choose from; null for those that the program itself holds.
 * @property newItems items that the training did not know, which [recommend] has among the others where a query names no
 *   candidates. In a history they are passed over, but not recommended.
 */
public class Recommender @JvmOverloads constructor(
    public val bundle: ModelBundle,
    public val engine: Engine,
    public val catalog: Catalog? = null,
    public var newItems: NewItems? = null,
) : Closeable {
    private val manifest = bundle.manifest

    /** Rows of the items; null where nothing says what an item is but its key. */
    private val itemRows: ItemRows? by lazy(LazyThreadSafetyMode.NONE) {
        val key = manifest.catalogField
        catalog?.rows ?: key?.takeIf { manifest.itemFields.contentEquals(intArrayOf(it)) && manifest.fields[it].slots == 1 }
            ?.let { ItemRows(bundle.vocabulary.keyRows(it), 1) }
    }

    /** Items that [recommend] chooses from. */
    public val numItems: Int
        get() = catalog?.size ?: if ("recommend" in manifest.methods) manifest.numCatalogItems else 0

    /** The [k] best items, see the other [recommend]. */
    @Throws(BundleError::class)
    public fun recommend(context: Map<String, Any?>, k: Int): List<ScoredItem> = recommend(context, Query(k))

    /**
     * The best items of [query] for raw context values by field name, best first: fewer than its `k` where fewer are
     * allowed. Without a catalogue the program gives its own best items, of which the excluded ones are left out. A
     * model of the next item leaves out what it reads of the history in [context], too.
     *
     * @throws BundleError.InvalidInput if [context] names no context field, a candidate is no known item, or the model
     *   reads time gaps, so that it is asked with taps.
     */
    @JvmOverloads
    @Throws(BundleError::class)
    public fun recommend(context: Map<String, Any?>, query: Query = Query()): List<ScoredItem> =
        best(bundle.encodeContext(context), query)

    /** The best items of [query] for an encoded context. */
    private fun best(ids: LongArray, query: Query) = withNew(fromBundle(ids, query), ids, query)

    private fun fromBundle(ids: LongArray, query: Query): List<ScoredItem> {
        if (isForProgram(query)) return fromProgram(ids, query)
        val rows = itemRows
        if (rows == null || (query.filter != null && catalog == null)) {
            throw BundleError.InvalidInput("candidates and filters need a catalog; export the bundle with one")
        }
        val places = places(query, ids)
        if (places != null && places.isEmpty()) return emptyList()
        val scores = scoreAll(ids, if (places == null) rows else rows.at(places))
        return TopK.of(scores, query.k).map { best -> described(places?.get(best) ?: best, scores[best]) }
    }

    /**
     * The best items of [query] for a person who did [history], best first.
     *
     * @param history keys of items, raw or canonical, the newest last, as many as there are: the model reads the last
     *   that it takes. Unknown ones are passed over, and none of them is recommended.
     * @param context raw values of the context's other fields.
     * @throws BundleError.InvalidInput if the model reads no history, or its time gaps, too.
     */
    @JvmOverloads
    @Throws(BundleError::class)
    public fun recommend(
        history: List<Any?>,
        query: Query = Query(),
        context: Map<String, Any?> = emptyMap(),
    ): List<ScoredItem> = recommend(bundle.withHistory(context, history), query.without(history))

    /**
     * The best items of [query] for a person who did [taps], the newest last: see the other [recommend]. A model that
     * reads time gaps is asked so; of others the times are not needed.
     *
     * @param now when it is asked, in seconds, on the clock of the taps' times.
     * @throws BundleError.InvalidInput if the model reads no history.
     */
    @JvmOverloads
    @Throws(BundleError::class)
    public fun recommend(
        taps: List<Tap>,
        now: Double,
        query: Query = Query(),
        context: Map<String, Any?> = emptyMap(),
    ): List<ScoredItem> = best(bundle.encodeContext(taps, now, context), query.without(taps.map { it.key }))

    private fun Query.without(history: List<Any?>) = Query(k, candidates, excluded + history.filterNotNull(), filter)

    /**
     * Scores of [items], given by their keys, after [history], in the order given: see the other [rank].
     *
     * @throws BundleError.InvalidInput if one of [items] is not known, or the model reads no history, or its time gaps, too.
     */
    @JvmOverloads
    @Throws(BundleError::class)
    public fun rank(history: List<Any?>, items: List<Any>, context: Map<String, Any?> = emptyMap()): FloatArray =
        rankKeys(bundle.encodeContext(bundle.withHistory(context, history)), items)

    /**
     * Scores of [items], given by their keys, for a person who did [taps], in the order given.
     *
     * @param now when it is asked, in seconds, on the clock of the taps' times.
     * @throws BundleError.InvalidInput if one of [items] is not known, or the model reads no history.
     */
    @JvmOverloads
    @Throws(BundleError::class)
    public fun rank(taps: List<Tap>, items: List<Any>, now: Double, context: Map<String, Any?> = emptyMap()): FloatArray =
        rankKeys(bundle.encodeContext(taps, now, context), items)

    private fun rankKeys(context: LongArray, items: List<Any>): FloatArray {
        val rows = itemRows ?: throw BundleError.InvalidInput("items by their keys need a catalog; export the bundle with one")
        return scoreAll(context, rows.at(items.map { placeOf(it) }.toIntArray()))
    }

    /** The score of a row of all fields, by raw values. */
    @Throws(BundleError::class)
    public fun score(row: Map<String, Any?>): Float = scoreOne(bundle.encode(row))

    /** Scores of items given by the raw values of their fields, in the order given. */
    @Throws(BundleError::class)
    public fun rank(context: Map<String, Any?>, items: List<Map<String, Any?>>): FloatArray {
        val ids = bundle.encodeContext(context)
        if (items.isEmpty()) return FloatArray(0)
        val rows = items.flatMap { item -> bundle.encodeItem(item).map { it.toInt() } }
        return scoreAll(ids, ItemRows(rows.toIntArray(), manifest.itemColumns.size))
    }

    override fun close(): Unit = engine.close()

    /** Whether the program's own `recommend` answers: it ranks all items, and returns so many. */
    private fun isForProgram(query: Query): Boolean {
        if (query.candidates != null || query.filter != null) return false
        return if (manifest.isNextItem) query.k <= manifest.signature("recommend").maximum else catalog == null
    }

    /** The field of the item's key. */
    private val keyField: Int
        get() = manifest.catalogField ?: throw BundleError.MissingMethod("recommend", manifest.methods.keys)

    /** The place of the item with a key among all items, or -1. */
    private fun indexOf(key: Any) = bundle.vocabulary.indexOf(keyField, manifest.fields[keyField].keyText(key))

    private fun placeOf(key: Any): Int =
        indexOf(key).also { if (it < 0) throw BundleError.InvalidInput("the item \"$key\" is not in the catalog") }

    /** Places of the allowed items, or null for all. */
    private fun places(query: Query, context: LongArray): IntArray? {
        val rows = context.take(manifest.contextColumns.size)
        val seen = if (manifest.isNextItem) rows.filter { it < manifest.numRows } else emptyList()
        if (query.candidates == null && query.excluded.isEmpty() && query.filter == null && seen.isEmpty()) return null
        val excluded = query.excluded.mapTo(HashSet()) { indexOf(it) }
        seen.mapTo(excluded) { it.toInt() }
        val candidates = query.candidates?.map { placeOf(it) }?.distinct() ?: (0 until numItems)
        val filter = query.filter
        return candidates.filter { it !in excluded && (filter == null || filter.accepts(catalog!![it])) }.toIntArray()
    }

    private fun fromProgram(context: LongArray, query: Query): List<ScoredItem> {
        val numKeys = bundle.vocabulary.numKeys(keyField)
        val excluded = query.excluded.mapTo(LinkedHashSet()) { indexOf(it) }
        excluded.remove(-1)
        val best = if (manifest.isNextItem) {
            engine.recommend(context, (excluded.map { it.toLong() } + manifest.numRows.toLong()).toLongArray())
        } else {
            engine.recommend(context)
        }
        best.items.firstOrNull { it !in 0 until numKeys }?.let {
            throw BundleError.EngineFailure("it recommends item $it of $numKeys")
        }
        return best.items.indices
            .filter { best.items[it] !in excluded && best.scores[it] != Float.NEGATIVE_INFINITY }
            .take(query.k)
            .map { described(best.items[it], best.scores[it]) }
    }

    /** The best of [best] and the new items; a filter, which is asked about items of the catalogue, lets none of these through. */
    private fun withNew(best: List<ScoredItem>, context: LongArray, query: Query): List<ScoredItem> {
        val new = newItems
        if (new == null || query.candidates != null || query.filter != null) return best
        val rows = itemRows ?: throw BundleError.InvalidInput("new items need a catalog; export the bundle with one")
        val field = manifest.fields[keyField]
        val excluded = query.excluded.mapTo(HashSet()) { field.keyText(it) }
        val scores = new.scores(scoreAll(context, rows.at(new.places)))
        val further = new.keys.indices.filter { new.keys[it] !in excluded }.map { index ->
            val key = new.keys[index]
            ScoredItem(numItems + index, key, new.title(index), scores[index], mapOf(field.name to field.rawKey(key)))
        }
        return (best + further).sortedByDescending { it.score }.take(query.k)
    }

    private fun described(place: Int, score: Float): ScoredItem {
        if (catalog != null) {
            val item = catalog[place]
            return ScoredItem(place, item.key, item.title, score, item.fields)
        }
        val key = bundle.vocabulary.key(keyField, place)
        val field = manifest.fields[keyField]
        return ScoredItem(place, key, key, score, mapOf(field.name to field.rawKey(key)))
    }

    /** Scores of [items], through `rank`, or through `forward` when the program has no `rank`. */
    @Throws(BundleError::class)
    public fun scoreAll(context: LongArray, items: ItemRows): FloatArray {
        val usesRank = "rank" in manifest.methods
        val signature = manifest.signature(if (usesRank) "rank" else "forward")
        return inBatches(items, signature) { batch ->
            if (usesRank) engine.rank(context, batch) else engine.score(rows(context, batch))
        }
    }

    /** The score of one row of all fields, through whatever method the program has. */
    @Throws(BundleError::class)
    public fun scoreOne(ids: LongArray): Float {
        if (manifest.hasGaps) throw BundleError.InvalidInput(ModelBundle.NEEDS_TIMES)
        if ("forward" in manifest.methods) {
            val signature = manifest.signature("forward")
            return engine.score(pad(ids, manifest.numColumns, if (signature.isFixed) signature.maximum else 1))[0]
        }
        return scoreOne(LongArray(manifest.contextColumns.size) { ids[manifest.contextColumns[it]] }, ids)
    }

    /** The score of the item in a row of all fields, in a context as `rank` takes it. */
    internal fun scoreOne(context: LongArray, ids: LongArray): Float {
        val signature = manifest.signature("rank")
        val item = LongArray(manifest.itemColumns.size) { ids[manifest.itemColumns[it]] }
        return engine.rank(context, pad(item, item.size, if (signature.isFixed) signature.maximum else 1))[0]
    }

    private fun inBatches(rows: ItemRows, signature: MethodSignature, run: (LongArray) -> FloatArray): FloatArray {
        val scores = FloatArray(rows.size)
        for (range in Batches.of(rows.size, signature.maximum)) {
            val numItems = range.last - range.first + 1
            val items = LongArray(numItems * rows.numFields)
            rows.copy(range.first, range.last + 1, items)
            val padded = if (signature.isFixed) pad(items, rows.numFields, signature.maximum) else items
            val batch = run(padded)
            if (batch.size != padded.size / rows.numFields) {
                throw BundleError.EngineFailure("${batch.size} scores for ${padded.size / rows.numFields} rows")
            }
            batch.copyInto(scores, range.first, 0, numItems)
        }
        return scores
    }

    /** Rows short of [numRows] are filled with the program's row of zeros; their scores are dropped. */
    private fun pad(ids: LongArray, numFields: Int, numRows: Int): LongArray {
        if (ids.size == numRows * numFields) return ids
        val padded = ids.copyOf(numRows * numFields)
        padded.fill(manifest.numRows.toLong(), ids.size)
        return padded
    }

    /** Full rows in schema order, with the same context in each. */
    private fun rows(context: LongArray, items: LongArray): LongArray {
        val numItemColumns = manifest.itemColumns.size
        val ids = LongArray(items.size / numItemColumns * manifest.numColumns)
        for (row in 0 until items.size / numItemColumns) {
            val start = row * manifest.numColumns
            manifest.contextColumns.forEachIndexed { from, to -> ids[start + to] = context[from] }
            manifest.itemColumns.forEachIndexed { from, to -> ids[start + to] = items[row * numItemColumns + from] }
        }
        return ids
    }
}

/** Cuts rows into batches. */
internal object Batches {
    fun of(numRows: Int, maximum: Int): List<IntRange> =
        (0 until numRows step maximum).map { it until minOf(it + maximum, numRows) }
}
