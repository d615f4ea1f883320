package org.ondevice.engine

import android.content.res.AssetManager
import org.ondevice.core.BundleManifest
import org.ondevice.core.BundleStore
import org.ondevice.core.ShippedBundles
import java.io.File
import java.io.IOException

/** The bundles in the APK, as `assets/bundles/NAME/FILE`. */
public class AssetBundles(private val assets: AssetManager) : ShippedBundles {
    @Throws(IOException::class)
    override fun names(): List<String> = assets.list(ROOT).orEmpty().filter { BundleStore.isName(it) }

    @Throws(IOException::class)
    override fun manifest(name: String): ByteArray =
        assets.open("$ROOT/$name/${BundleManifest.FILE}").use { it.readBytes() }

    @Throws(IOException::class)
    override fun copy(name: String, target: File) {
        for (file in assets.list("$ROOT/$name").orEmpty()) {
            assets.open("$ROOT/$name/$file").use { input ->
                File(target, file).outputStream().use { input.copyTo(it) }
            }
        }
    }

    private companion object {
        const val ROOT = "bundles"
    }
}
