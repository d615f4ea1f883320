package org.ondevice.demo

import android.content.ActivityNotFoundException
import android.content.ContentResolver
import android.content.Intent
import android.net.Uri
import android.os.Bundle
import android.provider.OpenableColumns
import android.view.View
import android.widget.Button
import android.widget.LinearLayout
import android.widget.ProgressBar
import android.widget.TextView
import java.io.FileNotFoundException
import java.io.InputStream

/** Compares the bundles side by side, and replaces them from files. */
class CompareActivity : StateActivity<CompareState>() {
    override val presenter by lazy { app.compare }
    private lateinit var figures: LinearLayout
    private lateinit var status: TextView
    private lateinit var measure: Button
    private lateinit var buttons: LinearLayout

    /** The bundle that the file picker was opened for; null for a new one. */
    private var picking: String? = null

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setScreen(R.layout.compare)
        actionBar!!.setDisplayHomeAsUpEnabled(true)
        figures = findViewById(R.id.figures)
        status = findViewById(R.id.status)
        measure = findViewById(R.id.measure)
        buttons = findViewById(R.id.buttons)
        measure.setOnClickListener {
            if (presenter.state.work is CompareWork.Measuring) presenter.stopMeasuring() else presenter.measure()
        }
        picking = savedInstanceState?.getString(KEY_PICKING)
        presenter.start(savedInstanceState?.getString(KEY_FIGURES))
    }

    override fun onSaveInstanceState(outState: Bundle) {
        super.onSaveInstanceState(outState)
        outState.putString(KEY_PICKING, picking)
        outState.putString(KEY_FIGURES, presenter.save())
    }

    override fun show(state: CompareState) {
        showFigures(state.columns)
        showButtons(state)
        val measuring = state.work as? CompareWork.Measuring
        val isIdle = state.work is CompareWork.Idle
        measure.setText(if (measuring == null) R.string.measure else R.string.stop)
        measure.isEnabled = if (measuring == null) isIdle && state.columns.isNotEmpty() else !measuring.isStopping
        for (index in 0 until buttons.childCount) buttons.getChildAt(index).isEnabled = isIdle
        status.showText(statusText(state))
    }

    private fun statusText(state: CompareState): String {
        val now = when (val work = state.work) {
            is CompareWork.Listing -> getString(R.string.loading)
            is CompareWork.Measuring ->
                if (work.isStopping) getString(R.string.stopping)
                else getString(R.string.measuring, work.name, work.place, work.total)
            is CompareWork.Replacing -> getString(R.string.replacing)
            is CompareWork.Idle -> when (val outcome = work.outcome) {
                is Outcome.Failed -> outcome.problem
                is Outcome.Replaced -> getString(R.string.replaced, outcome.name)
                is Outcome.Stopped -> getString(R.string.stopped)
                is Outcome.Measured, null -> when {
                    state.columns.isEmpty() -> getString(R.string.no_models_to_compare)
                    state.isMeasured -> getString(
                        R.string.measured,
                        ComparePresenter.NUM_CANDIDATES,
                        ComparePresenter.PLAN.numCalls,
                        ComparePresenter.PLAN.numWarmups,
                    )
                    else -> getString(R.string.not_measured)
                }
            }
        }
        val problems = state.columns.mapNotNull { column ->
            column.problem?.let { getString(R.string.named_problem, column.name, it) }
        }
        return (listOf(now) + problems).joinToString("\n")
    }

    /** What is shown of one bundle: the figure, its text, what is said under it, and how much of it is the model. */
    private class Shown(val name: String, val value: Double?, val text: String?, val detail: String = "", val part: Double? = value)

    private fun showFigures(columns: List<CompareColumn>) {
        if (figures.tag == columns) return
        figures.tag = columns
        figures.removeAllViews()
        addSection(R.string.figure_size, columns.map { sizeOf(it) })
        if (columns.none { it.figures != null }) return
        addTimes(R.string.figure_p50, columns) { it.p50Micros }
        addTimes(R.string.figure_p95, columns) { it.p95Micros }
        addTimes(R.string.figure_load, columns) { it.loadMicros }
        addSection(
            R.string.figure_memory,
            columns.map { column ->
                val bytes = column.figures?.memoryBytes
                Shown(column.name, bytes?.toDouble(), bytes?.let { Units.bytes(this, it) })
            },
        )
    }

    private fun sizeOf(column: CompareColumn): Shown {
        val bytes = column.totalBytes ?: return Shown(column.name, null, null)
        val model = bytes - column.titleBytes
        val detail = if (column.titleBytes == 0L) "" else
            getString(R.string.parts, Units.bytes(this, model), Units.bytes(this, column.titleBytes))
        return Shown(column.name, bytes.toDouble(), Units.bytes(this, bytes), detail, model.toDouble())
    }

    private fun addTimes(heading: Int, columns: List<CompareColumn>, micros: (Figures) -> Double) = addSection(
        heading,
        columns.map { column ->
            val value = column.figures?.let(micros)
            Shown(column.name, value, value?.let { Units.time(this, it) })
        },
    )

    private fun addSection(heading: Int, shown: List<Shown>) {
        val largest = shown.mapNotNull { it.value }.maxOrNull() ?: return
        val title = TextView(this, null, 0, R.style.Section)
        title.setText(heading)
        title.setHeading()
        figures.addView(title)
        shown.forEach { figures.addView(row(getString(heading), it, largest)) }
    }

    private fun row(heading: String, shown: Shown, largest: Double): View {
        val view = layoutInflater.inflate(R.layout.figure, figures, false)
        view.findViewById<TextView>(R.id.name).text = shown.name
        view.findViewById<TextView>(R.id.value).text = shown.text ?: getString(R.string.absent)
        view.findViewById<TextView>(R.id.detail).showText(shown.detail)
        view.findViewById<ProgressBar>(R.id.bar).apply {
            val scale = if (largest > 0) max / largest else 0.0
            progress = ((shown.part ?: 0.0) * scale).toInt()
            secondaryProgress = ((shown.value ?: 0.0) * scale).toInt()
        }
        val spoken = listOf(shown.text ?: getString(R.string.absent_description), shown.detail)
        view.setDescription(
            getString(R.string.figure_description, shown.name, heading, spoken.filter { it.isNotEmpty() }.joinToString()),
        )
        return view
    }

    private fun showButtons(state: CompareState) {
        val names = state.columns.map { it.name }
        if (buttons.tag == names) return
        buttons.tag = names
        buttons.removeAllViews()
        names.forEach { name -> addButton(getString(R.string.replace, name), name) }
        addButton(getString(R.string.add), null)
    }

    private fun addButton(text: String, name: String?) {
        val button = layoutInflater.inflate(R.layout.other_action, buttons, false) as Button
        button.text = text
        button.setOnClickListener { pick(name) }
        buttons.addView(button)
    }

    private fun pick(name: String?) {
        picking = name
        val intent = Intent(Intent.ACTION_OPEN_DOCUMENT)
            .addCategory(Intent.CATEGORY_OPENABLE)
            .setType("*/*")
            .putExtra(Intent.EXTRA_MIME_TYPES, arrayOf("application/zip", "application/octet-stream"))
        try {
            @Suppress("DEPRECATION") // its successor is AndroidX's
            startActivityForResult(intent, REQUEST_PICK)
        } catch (error: ActivityNotFoundException) {
            app.log.error("opening the file picker", error)
            status.showText(getString(R.string.no_picker))
        }
    }

    @Deprecated("Deprecated in Java")
    override fun onActivityResult(requestCode: Int, resultCode: Int, data: Intent?) {
        @Suppress("DEPRECATION")
        super.onActivityResult(requestCode, resultCode, data)
        val uri = data?.data
        if (requestCode != REQUEST_PICK || resultCode != RESULT_OK || uri == null) return
        // The application's resolver: the activity may be gone when the worker reads.
        presenter.replace(picking, PickedDocument(applicationContext.contentResolver, uri))
    }

    private class PickedDocument(private val resolver: ContentResolver, private val uri: Uri) : PickedFile {
        override fun name(): String? =
            resolver.query(uri, arrayOf(OpenableColumns.DISPLAY_NAME), null, null, null)?.use {
                if (it.moveToFirst()) it.getString(0) else null
            }

        override fun open(): InputStream = resolver.openInputStream(uri) ?: throw FileNotFoundException(uri.toString())
    }

    private companion object {
        const val REQUEST_PICK = 1
        const val KEY_PICKING = "picking"
        const val KEY_FIGURES = "figures"
    }
}
