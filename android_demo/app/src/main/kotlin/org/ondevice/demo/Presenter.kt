package org.ondevice.demo

/** Does work on one background thread, in order; answers come on the main thread, in the same order. */
interface Worker {
    fun <T> run(work: () -> T, done: (Result<T>) -> Unit)
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
