package org.ondevice.core

import java.io.Closeable

/** What `recommend` returns: the best items of the program's own catalog, best first. */
public class Recommendation(public val scores: FloatArray, public val items: IntArray)

/** A loaded program. Ids are program row ids; calls must not overlap. */
public interface Engine : Closeable {
    /** Scores of rows of all fields. Shape: [ids] (batch * F) -> (batch). */
    @Throws(BundleError::class)
    public fun score(ids: LongArray): FloatArray

    /**
     * Scores of candidates for one context. Shape: [context] (Fc), [items] (numItems * Fi) -> (numItems).
     *
     * @param context as `ModelBundle.encodeContext` makes it: rows, and of a model that reads time gaps their buckets.
     */
    @Throws(BundleError::class)
    public fun rank(context: LongArray, items: LongArray): FloatArray

    /**
     * The best items of the catalog in the program. Shape: [context] (Fc), [excluded] (E) -> (k), (k).
     *
     * @param excluded rows of items to leave out, whose score is then -∞; of a program that can, one row or more (that
     *   after all rows leaves out nothing), else none.
     */
    @Throws(BundleError::class)
    public fun recommend(context: LongArray, excluded: LongArray = LongArray(0)): Recommendation
}

/** Where programs run. */
public interface ModelRuntime {
    public val operators: Set<String>
    public val backends: Set<String>

    /**
     * Loads the program of [bundle].
     *
     * @throws BundleError when it cannot be loaded here.
     */
    @Throws(BundleError::class)
    public fun load(bundle: ModelBundle, numThreads: Int): Engine
}

/**
 * Checks of what goes into a program, done before native code sees it: a native library may end the app where these
 * throw.
 */
public class InputCheck(private val manifest: BundleManifest) {
    /** Rows in [ids] for `forward`. */
    @Throws(BundleError::class)
    public fun score(ids: LongArray): Int {
        val signature = manifest.signature("forward")
        val batch = rows(ids, manifest.numColumns, signature, "rows")
        checkIds(ids)
        return batch
    }

    /** Candidates in [items] for `rank`. */
    @Throws(BundleError::class)
    public fun rank(context: LongArray, items: LongArray): Int {
        val signature = manifest.signature("rank")
        checkContext(context)
        val numItems = rows(items, manifest.itemColumns.size, signature, "candidates")
        checkIds(items)
        return numItems
    }

    @Throws(BundleError::class)
    @JvmOverloads
    public fun recommend(context: LongArray, excluded: LongArray = LongArray(0)) {
        val most = manifest.signature("recommend").maxExcluded
        checkContext(context)
        if (excluded.size > most || (most > 0 && excluded.isEmpty())) {
            val allowed = if (most == 0) "none" else "1 to $most"
            throw BundleError.InvalidInput("${excluded.size} items to leave out, where recommend takes $allowed")
        }
        checkIds(excluded)
    }

    private fun checkContext(context: LongArray) {
        if (context.size != manifest.contextWidth) {
            val fields = if (manifest.hasGaps) "a history and its gaps" else "context fields"
            throw BundleError.InvalidInput("${context.size} context ids, where the model has ${manifest.contextWidth} of $fields")
        }
        val numRows = manifest.contextColumns.size
        checkIds(context.copyOf(numRows))
        for (gap in context.drop(numRows)) {
            if (gap !in 0..TimeGaps.MAX_BUCKET) {
                throw BundleError.InvalidInput("the gap bucket $gap is not in 0..${TimeGaps.MAX_BUCKET}")
            }
        }
    }

    private fun rows(ids: LongArray, numFields: Int, signature: MethodSignature, what: String): Int {
        val rows = if (numFields == 0) 0 else ids.size / numFields
        if (numFields == 0 || ids.size % numFields != 0) {
            throw BundleError.InvalidInput("${ids.size} ids do not divide into $what of $numFields fields")
        }
        if (rows < 1 || rows > signature.maximum || (signature.isFixed && rows != signature.maximum)) {
            val allowed = if (signature.isFixed) "exactly" else "1 to"
            throw BundleError.InvalidInput("$rows $what, where ${signature.name} takes $allowed ${signature.maximum}")
        }
        return rows
    }

    private fun checkIds(ids: LongArray) {
        for (id in ids) {
            if (id < 0 || id > manifest.numRows) {
                throw BundleError.InvalidInput("the id $id is not in 0..${manifest.numRows}")
            }
        }
    }
}
