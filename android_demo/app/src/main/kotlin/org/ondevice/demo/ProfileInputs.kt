package org.ondevice.demo

import android.text.Editable
import android.text.TextWatcher
import android.view.View
import android.widget.EditText
import android.widget.LinearLayout
import android.widget.Spinner
import android.widget.TextView

/**
 * The fields of a profile: a list of choices, or a line to write in, for each.
 *
 * @param change told of each field's new value.
 */
class ProfileInputs(private val group: LinearLayout, private val change: (String, String) -> Unit) {
    private val context = group.context
    private val resources = group.resources
    private var shown: List<ProfileInput> = emptyList()
    val areShown get() = shown.isNotEmpty()

    /** Views are kept while the fields stay, so that typing is not interrupted. */
    fun show(inputs: List<ProfileInput>) {
        val fields = inputs.map { it.copy(value = "") }
        if (shown != fields) {
            shown = fields
            group.removeAllViews()
            inputs.forEach { add(it) }
        }
        for (input in inputs) {
            when (val view = group.findViewWithTag<View>(input.field)) {
                is Spinner -> view.setChoices(
                    listOf(context.getString(R.string.unknown_value)) + input.choices.map { it.label },
                    input.choices.indexOfFirst { it.key == input.value } + 1,
                )
                is EditText -> if (view.text.toString() != input.value) view.setText(input.value)
            }
        }
    }

    private fun add(input: ProfileInput) {
        val view = if (input.choices.isEmpty()) line(input) else list(input)
        view.id = View.generateViewId()
        view.tag = input.field
        view.minimumHeight = resources.getDimensionPixelSize(R.dimen.touch_target)
        val label = TextView(context, null, 0, R.style.Label)
        label.text = when {
            // Their values are in the list, or have no names here: hashed, or found by fingerprints.
            input.choices.isNotEmpty() || input.numKnown == 0 -> input.field
            else -> resources.getQuantityString(R.plurals.known_values, input.numKnown, input.field, input.numKnown)
        }
        label.labelFor = view.id
        group.addView(label)
        group.addView(view)
    }

    private fun list(input: ProfileInput): View = Spinner(context).apply {
        onChosen { position -> change(input.field, input.choices.getOrNull(position - 1)?.key.orEmpty()) }
    }

    private fun line(input: ProfileInput): View = EditText(context).apply {
        setSingleLine()
        hint = context.getString(R.string.unknown_value)
        // The field's own state would be restored under another field's value.
        isSaveEnabled = false
        addTextChangedListener(object : TextWatcher {
            override fun beforeTextChanged(text: CharSequence?, start: Int, count: Int, after: Int) = Unit
            override fun onTextChanged(text: CharSequence?, start: Int, before: Int, count: Int) = Unit
            override fun afterTextChanged(text: Editable) = change(input.field, text.toString())
        })
    }
}
