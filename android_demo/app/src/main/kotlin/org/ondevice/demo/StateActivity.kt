package org.ondevice.demo

import android.app.Activity

/** A screen that shows a presenter's state while it can be seen. */
abstract class StateActivity<S> : Activity() {
    protected abstract val presenter: Presenter<S>
    private val watcher: (S) -> Unit = { show(it) }

    protected val app: DemoApplication get() = application as DemoApplication

    protected abstract fun show(state: S)

    override fun onStart() {
        super.onStart()
        presenter.watch(watcher)
    }

    override fun onStop() {
        presenter.unwatch(watcher)
        super.onStop()
    }
}
