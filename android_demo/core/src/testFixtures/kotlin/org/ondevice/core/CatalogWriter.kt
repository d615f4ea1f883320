package org.ondevice.core

import java.io.ByteArrayOutputStream
import java.util.zip.Deflater

/** Writes `catalog.bin` as the exporter does: for tests, which also need files that no exporter writes. */
class CatalogWriter(numItems: Int, numColumns: Int) {
    private val out = ByteArrayOutputStream()

    init {
        varint(numItems)
        varint(numColumns)
    }

    fun varint(number: Int) = apply {
        var rest = number
        while (rest > 0x7f) {
            out.write(rest and 0x7f or 0x80)
            rest = rest ushr 7
        }
        out.write(rest)
    }

    fun byte(value: Int) = apply { out.write(value) }

    /** The bytes of each text, then all texts. */
    fun list(texts: List<String>) = apply {
        val data = texts.map { it.toByteArray() }
        data.forEach { varint(it.size) }
        data.forEach { out.write(it) }
    }

    fun texts(name: String, texts: List<String>) = list(listOf(name)).byte(1).list(texts)

    fun values(name: String, column: List<Any?>): CatalogWriter {
        val values = column.distinct()
        list(listOf(name)).byte(2).varint(values.size).list(values.map { Json.write(it) })
        column.forEach { varint(values.indexOf(it)) }
        return this
    }

    /** The whole file; [size] is what it says of its contents. */
    fun bytes(size: Int = out.size()): ByteArray {
        val deflater = Deflater(9, true)
        deflater.setInput(out.toByteArray())
        deflater.finish()
        val deflated = ByteArray(2 * out.size() + 64)
        val count = deflater.deflate(deflated)
        deflater.end()
        val head = CatalogWriter(size, 0).out.toByteArray().dropLast(1)
        return "ODC1".toByteArray() + head.toByteArray() + deflated.copyOf(count)
    }
}
