package org.example.films

import android.app.Activity
import android.os.Bundle
import android.widget.TextView
import kotlinx.coroutines.MainScope
import kotlinx.coroutines.cancel
import kotlinx.coroutines.launch
import org.ondevice.core.BundleError
import org.ondevice.core.Query
import org.ondevice.engine.OnDevice

/** Shows ten films for one person; the bundle is in the app's `assets/bundles/64KB`. */
class FilmsActivity : Activity() {
    private val scope = MainScope()

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        val text = TextView(this).also { setContentView(it) }
        scope.launch {
            text.text = try {
                OnDevice.open(this@FilmsActivity, "64KB").use { model ->
                    val films = model.recommend(mapOf("user" to 42, "gender" to "F"), Query(10, excluded = listOf(1193)))
                    films.joinToString("\n") { "${it.title} (${it.fields["genre"]}): ${it.score}" }
                }
            } catch (error: BundleError) {
                error.message
            }
        }
    }

    override fun onDestroy() {
        scope.cancel()
        super.onDestroy()
    }
}
