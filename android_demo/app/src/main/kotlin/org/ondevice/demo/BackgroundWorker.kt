package org.ondevice.demo

import android.os.Handler
import android.os.Looper
import java.util.concurrent.Executors

class BackgroundWorker(name: String) : Worker {
    private val executor = Executors.newSingleThreadExecutor { Thread(it, "ondevice-$name") }
    private val main = Handler(Looper.getMainLooper())

    override fun <T> run(work: () -> T, done: (Result<T>) -> Unit) {
        executor.execute {
            val result = runCatching(work)
            main.post { done(result) }
        }
    }
}
