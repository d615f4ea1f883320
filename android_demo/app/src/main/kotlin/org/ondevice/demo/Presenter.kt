package org.ondevice.demo

import org.ondevice.core.BundleError

/** Does work on a background thread, in order; answers come on the main thread, in the same order. */
interface Worker {
    fun <T> run(work: () -> T, done: (Result<T>) -> Unit)
}

/** Where a developer finds the whole of an error of which a person reads one sentence. */
fun interface Log {
    fun error(what: String, error: Throwable)
}

/** The sentence to show for [error], which goes to the log with its stack trace. */
fun Log.explain(what: String, error: Throwable): String {
    error(what, error)
    return BundleError.explain(error)
}

/** Holds an immutable state for whichever activity is watching. Main thread only. */
abstract class Presenter<S>(initial: S) {
    private var watcher: ((S) -> Unit)? = null

    var state: S = initial
        protected set(value) {
            field = value
            watcher?.invoke(value)
        }

    fun watch(watcher: (S) -> Unit) {
        this.watcher = watcher
        watcher(state)
    }

    /** Ends the watch of [watcher], unless another activity has begun its own meanwhile. */
    fun unwatch(watcher: (S) -> Unit) {
        if (this.watcher === watcher) this.watcher = null
    }
}
