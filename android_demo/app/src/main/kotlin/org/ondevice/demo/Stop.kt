package org.ondevice.demo

import java.util.concurrent.CancellationException

/** The wish to end what is being measured, heard at every call that is timed. */
class Stop {
    @Volatile
    var isAsked = false

    fun check() {
        if (isAsked) throw CancellationException("stopped")
    }

    fun nanoTime(): Long {
        check()
        return System.nanoTime()
    }
}
