package org.ondevice.demo

import org.ondevice.core.BundleError
import org.ondevice.core.BundleStore
import org.ondevice.core.BundleZip
import org.ondevice.core.ModelLibrary
import org.ondevice.core.ModelRuntime
import org.ondevice.core.Recommender
import java.io.IOException
import java.io.InputStream

/** A bundle with its loaded program. */
class Session(val name: String, val recommender: Recommender) {
    val bundle get() = recommender.bundle
}

/**
 * The bundles on this phone and, of them, the one whose program is loaded. Never used on the main thread; the threads
 * that use it wait for each other, though not while a picked file is read or a bundle is measured.
 */
class Bundles(val store: BundleStore, val runtime: ModelRuntime, private val log: Log) {
    private val library = ModelLibrary(store, runtime)
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
        for ((name, error) in library.prepare()) problemsByName[name] = log.explain("copying $name out of the app", error)
        isPrepared = true
    }

    /** Names of the models that say what comes next, which have a screen of their own. */
    fun nextItemNames(): List<String> = store.names().filter { isNextItem(it) }

    /** Names of all other models, damaged ones too. */
    fun names(): List<String> = store.names().filterNot { isNextItem(it) }

    private fun isNextItem(name: String) = try {
        store.info(name).manifest.isNextItem
    } catch (_: BundleError) {
        false
    } catch (_: IOException) {
        false
    }

    /** Replaces the bundle [name] by the one in a zip. The old one stays until the new one has been started. */
    fun replace(name: String, zip: InputStream) {
        library.install(name) { BundleZip.unzip(zip, it) } // whoever provides the file may be slow
        replaced(name)
    }

    @Synchronized
    private fun replaced(name: String) {
        close()
        problemsByName.remove(name)
        revision++
    }

    /** What [work] makes of the bundle [name], whose program stays loaded for the next time. */
    @Synchronized
    fun <T> use(name: String, work: (Session) -> T): T = work(session(name))

    private fun session(name: String): Session {
        session?.let { if (it.name == name) return it }
        close()
        return Session(name, library.open(name)).also { session = it }
    }

    @Synchronized
    fun close() {
        session?.recommender?.close()
        session = null
    }
}
