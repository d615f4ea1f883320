package org.ondevice.demo

import android.app.Application
import org.ondevice.core.BundleStore
import org.ondevice.engine.ExecuTorch
import java.io.File

/** Makes the app's parts, once, by hand; activities come and go, these stay. */
class DemoApplication : Application() {
    val worker by lazy { BackgroundWorker() }
    val bundles by lazy { Bundles(BundleStore(File(filesDir, "bundles")), AssetBundles(assets), ExecuTorch) }
    val recommend by lazy { RecommendPresenter(bundles, worker) }
    val compare by lazy { ComparePresenter(bundles, worker, Memory::use) }
}
