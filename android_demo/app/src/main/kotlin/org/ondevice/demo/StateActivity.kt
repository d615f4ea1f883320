package org.ondevice.demo

import android.app.Activity
import android.os.Build
import android.view.View
import android.widget.TextView

/** A screen that shows a presenter's state while it can be seen. */
abstract class StateActivity<S> : Activity() {
    protected abstract val presenter: Presenter<S>
    private val watcher: (S) -> Unit = { show(it) }

    protected val app: DemoApplication get() = application as DemoApplication

    protected abstract fun show(state: S)

    /** Lays the screen out under a toolbar with its title. */
    protected fun setScreen(layout: Int) {
        setContentView(layout)
        setActionBar(findViewById(R.id.toolbar))
        actionBar!!.setDisplayShowTitleEnabled(false)
        findViewById<TextView>(R.id.heading).apply {
            text = title
            setHeading()
        }
    }

    override fun onStart() {
        super.onStart()
        presenter.watch(watcher)
    }

    override fun onStop() {
        presenter.unwatch(watcher)
        super.onStop()
    }
}

/** Lets TalkBack jump to this view, from heading to heading. */
fun View.setHeading() {
    if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.P) isAccessibilityHeading = true
}

/** Lets TalkBack read [description] for this group in one go, in place of its parts. */
fun View.setDescription(description: String) {
    contentDescription = description
    if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.P) isScreenReaderFocusable = true
}

/** Sets a text that TalkBack announces, only when it is another. */
fun TextView.showText(text: String) {
    if (this.text.toString() != text) this.text = text
    visibility = if (text.isEmpty()) View.GONE else View.VISIBLE
}
