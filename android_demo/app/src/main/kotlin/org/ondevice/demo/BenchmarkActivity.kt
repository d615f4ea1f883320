package org.ondevice.demo

import android.content.Intent
import android.os.Build
import android.os.Bundle
import android.os.PowerManager
import android.view.WindowManager
import android.widget.TextView

/**
 * Measures bundles without a hand on the phone, and writes `files/latency.json`. In debug builds:
 *
 *     am start -W -n org.ondevice.demo/.BenchmarkActivity --es run ID [--es bundles ours,int8]
 *         [--es candidates 1,100,1000] [--es threads 1,2,4] [--ei warmups 20] [--ei calls 200] [--ei pause_ms 1000]
 *
 * It shows itself over the lock screen, switches the screen on and keeps it on. Started again without a run, it comes
 * to the front and goes on.
 */
class BenchmarkActivity : StateActivity<BenchmarkState>() {
    override val presenter by lazy { app.benchmark }

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.O_MR1) {
            setShowWhenLocked(true)
            setTurnScreenOn(true)
        } else {
            @Suppress("DEPRECATION") // their successors are of Android 8.1
            window.addFlags(
                WindowManager.LayoutParams.FLAG_SHOW_WHEN_LOCKED or WindowManager.LayoutParams.FLAG_TURN_SCREEN_ON,
            )
        }
        window.addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        setScreen(R.layout.benchmark)
        if (savedInstanceState == null) begin(intent)
    }

    override fun onNewIntent(intent: Intent) {
        super.onNewIntent(intent)
        begin(intent)
    }

    private fun begin(asked: Intent) {
        val run = asked.getStringExtra("run") ?: return
        presenter.start(run) { BenchmarkRequest.read(run, asked::getStringExtra, asked::getIntExtra) }
    }

    override fun onStart() {
        super.onStart()
        presenter.seen()
    }

    override fun onStop() {
        if (!isChangingConfigurations) {
            val isOn = getSystemService(PowerManager::class.java).isInteractive
            presenter.unseen(if (isOn) "another app, or the lock screen, was in front of it" else "the screen went off")
        }
        super.onStop()
    }

    override fun show(state: BenchmarkState) = findViewById<TextView>(R.id.status).showText(
        when (state) {
            is BenchmarkState.Idle -> getString(R.string.benchmark_idle)
            is BenchmarkState.Starting -> getString(R.string.loading)
            is BenchmarkState.Measuring -> text(R.string.benchmark_measuring, state.step, state.place, state.total)
            is BenchmarkState.Stopped -> text(R.string.benchmark_stopped, state.step, state.place, state.total)
            is BenchmarkState.Done -> getString(R.string.benchmark_done)
            is BenchmarkState.Failed -> state.problem
        },
    )

    private fun text(id: Int, step: Step, place: Int, total: Int) =
        getString(id, place, total, step.name, resources.getQuantityString(R.plurals.threads, step.numThreads, step.numThreads))
}
