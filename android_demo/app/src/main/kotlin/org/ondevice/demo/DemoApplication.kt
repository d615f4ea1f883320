package org.ondevice.demo

import android.app.Application
import org.ondevice.core.BundleStore
import org.ondevice.engine.AssetBundles
import org.ondevice.engine.ExecuTorch
import java.io.File

/** Makes the app's parts, once, by hand; activities come and go, these stay. */
class DemoApplication : Application() {
    val log = Log { what, error -> android.util.Log.e(TAG, what, error) }

    /** Ranks; what is measured meanwhile, on [measurer], does not keep it waiting. */
    private val ranker by lazy { BackgroundWorker("ranker") }
    private val measurer by lazy { BackgroundWorker("measurer") }
    val bundles by lazy {
        val store = BundleStore(File(filesDir, "bundles"), AssetBundles(assets)) { event, error ->
            android.util.Log.w(TAG, event, error)
        }
        Bundles(store, ExecuTorch, log)
    }
    private val facts = AndroidFacts(this)
    val recommend by lazy { RecommendPresenter(bundles, ranker, log) }
    val next by lazy { NextPresenter(bundles, ranker, File(filesDir, "taps"), log) }
    val compare by lazy { ComparePresenter(bundles, measurer, facts::memory, log) { recommend.refresh() } }
    val benchmark by lazy { BenchmarkPresenter(bundles, measurer, facts, filesDir, log) }

    /** A program that nobody looks at is not kept in memory; the next ranking loads it again, in milliseconds. */
    override fun onTrimMemory(level: Int) {
        super.onTrimMemory(level)
        if (level >= TRIM_MEMORY_UI_HIDDEN) ranker.run({ bundles.close() }) {}
    }

    companion object {
        const val TAG = "ondevice"
    }
}
