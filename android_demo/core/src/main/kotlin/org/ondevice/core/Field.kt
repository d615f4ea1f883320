package org.ondevice.core

import java.math.BigDecimal
import java.math.MathContext

/**
 * One column of the model's input, as the manifest's schema describes it.
 *
 * @property isContext whether `rank` takes it once (a user's attributes) or for each candidate.
 * @property isInteger whether its keys are integers, those of buckets included; else they are texts.
 * @property transform what makes the keys, one of [TRANSFORMS]; null: they are the values.
 * @property slots above 1, it has several values: a list, or a text with separators, of which so many count at most.
 * @property of of a history: the field whose values it holds, oldest first, of which the last [slots] count. It has no
 *   keys of its own.
 * @property gaps of a history whose time gaps the model reads: `since` the item before, or `until` the item after, of
 *   the newest until the present moment.
 */
public class Field internal constructor(
    public val name: String,
    public val isContext: Boolean,
    public val isInteger: Boolean,
    public val transform: String? = null,
    private val origin: Double = 0.0,
    private val missing: Long? = null,
    public val slots: Int = 1,
    private val separator: String? = null,
    private val boundaries: DoubleArray? = null,
    public val of: String? = null,
    public val gaps: String? = null,
) {
    internal val isNumber: Boolean get() = boundaries != null

    /** Whether the keys are not values a person would write. */
    public val hasTransform: Boolean get() = transform != null || boundaries != null

    /**
     * The canonical text of a raw value, or null for a value that no vocabulary can hold.
     *
     * Integers: 25, 25.0, "25" and " 25 " are one key. Texts keep every character ("02138" is not 2138); an empty
     * text is a missing value: unknown, or the key `missing`. With the transform `log_bucket`, v' = v - origin
     * becomes floor(ln(v')^2) above 2, else 1; with `log_integer`, an integer above 2 becomes floor(ln(v)^2) and
     * others stay; with `hex`, a hexadecimal text becomes the number it writes. A number with boundaries becomes
     * how many of them are not above it.
     */
    public fun canonicalText(raw: Any?): String? = when {
        raw == null || raw == "" -> missing?.toString()
        boundaries != null -> number(raw)?.let { value -> boundaries.count { it <= value }.toString() }
        transform == "log_bucket" -> number(raw)?.let { logBucket(it - origin) }
        transform == "log_integer" -> integer(raw)?.let { if (it.toLong() > 2) logBucket(it.toDouble()) else it }
        transform == "hex" -> (raw as? String)?.takeIf { HEX.matches(it) }?.toLong(16)?.toString()
        isInteger -> integer(raw)
        else -> text(raw)
    }

    /**
     * The canonical text of each slot, null where it has no value: those of the first distinct values of a list, or of
     * a text with separators, spaces around each left out.
     */
    public fun canonicalTexts(raw: Any?): List<String?> {
        if (slots == 1) return listOf(canonicalText(raw))
        val texts = elements(raw).mapNotNull { canonicalText(it) }.distinct().take(slots)
        return texts + List(slots - texts.size) { null }
    }

    /** The canonical texts of a history's values in their order, repeated ones too; those without one left out. */
    internal fun sequence(raw: Any?): List<String> =
        if (raw == null) emptyList() else elements(raw).mapNotNull { canonicalText(it) }

    /** [isForeign] of any of a history's values. */
    internal fun hasForeign(raw: Any?) = raw != null && elements(raw).any { isForeign(it) }

    /** The values of a list as the text that this field reads as them; without a separator the first alone. */
    public fun joined(raw: Any?): String {
        val texts = elements(raw).filterNotNull()
        return if (separator == null) texts.take(1).joinToString("") else texts.joinToString(separator)
    }

    private fun elements(raw: Any?): List<Any?> = when (raw) {
        is String -> if (separator == null) listOf(raw) else raw.split(separator).map { text -> text.trim { it == ' ' } }
        is Iterable<*> -> raw.toList()
        is Array<*> -> raw.toList()
        is IntArray -> raw.toList()
        is LongArray -> raw.toList()
        else -> listOf(raw)
    }

    /** Whether a text without a canonical one stands where the keys are integers: a mistake, not a missing value. */
    internal fun isForeign(raw: Any?) = isInteger && (if (slots == 1) listOf(raw) else elements(raw)).any {
        it is String && it != "" && it != UNKNOWN && canonicalText(it) == null
    }

    /** The canonical text of a key, which with a transform is not what makes it. */
    internal fun keyText(key: Any): String? = if (isInteger) integer(key) else text(key)

    /** The raw value of a canonical text. */
    internal fun rawKey(text: String): Any = if (isInteger) text.toLong() else text

    private fun logBucket(value: Double): String {
        if (value <= 2.0) return "1"
        val logarithm = Math.log(value)
        return Math.floor(logarithm * logarithm).toLong().toString()
    }

    private fun number(raw: Any): Double? = when (raw) {
        is Number -> raw.toDouble()
        is Boolean -> if (raw) 1.0 else 0.0
        is String -> raw.trim().takeIf { NUMBER.matches(it) }?.toDouble()
        else -> null
    }?.takeIf { it.isFinite() }

    private fun integer(raw: Any): String? = when (raw) {
        is Boolean -> if (raw) "1" else "0"
        is Float, is Double -> (raw as Number).toDouble().let { if (isWhole(it)) wholeText(it) else null }
        is Number -> raw.toString()
        is String -> INTEGER.matchEntire(raw.trim())?.let { it.groupValues[1] }
        else -> null
    }?.toLongOrNull()?.toString()

    private fun text(raw: Any): String? = when (raw) {
        is Boolean -> if (raw) "True" else "False"
        is Float, is Double -> {
            val value = (raw as Number).toDouble()
            if (!value.isFinite()) null else if (isWhole(value)) wholeText(value) else shortestText(value)
        }
        else -> raw.toString().ifEmpty { null }
    }

    private fun isWhole(value: Double) = value.isFinite() && value == Math.rint(value)

    private fun wholeText(value: Double) = BigDecimal(value).toBigInteger().toString()

    /** The fewest digits that read back as [value], written as Python writes them: 0.0001, but 1e-05. */
    private fun shortestText(value: Double): String {
        val exact = BigDecimal(value)
        val rounded = (1..17).map { exact.round(MathContext(it)) }.first { it.toDouble() == value }
        val shortest = rounded.stripTrailingZeros()
        val exponent = shortest.precision() - shortest.scale() - 1
        if (exponent >= -4) return shortest.toPlainString()
        val digits = shortest.unscaledValue().abs().toString()
        val fraction = if (digits.length == 1) "" else "." + digits.substring(1)
        val sign = if (shortest.signum() < 0) "-" else ""
        return sign + digits[0] + fraction + "e-" + (-exponent).toString().padStart(2, '0')
    }

    public companion object {
        /** What this reader knows to compute. */
        internal val TRANSFORMS: Set<String> = setOf("log_bucket", "log_integer", "hex")

        /** A raw value that says it is not known, also of an integer. */
        public const val UNKNOWN: String = "?"
        private val NUMBER = Regex("[+-]?([0-9]+(\\.[0-9]*)?|\\.[0-9]+)([eE][+-]?[0-9]+)?")
        private val INTEGER = Regex("([+-]?[0-9]+)(?:\\.0*)?")
        private val HEX = Regex("[0-9a-fA-F]{1,15}")
    }
}
