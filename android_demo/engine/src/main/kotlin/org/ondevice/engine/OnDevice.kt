package org.ondevice.engine

import android.content.Context
import android.os.Handler
import android.os.Looper
import android.util.Log
import org.ondevice.core.BundleError
import org.ondevice.core.BundleInfo
import org.ondevice.core.BundleStore
import org.ondevice.core.Journal
import org.ondevice.core.ModelLibrary
import org.ondevice.core.NewItems
import org.ondevice.core.Query
import org.ondevice.core.Recommender
import org.ondevice.core.ScoredItem
import org.ondevice.core.Tap
import java.io.Closeable
import java.io.File
import java.util.concurrent.Executor
import java.util.concurrent.ExecutorService
import java.util.concurrent.Executors
import java.util.concurrent.RejectedExecutionException
import kotlin.coroutines.resume
import kotlin.coroutines.resumeWithException
import kotlin.coroutines.suspendCoroutine

/** Gets an answer, or why there is none: usually a [BundleError], whose message is a sentence for the person. */
public interface Callback<in T> {
    public fun onResult(result: T)

    public fun onError(error: Throwable)
}

/**
 * An open model. Any thread may ask; a thread of the model's own computes, so that no caller waits for another model,
 * and answers come in the order of the questions.
 *
 * Each question can be asked in two ways: as a `suspend` function, or with a [Callback] on the main thread. A coroutine
 * that is cancelled gets its answer all the same, some milliseconds later; no model is left open unseen.
 */
