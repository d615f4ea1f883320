package org.ondevice.core

import java.io.File
import java.io.IOException

/** The bundles that came with the app: new ones are put to use, and they replace what is damaged. */
public interface ShippedBundles {
    @Throws(IOException::class)
    public fun names(): List<String>

    /** The bytes of the manifest of the bundle [name]. */
    @Throws(IOException::class)
    public fun manifest(name: String): ByteArray

    /** Copies the files of the bundle [name] into [target], an empty directory. */
    @Throws(IOException::class)
    public fun copy(name: String, target: File)

    public companion object {
        /** An app that ships none. */
        @JvmField
        public val NONE: ShippedBundles = object : ShippedBundles {
            override fun names() = emptyList<String>()
            override fun manifest(name: String) = throw IOException("no bundle $name")
            override fun copy(name: String, target: File) = throw IOException("no bundle $name")
        }
    }
}
