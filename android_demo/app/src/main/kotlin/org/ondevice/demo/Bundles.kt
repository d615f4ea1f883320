package org.ondevice.demo

import org.ondevice.core.BundleError
import org.ondevice.core.BundleStore
import org.ondevice.core.Catalog
import org.ondevice.core.Engine
import org.ondevice.core.GoldenCheck
import org.ondevice.core.ModelBundle
import org.ondevice.core.ModelRuntime
import org.ondevice.core.Recommender
import org.ondevice.core.Sha256
import java.io.File
import java.io.InputStream

/** The bundles that came with the app. */
interface ShippedBundles {
    fun names(): List<String>

    fun manifest(name: String): ByteArray

    fun copy(name: String, target: File)
}

/** An opened bundle with its loaded program. */
class Session(val name: String, val bundle: ModelBundle, catalog: Catalog?, val engine: Engine) {
    val recommender = Recommender(bundle, engine, catalog)
}

/**
 * The bundles on this phone and, of them, the one whose program is loaded. Used on the worker's thread only.
 *
 * @property problems why bundles that came with the app were not put to use, by name.
 */
class Bundles(val store: BundleStore, private val shipped: ShippedBundles, val runtime: ModelRuntime) {
    val problems = LinkedHashMap<String, String>()

    /** Another number after each bundle that was put to use. */
    var revision = 0
        private set
    private var session: Session? = null
    private var isPrepared = false

    /** Restores what was interrupted and copies new bundles out of the app. */
    fun prepare() {
        if (isPrepared) return
        store.recover()
        for (name in shipped.names()) {
            try {
                installShipped(name)
            } catch (error: Throwable) {
                problems[name] = BundleError.explain(error)
            }
        }
        isPrepared = true
    }

    /**
     * A bundle of the app is copied when it is another than the one copied last, so that a bundle that the user put
     * in its place stays until the app itself brings a new one.
     */
    private fun installShipped(name: String) {
        val hash = Sha256.of(shipped.manifest(name))
        val copied = File(store.directory(name).parentFile, ".asset-$name")
        if (store.directory(name).isDirectory && copied.isFile && copied.readText() == hash) return
        install(name) { shipped.copy(name, it) }
        copied.writeText(hash)
    }

    /** Replaces the bundle [name] by the one in a zip. The old one stays until the new one has answered. */
    fun replace(name: String, zip: InputStream) = install(name) { BundleStore.unzip(zip, it) }

    private fun install(name: String, write: (File) -> Unit) {
        close()
        store.install(name, write) { bundle ->
            bundle.readCatalog()
            runtime.load(bundle, NUM_THREADS).use { GoldenCheck.run(bundle, it) }
        }
        problems.remove(name)
        revision++
    }

    fun session(name: String): Session {
        session?.let { if (it.name == name) return it }
        close()
        val bundle = store.open(name)
        val catalog = bundle.readCatalog()
        return Session(name, bundle, catalog, runtime.load(bundle, NUM_THREADS)).also { session = it }
    }

    fun close() {
        session?.engine?.close()
        session = null
    }

    companion object {
        /** Small models: a second thread costs more in waking up than it computes. */
        const val NUM_THREADS = 1
    }
}
