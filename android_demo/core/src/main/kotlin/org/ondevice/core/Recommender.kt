package org.ondevice.core

/** An item with its place in the catalog. */
class ScoredItem(val index: Int, val title: String, val score: Float)

/** Ranks a bundle's catalog for a profile, in batches that the program accepts. */
class Recommender(private val bundle: Bundle, private val engine: Engine) {
    private val manifest = bundle.manifest

    /** Items that [recommend] chooses from: those of [catalog], or without one those that the program holds. */
    fun numItems(catalog: Catalog?): Int =
        catalog?.size ?: if ("recommend" in manifest.methods) manifest.numCatalogItems else 0

    /**
     * The [k] best items for raw context values by field name, best first. Without a [catalog] they come from the
     * program's own, with their keys for titles.
     */
    fun recommend(context: Map<String, Any?>, catalog: Catalog?, k: Int): List<ScoredItem> {
        val ids = bundle.encodeContext(context)
        if (catalog == null) return fromProgram(ids, k)
        val scores = scoreAll(ids, catalog)
        return TopK.of(scores, k).map { ScoredItem(it, catalog.titles[it], scores[it]) }
    }

    private fun fromProgram(context: LongArray, k: Int): List<ScoredItem> {
        val field = manifest.catalogField ?: throw BundleError.MissingMethod("recommend", manifest.methods.keys)
        val best = engine.recommend(context)
        return List(minOf(k, best.items.size)) { place ->
            val item = best.items[place]
            if (item !in 0 until bundle.vocabulary.numKeys(field)) {
                throw BundleError.EngineFailure("it recommends item $item of ${bundle.vocabulary.numKeys(field)}")
            }
            ScoredItem(item, bundle.vocabulary.key(field, item), best.scores[place])
        }
    }

    /** Scores of all items of [catalog], through `rank`, or through `forward` when the program has no `rank`. */
    fun scoreAll(context: LongArray, catalog: Catalog): FloatArray {
        val usesRank = "rank" in manifest.methods
        val signature = manifest.signature(if (usesRank) "rank" else "forward")
        return inBatches(catalog, signature) { items ->
            if (usesRank) engine.rank(context, items) else engine.score(rows(context, items))
        }
    }

    /** The score of one row of all fields, through whatever method the program has. */
    fun scoreOne(ids: LongArray): Float {
        if ("forward" in manifest.methods) {
            val signature = manifest.signature("forward")
            return engine.score(pad(ids, manifest.fields.size, if (signature.isFixed) signature.maximum else 1))[0]
        }
        val signature = manifest.signature("rank")
        val context = LongArray(manifest.contextFields.size) { ids[manifest.contextFields[it]] }
        val item = LongArray(manifest.itemFields.size) { ids[manifest.itemFields[it]] }
        return engine.rank(context, pad(item, item.size, if (signature.isFixed) signature.maximum else 1))[0]
    }

    private fun inBatches(catalog: Catalog, signature: MethodSignature, run: (LongArray) -> FloatArray): FloatArray {
        val scores = FloatArray(catalog.size)
        for (range in Batches.of(catalog.size, signature.maximum)) {
            val numItems = range.last - range.first + 1
            val items = LongArray(numItems * catalog.numFields)
            catalog.copyRows(range.first, range.last + 1, items)
            val padded = if (signature.isFixed) pad(items, catalog.numFields, signature.maximum) else items
            val batch = run(padded)
            if (batch.size != padded.size / catalog.numFields) {
                throw BundleError.EngineFailure("${batch.size} scores for ${padded.size / catalog.numFields} rows")
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
        val numItemFields = manifest.itemFields.size
        val ids = LongArray(items.size / numItemFields * manifest.fields.size)
        for (row in 0 until items.size / numItemFields) {
            val start = row * manifest.fields.size
            manifest.contextFields.forEachIndexed { from, to -> ids[start + to] = context[from] }
            manifest.itemFields.forEachIndexed { from, to -> ids[start + to] = items[row * numItemFields + from] }
        }
        return ids
    }
}

/** Cuts rows into batches. */
object Batches {
    fun of(numRows: Int, maximum: Int): List<IntRange> =
        (0 until numRows step maximum).map { it until minOf(it + maximum, numRows) }
}
