package org.ondevice.core

/** What is wrong with a JSON text, and at which character. */
public class JsonError(message: String, public val position: Int) : Exception("$message at character $position")

/**
 * RFC 8259 JSON, strictly: no comments, no NaN, no duplicate names, at most 64 levels.
 *
 * Objects become [Map] (in order), arrays [List], integers [Long], other numbers [Double].
 */
public object Json {
    private const val MAX_DEPTH = 64

    /** @throws JsonError if [text] is no JSON. */
    @JvmStatic
    @Throws(JsonError::class)
    public fun parse(text: String): Any? {
        val parser = Parser(text)
        val value = parser.value(0)
        parser.skipSpace()
        if (parser.position != text.length) throw JsonError("text after the end", parser.position)
        return value
    }

    @JvmStatic
    public fun write(value: Any?): String = StringBuilder().also { write(value, it) }.toString()

    private fun write(value: Any?, out: StringBuilder) {
        when (value) {
            null -> out.append("null")
            is Boolean -> out.append(value)
            is Byte, is Short, is Int, is Long -> out.append(value)
            is Float, is Double -> {
                val number = (value as Number).toDouble()
                require(number.isFinite()) { "JSON has no $number" }
                out.append(value)
            }
            is String -> quote(value, out)
            is Map<*, *> -> {
                out.append('{')
                value.entries.forEachIndexed { index, (name, item) ->
                    if (index > 0) out.append(',')
                    quote(name as String, out)
                    out.append(':')
                    write(item, out)
                }
                out.append('}')
            }
            is List<*> -> {
                out.append('[')
                value.forEachIndexed { index, item ->
                    if (index > 0) out.append(',')
                    write(item, out)
                }
                out.append(']')
            }
            else -> throw IllegalArgumentException("JSON cannot hold a ${value.javaClass.name}")
        }
    }

    private fun quote(text: String, out: StringBuilder) {
        out.append('"')
        for (char in text) {
            when {
                char == '"' || char == '\\' -> out.append('\\').append(char)
                char == '\n' -> out.append("\\n")
                char < ' ' -> out.append("\\u%04x".format(char.code))
                else -> out.append(char)
            }
        }
        out.append('"')
    }

    private class Parser(private val text: String) {
        var position = 0
            private set

        fun skipSpace() {
            while (position < text.length && text[position] in " \t\r\n") position++
        }

        fun value(depth: Int): Any? {
            skipSpace()
            val char = peek()
            if (depth == MAX_DEPTH && char in "[{") throw JsonError("more than $MAX_DEPTH levels", position)
            return when (char) {
                '{' -> readObject(depth)
                '[' -> readArray(depth)
                '"' -> readString()
                't' -> word("true", true)
                'f' -> word("false", false)
                'n' -> word("null", null)
                else -> readNumber()
            }
        }

        private fun peek(): Char {
            if (position == text.length) throw JsonError("the text ends too early", position)
            return text[position]
        }

        private fun take(expected: Char) {
            if (peek() != expected) throw JsonError("'$expected' expected, '${peek()}' found", position)
            position++
        }

        private fun word(word: String, value: Any?): Any? {
            if (!text.startsWith(word, position)) throw JsonError("a value expected", position)
            position += word.length
            return value
        }

        private fun readObject(depth: Int): Map<String, Any?> {
            val result = LinkedHashMap<String, Any?>()
            take('{')
            skipSpace()
            if (peek() == '}') {
                position++
                return result
            }
            while (true) {
                skipSpace()
                val start = position
                val name = readString()
                if (name in result) throw JsonError("\"$name\" twice", start)
                skipSpace()
                take(':')
                result[name] = value(depth + 1)
                skipSpace()
                if (peek() == '}') break
                take(',')
            }
            position++
            return result
        }

        private fun readArray(depth: Int): List<Any?> {
            val result = ArrayList<Any?>()
            take('[')
            skipSpace()
            if (peek() == ']') {
                position++
                return result
            }
            while (true) {
                result.add(value(depth + 1))
                skipSpace()
                if (peek() == ']') break
                take(',')
            }
            position++
            return result
        }

        private fun readString(): String {
            take('"')
            val result = StringBuilder()
            while (true) {
                val char = peek()
                position++
                when {
                    char == '"' -> return result.toString()
                    char == '\\' -> result.append(escape())
                    char < ' ' -> throw JsonError("a control character in a string", position - 1)
                    else -> result.append(char)
                }
            }
        }

        private fun escape(): Char {
            val char = peek()
            position++
            return when (char) {
                '"', '\\', '/' -> char
                'b' -> '\b'
                'f' -> '\u000C'
                'n' -> '\n'
                'r' -> '\r'
                't' -> '\t'
                'u' -> {
                    val digits = text.substring(position, minOf(position + 4, text.length))
                    if (digits.length < 4 || digits.any { Character.digit(it, 16) < 0 }) {
                        throw JsonError("four hexadecimal digits expected", position)
                    }
                    position += 4
                    digits.toInt(16).toChar()
                }
                else -> throw JsonError("no escape '\\$char'", position - 1)
            }
        }

        private fun readNumber(): Any {
            val start = position
            while (position < text.length && (text[position].isLetterOrDigit() || text[position] in "+-.")) position++
            val token = text.substring(start, position)
            if (!NUMBER.matches(token)) throw JsonError("a value expected", start)
            return token.toLongOrNull() ?: token.toDouble()
        }
    }

    private val NUMBER = Regex("-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?")
}

/** A JSON object with the path to it, so that a wrong value is reported by its name. */
internal class JsonObject(private val values: Map<*, *>, private val path: String) {
    val names: Set<String> get() = values.keys.mapTo(LinkedHashSet()) { it as String }

    operator fun contains(name: String) = values[name] != null

    fun string(name: String): String = required(name, "a text") { it as? String }

    fun stringOrNull(name: String): String? = if (name in this) string(name) else null

    fun long(name: String): Long = required(name, "an integer") { it as? Long }

    fun int(name: String): Int = required(name, "an integer of 0 to 2^31-1") {
        (it as? Long)?.takeIf { value -> value in 0..Int.MAX_VALUE }?.toInt()
    }

    fun double(name: String): Double = required(name, "a number") { (it as? Number)?.toDouble() }

    fun list(name: String): List<Any?> = required(name, "a list") { it as? List<*> }

    fun strings(name: String): List<String> = list(name).map { it as? String ?: wrong(name, "a list of texts") }

    fun objects(name: String): List<JsonObject> = list(name).mapIndexed { index, item ->
        JsonObject(item as? Map<*, *> ?: wrong("$name[$index]", "an object"), "${at(name)}[$index]")
    }

    fun child(name: String): JsonObject = JsonObject(required(name, "an object") { it as? Map<*, *> }, at(name))

    fun raw(name: String): Any? = values[name]

    fun toMap(): Map<String, Any?> = values.entries.associate { (name, value) -> name as String to value }

    private fun at(name: String) = if (path.isEmpty()) name else "$path.$name"

    private fun wrong(name: String, expected: String): Nothing =
        throw BundleError.BadManifest("${at(name)} must be $expected")

    private fun <T : Any> required(name: String, expected: String, convert: (Any) -> T?): T {
        val value = values[name] ?: throw BundleError.BadManifest("${at(name)} is missing")
        return convert(value) ?: wrong(name, expected)
    }
}
