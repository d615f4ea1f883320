package org.ondevice.demo

import android.app.Activity
import android.os.Looper
import org.junit.After
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.runner.RunWith
import org.ondevice.core.BundleManifest
import org.ondevice.core.Json
import org.ondevice.core.Sha256
import org.robolectric.ParameterizedRobolectricTestRunner
import org.robolectric.Robolectric
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode
import java.io.File
import java.time.Duration

/** How a phone may be held and set. */
enum class Setting(val qualifiers: String, val fontScale: Float = 1f) {
    LIGHT("w411dp-h891dp-xhdpi"),
    NIGHT("w411dp-h891dp-night-xhdpi"),
    RIGHT_TO_LEFT("ar-ldrtl-w411dp-h891dp-xhdpi"),
    LARGE_TYPE("w411dp-h891dp-xhdpi", 2f),
    LANDSCAPE("w891dp-h411dp-land-xhdpi"),
    SMALL("w320dp-h533dp-hdpi"),
    SMALL_LARGE_TYPE("w320dp-h533dp-hdpi", 2f),
}

/** Runs an activity with the Android build of the runtime under it, and looks at it. Once for each [Setting]. */
@RunWith(ParameterizedRobolectricTestRunner::class)
@Config(sdk = [34])
@GraphicsMode(GraphicsMode.Mode.NATIVE)
abstract class Screen(private val setting: Setting) {
    protected val app get() = RuntimeEnvironment.getApplication() as DemoApplication
    private val bundles get() = File(app.filesDir, "bundles")
    private val opened = ArrayList<org.robolectric.android.controller.ActivityController<*>>()

    @Before
    fun prepare() {
        System.load(System.getProperty("native.dir") + "/libpreload.so")
        RuntimeEnvironment.setQualifiers(setting.qualifiers)
        RuntimeEnvironment.setFontScale(setting.fontScale)
        File(System.getProperty("screens.bundles")).copyRecursively(bundles)
    }

    @After
    fun leave() {
        opened.forEach { it.pause().stop().destroy() }
        app.bundles.close()
    }

    protected fun removeBundles() = assertTrue(bundles.deleteRecursively())

    protected fun damage(name: String) = File(bundles, "$name/${BundleManifest.PROGRAM}").appendText("x")

    /** The bundle [name] as it would be without a catalog, and without `recommend`. */
    protected fun removeCatalog(name: String) {
        val file = File(bundles, "$name/${BundleManifest.FILE}")
        @Suppress("UNCHECKED_CAST")
        val values = LinkedHashMap(Json.parse(file.readText()) as Map<String, Any?>)
        values.remove("catalog")
        values["files"] = (values["files"] as Map<*, *>).filterKeys { it != BundleManifest.CATALOG }
        values["methods"] = (values["methods"] as Map<*, *>).filterKeys { it != "recommend" }
        values["sha256"] = "0".repeat(64)
        val text = Json.write(values)
        file.writeText(text.replaceFirst("0".repeat(64), Sha256.of(text.toByteArray())))
    }

    protected fun <A : Activity> open(activity: Class<A>): A {
        val controller = Robolectric.buildActivity(activity).also { opened.add(it) }
        return controller.setup().get()
    }

    /** Lets the app work until [isDone]. */
    protected fun await(isDone: () -> Boolean) {
        val end = System.nanoTime() + 60_000_000_000
        while (!isDone()) {
            assertTrue("the app has not answered after a minute", System.nanoTime() < end)
            Thread.sleep(5)
            shadowOf(Looper.getMainLooper()).idle()
        }
    }

    /** Draws as often as it takes to scroll to a stand. */
    protected fun settle(activity: Activity) = repeat(8) {
        shadowOf(Looper.getMainLooper()).idleFor(Duration.ofMillis(100))
        Look(activity.window.decorView)
    }

    /** Takes the picture [name], and fails where a person could not use what is on it. */
    protected fun look(activity: Activity, name: String): Look {
        val look = Look(activity.window.decorView)
        val setting = setting.name.lowercase().replace('_', '-')
        look.write(File(System.getProperty("screens.out"), "$name-$setting.png"))
        assertEquals("$name, $setting", emptyList<String>(), look.problems())
        return look
    }

    /** Whatever the digits that the language writes. */
    protected fun assertReads(look: Look, part: String) {
        val readable = look.readable().map { text -> text.map { if (it.isDigit()) '0' + it.digitToInt() else it }.joinToString("") }
        assertTrue("\"$part\" cannot be read; $readable can", readable.any { part in it })
    }
}
