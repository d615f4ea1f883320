package org.ondevice.core

/** Where a developer reads what went wrong and what was done about it. Called on any thread. */
public fun interface Journal {
    public fun write(event: String, error: Throwable?)

    public companion object {
        /** Keeps nothing. */
        @JvmField
        public val NONE: Journal = Journal { _, _ -> }
    }
}
