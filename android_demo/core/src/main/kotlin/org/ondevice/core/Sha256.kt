package org.ondevice.core

import java.io.File
import java.io.IOException
import java.security.MessageDigest

/** SHA-256 as lower-case hexadecimal. */
public object Sha256 {
    @JvmStatic
    public fun of(data: ByteArray): String = hex(MessageDigest.getInstance("SHA-256").digest(data))

    @JvmStatic
    @Throws(IOException::class)
    public fun of(file: File): String {
        val digest = MessageDigest.getInstance("SHA-256")
        val buffer = ByteArray(64 * 1024)
        file.inputStream().use { input ->
            while (true) {
                val size = input.read(buffer)
                if (size < 0) break
                digest.update(buffer, 0, size)
            }
        }
        return hex(digest.digest())
    }

    private fun hex(bytes: ByteArray): String {
        val digits = "0123456789abcdef"
        return buildString(2 * bytes.size) {
            for (byte in bytes) append(digits[(byte.toInt() shr 4) and 15]).append(digits[byte.toInt() and 15])
        }
    }
}
