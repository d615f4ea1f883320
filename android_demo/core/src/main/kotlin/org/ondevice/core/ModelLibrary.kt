package org.ondevice.core

import java.io.File
import java.io.IOException

/** Writes the files of a bundle. */
public fun interface BundleWriter {
    /** Fills [directory], which is empty. */
    @Throws(BundleError::class, IOException::class)
    public fun write(directory: File)
}

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
    private var problems: Map<String, Throwable>? = null

    /**
     * Ends what an earlier process began, and puts bundles of the app to use that are new and answer their golden cases.
     * The first call does it, before anything else; [install] and [open] see to that.
     *
     * @return why bundles of the app were not put to use, by name.
     */
    @Synchronized
    @Throws(IOException::class)
    public fun prepare(): Map<String, Throwable> = problems ?: store.prepare(::check).also { problems = it }

    /**
     * Puts the bundle that [write] writes under [name], once it has answered its golden cases; where there was another,
     * on trial: the other stays until the new one has been opened.
     */
    @Throws(BundleError::class, IOException::class)
    public fun install(name: String, write: BundleWriter) {
        prepare()
        store.install(name, write, ::check)
    }

    /**
     * Loads the bundle [name] and asks it its golden cases; the caller closes what is returned.
     *
     * @throws Exception what [prepare] says of [name], where there is no bundle for that reason.
     */
    @Throws(BundleError::class, IOException::class)
    public fun open(name: String): Recommender {
        val problem = prepare()[name]
        if (problem != null && name !in store.names()) throw problem
        return store.start(name) { load(it) }
    }

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
