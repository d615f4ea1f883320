package org.ondevice.demo

import org.ondevice.core.BundleStore
import org.ondevice.core.Catalog
import org.ondevice.core.Engine
import org.ondevice.core.GoldenCheck
import org.ondevice.core.ModelBundle
import org.ondevice.core.ModelRuntime
import org.ondevice.core.Recommender
import org.ondevice.core.Sha256
import java.io.File
import java.io.IOException
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
 * The bundles on this phone and, of them, the one whose program is loaded. Never used on the main thread; the threads
 * that use it wait for each other, though not while a picked file is read or a bundle is measured.
 *
 * @param scratch a folder of this class alone, for files that were picked.
 */
class Bundles(
    val store: BundleStore,
    private val shipped: ShippedBundles,
    val runtime: ModelRuntime,
    private val scratch: File,
    private val log: Log,
) {
    private val problemsByName = LinkedHashMap<String, String>()

    /** Why bundles that came with the app were not put to use, by name. */
    val problems: Map<String, String> @Synchronized get() = LinkedHashMap(problemsByName)

    /** Another number after each bundle that was put to use. */
    @Volatile
    var revision = 0
        private set
    private var session: Session? = null
    private var isPrepared = false

    /** Restores what was interrupted and copies new bundles out of the app. */
    @Synchronized
    fun prepare() {
        if (isPrepared) return
        store.recover()
        for (name in shipped.names()) {
            try {
                installShipped(name)
            } catch (error: Throwable) {
                problemsByName[name] = log.explain("copying $name out of the app", error)
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
    fun replace(name: String, zip: InputStream) {
        scratch.deleteRecursively()
        try {
            if (!scratch.mkdirs()) throw IOException("$scratch cannot be made")
            BundleStore.unzip(zip, scratch) // whoever provides the file may be slow
            install(name) { scratch.copyRecursively(it, overwrite = true) }
        } finally {
            scratch.deleteRecursively()
        }
    }

    @Synchronized
    private fun install(name: String, write: (File) -> Unit) {
        close()
        store.install(name, write) { bundle ->
            bundle.readCatalog()
            runtime.load(bundle, NUM_THREADS).use { GoldenCheck.run(bundle, it) }
        }
        problemsByName.remove(name)
        revision++
    }

    /** What [work] makes of the bundle [name], whose program stays loaded for the next time. */
    @Synchronized
    fun <T> use(name: String, work: (Session) -> T): T = work(session(name))

    private fun session(name: String): Session {
        session?.let { if (it.name == name) return it }
        close()
        val bundle = store.open(name)
        val catalog = bundle.readCatalog()
        return Session(name, bundle, catalog, runtime.load(bundle, NUM_THREADS)).also { session = it }
    }

    @Synchronized
    fun close() {
        session?.engine?.close()
        session = null
    }

    companion object {
        /** Small models: a second thread costs more in waking up than it computes. */
        const val NUM_THREADS = 1
    }
}
