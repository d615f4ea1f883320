package org.ondevice.demo

import android.os.Handler
import android.os.Looper
import java.util.concurrent.Executors

/** One background thread: work is done in order, answers come on the main thread. */
class Worker {
    private val executor = Executors.newSingleThreadExecutor { Thread(it, "ondevice-worker") }
    private val main = Handler(Looper.getMainLooper())

    fun <T> run(work: () -> T, done: (Result<T>) -> Unit) {
        executor.execute {
            val result = runCatching(work)
            main.post { done(result) }
        }
    }
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
