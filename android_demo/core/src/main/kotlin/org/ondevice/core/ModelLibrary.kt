package org.ondevice.core

import java.io.File
import java.io.IOException

/**
 * The models on this phone: bundles that have answered their golden cases here, and were loaded.
 *
 * @property numThreads of every program; small models lose more in waking a second thread than they win.
 */
public class ModelLibrary @JvmOverloads constructor(
    public val store: BundleStore,
    public val runtime: ModelRuntime,
    public val numThreads: Int = 1,
) {
    /** [BundleStore.prepare], with the golden cases. */
    @Throws(IOException::class)
    public fun prepare(): Map<String, Throwable> = store.prepare(::check)

    /** [BundleStore.install], with the golden cases. */
    @Throws(BundleError::class, IOException::class)
    public fun install(name: String, write: (File) -> Unit): Unit = store.install(name, write, ::check)

    /** Loads the bundle [name] and asks it its golden cases; the caller closes what is returned. */
    @Throws(BundleError::class, IOException::class)
    public fun open(name: String): Recommender = store.start(name) { load(it) }

    private fun check(bundle: ModelBundle) = load(bundle).close()

    private fun load(bundle: ModelBundle): Recommender {
        val recommender = Recommender(bundle, runtime.load(bundle, numThreads), bundle.readCatalog())
        try {
            GoldenCheck.run(bundle, recommender.engine)
        } catch (error: Throwable) {
            recommender.close()
            throw error
        }
        return recommender
    }
}
