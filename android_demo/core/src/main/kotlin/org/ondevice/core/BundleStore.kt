package org.ondevice.core

import java.io.File
import java.io.IOException
import java.util.UUID

/**
 * The bundles on this phone, each in a directory of its own under [root]; the only store of that directory.
 *
 * A bundle that replaces another is on trial: the other is kept, as `.previous-NAME`, until the new one has been
 * started once. When the app ends in that start, or the start fails, the other is put back. A bundle that is damaged
 * is replaced by the one that came with the app, or else by the one before it.
 *
 * Every change is a rename of a directory whose files are on the storage already, so that a process that ends at any
 * moment, or a phone that loses its power, leaves under each name a bundle that is whole; [ModelLibrary.prepare] clears the rest:
 *
 * - `.incoming-ID` is being written, and is removed;
 * - `.ready-NAME` is whole and verified, and takes its place;
 * - `.trash-ID` is being removed, and is removed.
 */
public class BundleStore internal constructor(
    private val root: File,
    private val shipped: ShippedBundles,
    private val journal: Journal,
    private val disk: Disk,
) {
    @JvmOverloads
    public constructor(root: File, shipped: ShippedBundles = ShippedBundles.NONE, journal: Journal = Journal.NONE) :
        this(root, shipped, journal, Disk())

    /** Names of the bundles, sorted. */
    public fun names(): List<String> = root.listFiles().orEmpty()
        .filter { it.isDirectory && isName(it.name) }
        .map { it.name }
        .sorted()

    /** Where the bundle [name] is. */
    public fun directory(name: String): File {
        require(isName(name)) { "\"$name\" is no name of a bundle" }
        return File(root, name)
    }

    /**
     * What the bundle [name] says of itself, with the sizes of its files, which are not read. One that is plainly
     * damaged is replaced first.
     */
    @Synchronized
    @Throws(BundleError::class, IOException::class)
    public fun info(name: String): BundleInfo = healing(name) { BundleInfo.read(directory(name)) }

    /** The bundle [name], every file verified. One that is damaged is replaced first, where there is another. */
    @Synchronized
    @Throws(BundleError::class, IOException::class)
    public fun open(name: String): ModelBundle = healing(name) { ModelBundle.open(directory(name)) }

    /**
     * Ends what an earlier process began, and puts bundles of the app to use that are new; [check] runs the golden
     * cases of each, and throws to refuse. To be called once, before anything else.
     *
     * @return why bundles of the app were not put to use, by name.
     */
    @Synchronized
    @Throws(IOException::class)
    internal fun prepare(check: (ModelBundle) -> Unit): Map<String, Throwable> {
        disk.makeDirectory(root)
        recover()
        val problems = LinkedHashMap<String, Throwable>()
        for (name in shipped.names()) {
            val problem = try {
                installShipped(name, check)
                continue
            } catch (error: Exception) {
                error
            } catch (error: OutOfMemoryError) {
                error
            }
            journal.write("The app's bundle \"$name\" was not put to use.", problem)
            problems[name] = problem
        }
        return problems
    }

    /**
     * Puts a bundle under [name], on trial where there was another. [write] fills an empty directory; [check] then has
     * the last word, with the new bundle verified and the old one untouched: it runs the golden cases, and throws to
     * refuse. Other threads may use the store while [write] is at work.
     */
    @Throws(BundleError::class, IOException::class)
    internal fun install(name: String, write: BundleWriter, check: (ModelBundle) -> Unit): Unit =
        place(name, write, check) { it.copy(current = id(name), starting = null) }

    /**
     * Starts the bundle [name]: [load] loads its program and asks it something. A bundle on trial that fails, or in
     * whose first start the app ended, gives way to the one before; one that succeeds stays.
     */
    @Synchronized
    @Throws(BundleError::class, IOException::class)
    internal fun <T> start(name: String, load: (ModelBundle) -> T): T {
        val bundle = open(name)
        if (!previous(name).isDirectory) return load(bundle)
        ifPossible { remember(name) { it.copy(starting = bundle.manifest.id) } }
        val started = try {
            load(bundle)
        } catch (error: Throwable) {
            val isBundlesFault = error is Exception && error !is BundleError.OutOfMemory && error !is IOException
            if (isBundlesFault && rollBack(name)) {
                journal.write("\"$name\" could not be started; the bundle before it is in use again.", error)
                return load(ModelBundle.open(directory(name)))
            }
            ifPossible { remember(name) { it.copy(starting = null) } }
            throw error
        }
        ifPossible { discard(previous(name)) } // first: a full storage can still rename
        ifPossible { remember(name) { it.copy(starting = null) } }
        return started
    }

    /** A start does not fail because nothing can be written any more. */
    private fun ifPossible(write: () -> Unit) = try {
        write()
    } catch (error: IOException) {
        journal.write("The state of the bundles could not be written.", error)
    }

    private fun recover() {
        for (file in root.listFiles().orEmpty()) {
            if (file.name.startsWith(INCOMING) || file.name.startsWith(TRASH)) disk.deleteTree(file)
            if (file.name.startsWith(STATE) && file.name.endsWith(BundleState.PART)) disk.deleteTree(file)
        }
        for (name in names(READY)) if (isWhole(ready(name))) swap(name) else discard(ready(name))
        for (name in names(PREVIOUS)) if (!directory(name).exists()) disk.rename(previous(name), directory(name))
        for (name in names(STATE)) {
            val state = state(name) ?: continue
            val id = idOrNull(name) ?: continue
            if (state.starting == id && rollBack(name)) {
                journal.write("The app ended while \"$name\" was started; the bundle before it is in use again.", null)
            } else if (state.starting != null || state.current != id) {
                remember(name) { it.copy(current = id, starting = null) }
            }
        }
    }

    private fun names(prefix: String) = root.list().orEmpty().filter { it.startsWith(prefix) }
        .map { it.removePrefix(prefix) }.filter { isName(it) }.sorted()

    private fun installShipped(name: String, check: (ModelBundle) -> Unit) {
        val id = shippedId(name)
        val isThere = directory(name).isDirectory
        val state = state(name)
        when {
            // Put there by hand, or by a process that ended before it could say so: it stays.
            isThere && (state == null || state.shipped != id && state.current == id) && isWhole(directory(name)) ->
                remember(name) { BundleState(current = id(name), shipped = id) }
            !isThere || state?.shipped != id -> place(name, { shipped.copy(name, it) }, check) { fromApp(id) }
        }
    }

    private fun fromApp(id: String) = BundleState(current = id, shipped = id)

    private fun shippedId(name: String) = BundleManifest.read(shipped.manifest(name), name).id

    /** Whatever [read] finds damaged is replaced, and read again. */
    private fun <T> healing(name: String, read: () -> T): T = try {
        read()
    } catch (error: Exception) {
        if (error !is BundleError && error !is IOException || !heal(name, error)) throw error
        read()
    }

    private fun heal(name: String, error: Exception): Boolean {
        val isShipped = try {
            name in shipped.names() && (state(name)?.current == shippedId(name) || !isWhole(previous(name)))
        } catch (_: BundleError) {
            false
        }
        if (isShipped) {
            place(name, { shipped.copy(name, it) }, check = {}) { fromApp(shippedId(name)) }
            journal.write("\"$name\" was damaged and was copied from the app again.", error)
        } else if (rollBack(name)) {
            journal.write("\"$name\" was damaged; the bundle before it is in use again.", error)
        } else {
            return false
        }
        return true
    }

    /** Puts the bundle back that is kept for [name]. False where there is none, or it is damaged. */
    private fun rollBack(name: String): Boolean {
        if (!isWhole(previous(name))) return false
        discard(directory(name))
        disk.rename(previous(name), directory(name))
        remember(name) { it.copy(current = id(name), starting = null) }
        return true
    }

    private fun place(
        name: String,
        write: BundleWriter,
        check: (ModelBundle) -> Unit,
        state: (BundleState) -> BundleState,
    ) {
        directory(name) // a wrong name is refused before anything is written
        val incoming = File(root, INCOMING + UUID.randomUUID())
        disk.makeDirectory(incoming)
        try {
            write.write(incoming)
            val bundle = ModelBundle.open(incoming)
            disk.syncTree(incoming)
            synchronized(this) {
                check(bundle)
                discard(ready(name))
                disk.rename(incoming, ready(name))
                swap(name)
                ifPossible { remember(name, state) }
            }
        } catch (error: Throwable) {
            disk.deleteTree(incoming)
            throw error
        }
    }

    /** Puts `.ready-NAME` in its place. Of the bundles it replaces, one that is not on trial is kept. */
    private fun swap(name: String) {
        val current = directory(name)
        try {
            if (current.exists()) {
                if (isWhole(previous(name)) || !isWhole(current)) {
                    discard(current)
                } else {
                    discard(previous(name))
                    disk.rename(current, previous(name))
                }
            }
            disk.rename(ready(name), current)
        } catch (error: IOException) {
            if (previous(name).exists() && !current.exists()) disk.rename(previous(name), current)
            discard(ready(name))
            throw error
        }
    }

    /** Removes [directory], which is under another name before its first file is gone. */
    private fun discard(directory: File) {
        if (!directory.exists()) return
        val trash = File(root, TRASH + UUID.randomUUID())
        disk.rename(directory, trash)
        disk.deleteTree(trash)
    }

    private fun isWhole(directory: File) = try {
        directory.isDirectory && ModelBundle.open(directory).manifest.id.isNotEmpty()
    } catch (_: BundleError) {
        false
    } catch (_: IOException) {
        false
    }

    private fun id(name: String) = BundleInfo.read(directory(name)).manifest.id

    private fun idOrNull(name: String) = try {
        id(name)
    } catch (_: BundleError) {
        null
    }

    private fun previous(name: String) = File(root, PREVIOUS + name)

    private fun ready(name: String) = File(root, READY + name)

    private fun state(name: String) = BundleState.read(File(root, STATE + name))

    private fun remember(name: String, change: (BundleState) -> BundleState) =
        change(state(name) ?: BundleState()).write(File(root, STATE + name), disk)

    public companion object {
        private const val INCOMING = ".incoming-"
        private const val READY = ".ready-"
        private const val PREVIOUS = ".previous-"
        private const val TRASH = ".trash-"
        private const val STATE = ".state-"
        private val NAME = Regex("[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")

        /** Whether [text] can be the name of a bundle. */
        @JvmStatic
        public fun isName(text: String): Boolean = NAME.matches(text)
    }
}