public class OnDevice private constructor(
    private val recommender: Recommender,
    private val worker: ExecutorService,
    private val callbacks: Executor,
) : Closeable {
    /** What the model's bundle says of itself: its schema, its sizes. */
    public val info: BundleInfo get() = recommender.bundle.info

    /** How many items [recommend] chooses from. */
    public val numItems: Int get() = recommender.numItems

    /** The best items of [query] for raw context values by field name: see [Recommender.recommend]. */
    public suspend fun recommend(context: Map<String, Any?>, query: Query = Query()): List<ScoredItem> =
        answer(worker) { recommender.recommend(context, query) }

    /** [recommend] with a callback. */
    public fun recommend(context: Map<String, Any?>, query: Query, callback: Callback<List<ScoredItem>>): Unit =
        answer(worker, callbacks, callback) { recommender.recommend(context, query) }

    /** The best items of [query] for a person who did [history], keys of items, the newest last: see [Recommender.recommend]. */
    public suspend fun recommend(history: List<Any?>, query: Query = Query()): List<ScoredItem> =
        answer(worker) { recommender.recommend(history, query) }

    /** [recommend] with a callback. */
    public fun recommend(history: List<Any?>, query: Query, callback: Callback<List<ScoredItem>>): Unit =
        answer(worker, callbacks, callback) { recommender.recommend(history, query) }

    /**
     * The best items of [query] for a person who did [taps], the newest last: a model that reads time gaps is asked so, and
     * others may be.
     *
     * @param now when it is asked, in seconds since 1970: [Tap.now].
     */
    public suspend fun recommend(taps: List<Tap>, now: Double, query: Query = Query()): List<ScoredItem> =
        answer(worker) { recommender.recommend(taps, now, query) }

    /** [recommend] with a callback. */
    public fun recommend(taps: List<Tap>, now: Double, query: Query, callback: Callback<List<ScoredItem>>): Unit =
        answer(worker, callbacks, callback) { recommender.recommend(taps, now, query) }

    /** Scores of [items], given by their keys, for a person who did [taps], in the order given. */
    public suspend fun rank(taps: List<Tap>, items: List<Any>, now: Double): FloatArray =
        answer(worker) { recommender.rank(taps, items, now) }

    /** [rank] with a callback. */
    public fun rank(taps: List<Tap>, items: List<Any>, now: Double, callback: Callback<FloatArray>): Unit =
        answer(worker, callbacks, callback) { recommender.rank(taps, items, now) }

    /** Scores of [items], given by their keys, after [history], in the order given. */
    public suspend fun rank(history: List<Any?>, items: List<Any>): FloatArray =
        answer(worker) { recommender.rank(history, items) }

    /** [rank] with a callback. */
    public fun rank(history: List<Any?>, items: List<Any>, callback: Callback<FloatArray>): Unit =
        answer(worker, callbacks, callback) { recommender.rank(history, items) }

    /** Scores of items given by the raw values of their fields, in the order given. */
    public suspend fun rank(context: Map<String, Any?>, items: List<Map<String, Any?>>): FloatArray =
        answer(worker) { recommender.rank(context, items) }

    /** [rank] with a callback. */
    public fun rank(context: Map<String, Any?>, items: List<Map<String, Any?>>, callback: Callback<FloatArray>): Unit =
        answer(worker, callbacks, callback) { recommender.rank(context, items) }

    /** Has the new items in [file] among those that [recommend] chooses from, in place of earlier ones: see [NewItems.read]. */
    public suspend fun takeItems(file: File): Unit = answer(worker) { take(file) }

    /** [takeItems] with a callback. */
    public fun takeItems(file: File, callback: Callback<Unit>): Unit = answer(worker, callbacks, callback) { take(file) }

    private fun take(file: File) {
        recommender.newItems = NewItems.read(recommender.bundle, file)
    }

    /** The score of a row of all fields, by raw values. */
    public suspend fun score(row: Map<String, Any?>): Float = answer(worker) { recommender.score(row) }

    /** [score] with a callback. */
    public fun score(row: Map<String, Any?>, callback: Callback<Float>): Unit =
        answer(worker, callbacks, callback) { recommender.score(row) }

    /** Frees the model once it has answered what it was asked before. Later questions are refused. */
    override fun close() {
        synchronized(worker) {
            if (worker.isShutdown) return
            worker.execute { recommender.close() }
            worker.shutdown()
        }
    }

    public companion object {
        private const val TAG = "ondevice"

        /** Where the library says what went wrong and what it did about it: the system's log, unless the app sets another. */
        @JvmStatic
        @Volatile
        public var journal: Journal = Journal { event, error -> Log.w(TAG, event, error) }

        private var sharedLibrary: ModelLibrary? = null

        /** The models of this app, in `files/bundles`, with those in `assets/bundles`: to list, install and replace them. */
        @JvmStatic
        @Synchronized
        public fun library(context: Context): ModelLibrary = sharedLibrary ?: run {
            val directory = File(context.applicationContext.filesDir, "bundles")
            val store = BundleStore(directory, AssetBundles(context.applicationContext.assets)) { event, error ->
                journal.write(event, error)
            }
            ModelLibrary(store, ExecuTorch).also { sharedLibrary = it }
        }

        /**
         * Opens the model [name], which came with the app as `assets/bundles/NAME` or was installed: verifies and loads
         * it and asks it its golden cases, on another thread. The caller closes it.
         *
         * @throws BundleError with a sentence for the person when it cannot be used.
         */
        public suspend fun open(context: Context, name: String): OnDevice {
            val library = library(context)
            return suspendCoroutine { continuation ->
                val resume = object : Callback<OnDevice> {
                    override fun onResult(result: OnDevice) = continuation.resume(result)
                    override fun onError(error: Throwable) = continuation.resumeWithException(error)
                }
                open(library, name, mainThread, { it.run() }, resume)
            }
        }

        /** [open] with a callback. */
        @JvmStatic
        public fun open(context: Context, name: String, callback: Callback<OnDevice>): Unit =
            open(library(context), name, mainThread, mainThread, callback)

        private val mainThread by lazy {
            val handler = Handler(Looper.getMainLooper())
            Executor { handler.post(it) }
        }

        /**
         * @param callbacks where the open model calls back.
         * @param opened where [callback] is called.
         */
        internal fun open(
            library: ModelLibrary,
            name: String,
            callbacks: Executor,
            opened: Executor,
            callback: Callback<OnDevice>,
        ) {
            val worker = Executors.newSingleThreadExecutor { Thread(it, "$TAG-$name").apply { isDaemon = true } }
            answer(worker, opened, callback) {
                try {
                    OnDevice(library.open(name), worker, callbacks)
                } catch (error: Throwable) {
                    worker.shutdown()
                    throw error
                }
            }
        }

        private suspend fun <T> answer(worker: Executor, work: () -> T): T = suspendCoroutine { continuation ->
            execute(worker, { continuation.resumeWith(it) }, work)
        }

        private fun <T> answer(worker: Executor, callbacks: Executor, callback: Callback<T>, work: () -> T) =
            execute(worker, { result -> callbacks.execute { result.fold(callback::onResult, callback::onError) } }, work)

        private fun <T> execute(worker: Executor, done: (Result<T>) -> Unit, work: () -> T) = try {
            worker.execute { done(runCatching(work)) }
        } catch (_: RejectedExecutionException) {
            done(Result.failure(BundleError.EngineFailure("it was closed")))
        }
    }
}
