package org.ondevice.demo

import android.graphics.Bitmap
import android.graphics.Canvas
import android.graphics.Color
import android.graphics.Rect
import android.view.View
import android.view.ViewGroup
import android.widget.EditText
import android.widget.ImageButton
import android.widget.ScrollView
import android.widget.Spinner
import android.widget.TextView
import java.io.File

/** What a person sees of a screen, and what is wrong with it. */
class Look(private val root: View) {
    val picture: Bitmap = Bitmap.createBitmap(root.width, root.height, Bitmap.Config.ARGB_8888)
    private val density = root.resources.displayMetrics.density
    private val views = shown(root)
    private val texts = views.filterIsInstance<TextView>().filter { it.text.isNotEmpty() }

    init {
        root.draw(Canvas(picture))
    }

    fun write(file: File) = file.outputStream().use { picture.compress(Bitmap.CompressFormat.PNG, 100, it) }

    /** Texts of which every line is on the screen. */
    fun readable(): List<String> = texts.filter { view ->
        val seen = Rect()
        view.getGlobalVisibleRect(seen) && seen.height() == view.height && seen.width() == view.width
    }.map { it.text.toString() }

    /** One line for each thing that a person could not read, hear or touch. */
    fun problems(): List<String> =
        texts.mapNotNull { cut(it) } + texts.mapNotNull { faint(it) } + views.mapNotNull { unreachable(it) }

    private fun shown(view: View): List<View> {
        if (view.visibility != View.VISIBLE) return emptyList()
        val children = (view as? ViewGroup)?.let { group -> List(group.childCount) { group.getChildAt(it) } }.orEmpty()
        return listOf(view) + children.flatMap { shown(it) }
    }

    private fun name(view: View) = "\"${(view as? TextView)?.text ?: view.javaClass.simpleName}\""

    /** Text that does not fit into its view, or a view that does not fit into the window's width. */
    private fun cut(view: TextView): String? {
        val layout = view.layout ?: return "${name(view)} is not laid out"
        val room = view.height - view.compoundPaddingTop - view.compoundPaddingBottom
        val place = IntArray(2).also { view.getLocationOnScreen(it) }
        val ellipsis = (0 until layout.lineCount).any { layout.getEllipsisCount(it) > 0 }
        // A line to write in scrolls.
        val isWide = view !is EditText && (0 until layout.lineCount).any { layout.getLineMax(it) > layout.width + 1 }
        return when {
            ellipsis || isWide -> "${name(view)} is cut at its end"
            layout.height > room -> "${name(view)} has $room of ${layout.height} pixels of height"
            place[0] < 0 || place[0] + view.width > root.width -> "${name(view)} leaves the window's sides"
            else -> null
        }
    }

    /** Text whose contrast is less than WCAG's AA; what cannot be used now may be fainter. */
    private fun faint(view: TextView): String? {
        val seen = Rect()
        if (!view.isEnabled || !view.getGlobalVisibleRect(seen)) return null
        val background = mostCommon(seen)
        val isLarge = view.textSize / density >= 24 || (view.textSize / density >= 18.7 && view.typeface?.isBold == true)
        val ratio = contrast(over(view.currentTextColor, background), background)
        return if (ratio >= if (isLarge) 3.0 else 4.5) null else "${name(view)} has a contrast of %.2f".format(ratio)
    }

    private fun mostCommon(rect: Rect): Int {
        val counts = HashMap<Int, Int>()
        for (y in rect.top until rect.bottom step 2) {
            for (x in rect.left until rect.right step 2) counts.merge(picture.getPixel(x, y), 1, Int::plus)
        }
        return counts.maxByOrNull { it.value }!!.key
    }

    private fun over(color: Int, background: Int): Int {
        val alpha = Color.alpha(color) / 255.0
        fun mix(a: Int, b: Int) = (a * alpha + b * (1 - alpha)).toInt()
        return Color.rgb(
            mix(Color.red(color), Color.red(background)),
            mix(Color.green(color), Color.green(background)),
            mix(Color.blue(color), Color.blue(background)),
        )
    }

    private fun contrast(a: Int, b: Int): Double {
        val (lighter, darker) = listOf(Color.luminance(a), Color.luminance(b)).sortedDescending()
        return (lighter + 0.05) / (darker + 0.05)
    }

    /** Something to touch that is small, or that TalkBack has no words for. */
    private fun unreachable(view: View): String? {
        val isInput = view is Spinner || view is EditText || view is ImageButton
        if (!(view.isClickable || isInput) || view is ScrollView) return null
        val pixels = 48 * density - 1
        if (view.height < pixels || view.width < pixels) {
            return "${name(view)} is ${(view.width / density).toInt()} x ${(view.height / density).toInt()} dp"
        }
        return if (words(view).isEmpty()) "${name(view)} has no words for TalkBack" else null
    }

    private fun words(view: View): String {
        val label = views.firstOrNull { it.labelFor == view.id && view.id != View.NO_ID } as? TextView
        val own = view.contentDescription ?: (view as? TextView)?.let { it.text.ifEmpty { it.hint } }
        // What is chosen or written says nothing without its field.
        val needsLabel = view is Spinner || view is EditText
        return (if (needsLabel) label?.text else own ?: label?.text)?.toString().orEmpty()
    }
}
