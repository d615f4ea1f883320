package org.ondevice.demo

import android.content.ActivityNotFoundException
import android.content.ContentResolver
import android.content.Intent
import android.net.Uri
import android.os.Bundle
import android.provider.OpenableColumns
import android.widget.Button
import android.widget.LinearLayout
import android.widget.TableLayout
import android.widget.TableRow
import android.widget.TextView
import java.io.FileNotFoundException
import java.io.InputStream

/** Compares the bundles side by side, and replaces them from files. */
class CompareActivity : StateActivity<CompareState>() {
    override val presenter by lazy { app.compare }
    private lateinit var table: TableLayout
    private lateinit var status: TextView
    private lateinit var measure: Button
    private lateinit var buttons: LinearLayout

    /** The bundle that the file picker was opened for; null for a new one. */
    private var picking: String? = null

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.compare)
        table = findViewById(R.id.table)
        status = findViewById(R.id.status)
        measure = findViewById(R.id.measure)
        buttons = findViewById(R.id.buttons)
        measure.setOnClickListener { presenter.measure() }
        picking = savedInstanceState?.getString(KEY_PICKING)
        presenter.start(savedInstanceState?.getString(KEY_FIGURES))
    }

    override fun onSaveInstanceState(outState: Bundle) {
        super.onSaveInstanceState(outState)
        outState.putString(KEY_PICKING, picking)
        outState.putString(KEY_FIGURES, presenter.save())
    }

    override fun show(state: CompareState) {
        showTable(state.columns)
        showButtons(state)
        val isIdle = state.work == CompareWork.NONE
        measure.isEnabled = isIdle && state.columns.isNotEmpty()
        for (index in 0 until buttons.childCount) buttons.getChildAt(index).isEnabled = isIdle
        status.showText(statusText(state))
    }

    private fun statusText(state: CompareState): String {
        val problems = listOfNotNull(state.problem) +
            state.columns.filter { it.problem != null }.map { "${it.name}: ${it.problem}" }
        val now = when (state.work) {
            CompareWork.LISTING -> getString(R.string.loading)
            CompareWork.MEASURING -> getString(R.string.measuring)
            CompareWork.REPLACING -> getString(R.string.replacing)
            CompareWork.NONE -> when {
                state.problem != null -> null
                state.replaced != null -> getString(R.string.replaced, state.replaced)
                state.columns.isEmpty() -> getString(R.string.no_bundles)
                state.isMeasured -> getString(
                    R.string.measured,
                    ComparePresenter.NUM_CANDIDATES, ComparePresenter.PLAN.numCalls, ComparePresenter.PLAN.numWarmups,
                )
                else -> getString(R.string.not_measured)
            }
        }
        return (listOfNotNull(now) + problems).joinToString("\n")
    }

    private fun showTable(columns: List<CompareColumn>) {
        if (table.tag == columns) return
        table.tag = columns
        table.removeAllViews()
        if (columns.isEmpty()) return
        table.addView(row("", columns.map { Cell(it.name, it.name) }, isHeading = true))
        addRow(R.string.row_size, columns) { column -> column.totalBytes?.let { kilobytes(it) } }
        addRow(R.string.row_load, columns) { column -> column.loadMillis?.let { millis(it) } }
        addRow(R.string.row_p50, columns) { column -> column.p50Millis?.let { millis(it) } }
        addRow(R.string.row_p95, columns) { column -> column.p95Millis?.let { millis(it) } }
        addRow(R.string.row_memory, columns) { column -> column.memoryBytes?.let { kilobytes(it) } }
    }

    private class Cell(val text: String, val spoken: String)

    private fun addRow(label: Int, columns: List<CompareColumn>, figure: (CompareColumn) -> String?) {
        val name = getString(label)
        val cells = columns.map { column ->
            val text = figure(column)
            val spoken = text ?: getString(R.string.absent_description)
            Cell(text ?: getString(R.string.absent), getString(R.string.cell_description, column.name, name, spoken))
        }
        table.addView(row(name, cells, isHeading = false))
    }

    private fun row(label: String, cells: List<Cell>, isHeading: Boolean): TableRow {
        val row = TableRow(this)
        row.addView(cell(Cell(label, label), isHeading = true))
        cells.forEach { row.addView(cell(it, isHeading)) }
        return row
    }

    private fun cell(cell: Cell, isHeading: Boolean): TextView {
        val view = TextView(this)
        val heading = android.R.style.TextAppearance_Material_Caption
        view.setTextAppearance(if (isHeading) heading else android.R.style.TextAppearance_Material_Body1)
        view.text = cell.text
        view.contentDescription = cell.spoken
        val padding = resources.getDimensionPixelSize(R.dimen.cell_padding)
        view.setPaddingRelative(0, padding, 2 * padding, padding)
        return view
    }

    private fun kilobytes(bytes: Long) = getString(R.string.kilobytes, "%,.1f".format(bytes / 1000.0))

    private fun millis(millis: Double) = getString(R.string.milliseconds, "%.2f".format(millis))

    private fun showButtons(state: CompareState) {
        val names = state.columns.map { it.name }
        if (buttons.tag == names) return
        buttons.tag = names
        buttons.removeAllViews()
        names.forEach { name -> addButton(getString(R.string.replace, name), name) }
        addButton(getString(R.string.add), null)
    }

    private fun addButton(text: String, name: String?) {
        val button = Button(this, null, android.R.attr.borderlessButtonStyle)
        button.text = text
        button.setOnClickListener { pick(name) }
        buttons.addView(
            button,
            LinearLayout.LayoutParams(LinearLayout.LayoutParams.MATCH_PARENT, LinearLayout.LayoutParams.WRAP_CONTENT),
        )
    }

    private fun pick(name: String?) {
        picking = name
        val intent = Intent(Intent.ACTION_OPEN_DOCUMENT)
            .addCategory(Intent.CATEGORY_OPENABLE)
            .setType("*/*")
            .putExtra(Intent.EXTRA_MIME_TYPES, arrayOf("application/zip", "application/octet-stream"))
        try {
            startActivityForResult(intent, REQUEST_PICK)
        } catch (_: ActivityNotFoundException) {
            status.showText(getString(R.string.no_picker))
        }
    }

    override fun onActivityResult(requestCode: Int, resultCode: Int, data: Intent?) {
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
