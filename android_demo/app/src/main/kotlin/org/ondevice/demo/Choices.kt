package org.ondevice.demo

import android.view.View
import android.widget.AdapterView
import android.widget.ArrayAdapter
import android.widget.Spinner

/** Shows [choices], with the adapter replaced only when they differ, and chooses without telling the listener twice. */
fun Spinner.setChoices(choices: List<String>, selected: Int) {
    if (getTag(R.id.choices) != choices) {
        setTag(R.id.choices, choices)
        adapter = ArrayAdapter(context, R.layout.choice, choices)
    }
    if (selected >= 0 && selectedItemPosition != selected) setSelection(selected)
}

/** Calls [choose] for each choice, the user's and the app's own alike: choosing what is chosen changes nothing. */
fun Spinner.onChosen(choose: (Int) -> Unit) {
    // The choice belongs to the presenter; a spinner that restored its own would override it.
    isSaveEnabled = false
    onItemSelectedListener = object : AdapterView.OnItemSelectedListener {
        override fun onItemSelected(parent: AdapterView<*>?, view: View?, position: Int, id: Long) = choose(position)
        override fun onNothingSelected(parent: AdapterView<*>?) = Unit
    }
}
