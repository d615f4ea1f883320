package org.ondevice.core

import java.io.File
import java.io.FileOutputStream
import java.io.IOException
import java.nio.channels.FileChannel
import java.nio.file.StandardOpenOption

/** What [BundleStore] does to the phone's storage, each a step after which the process may end; tests end it there. */
internal open class Disk {
    open fun makeDirectory(directory: File) {
        if (!directory.isDirectory && !directory.mkdirs()) throw IOException("$directory cannot be made")
    }

    /** Files and directories alike, at once or not at all, and for good when this returns. */
    open fun rename(from: File, to: File) {
        if (!from.renameTo(to)) throw IOException("${from.name} could not be renamed to ${to.name}")
        syncDirectory(to.parentFile)
    }

    open fun deleteTree(directory: File) {
        directory.deleteRecursively()
    }

    open fun write(file: File, text: String) {
        FileOutputStream(file).use {
            it.write(text.encodeToByteArray())
            it.fd.sync()
        }
    }

    /** Waits until all files of [directory], and their names in it, are on the storage. */
    open fun syncTree(directory: File) {
        for (file in directory.listFiles().orEmpty()) {
            FileChannel.open(file.toPath(), StandardOpenOption.WRITE).use { it.force(true) }
        }
        syncDirectory(directory)
    }

    open fun syncDirectory(directory: File) {
        try {
            FileChannel.open(directory.toPath(), StandardOpenOption.READ).use { it.force(true) }
        } catch (_: IOException) {
            // A system that opens no directories writes their entries soon, though not at once.
        }
    }
}
