package org.ondevice.core

/**
 * An item that a person did something with, and when.
 *
 * @property key the item's key, raw or canonical.
 * @property at when, in seconds since 1970 (not milliseconds); null where it is not known.
 */
public class Tap @JvmOverloads constructor(public val key: Any?, public val at: Double? = null) {
    init {
        require(at == null || at.isFinite()) { "the time of a tap is $at, it must be a number of seconds" }
    }

    override fun toString(): String = if (at == null) "$key" else "$key at $at"

    public companion object {
        /** The present moment in seconds since 1970, by the clock of this phone. */
        @JvmStatic
        public fun now(): Double = System.currentTimeMillis() / 1000.0
    }
}
