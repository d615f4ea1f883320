package org.ondevice.demo

import android.content.Intent
import android.os.Bundle
import android.text.Editable
import android.text.TextWatcher
import android.view.View
import android.widget.AdapterView
import android.widget.ArrayAdapter
import android.widget.Button
import android.widget.EditText
import android.widget.LinearLayout
import android.widget.Spinner
import android.widget.TextView
import org.ondevice.core.ScoredItem
import java.util.Locale

/** Choose a profile, see the films ranked for it. */
class RecommendActivity : StateActivity<RecommendState>() {
    override val presenter by lazy { app.recommend }
    private lateinit var bundle: Spinner
    private lateinit var profile: Spinner
    private lateinit var inputs: LinearLayout
    private lateinit var recommend: Button
    private lateinit var status: TextView
    private lateinit var films: LinearLayout
    private var saved: SavedProfile? = null

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.recommend)
        bundle = findViewById(R.id.bundle)
        profile = findViewById(R.id.profile)
        inputs = findViewById(R.id.inputs)
        recommend = findViewById(R.id.recommend)
        status = findViewById(R.id.status)
        films = findViewById(R.id.films)
        bundle.onChosen { position ->
            presenter.state.bundleNames.getOrNull(position)?.let { presenter.selectBundle(it) }
        }
        profile.onChosen { position -> presenter.selectExample(position.takeIf { it < presenter.state.numExamples }) }
        recommend.setOnClickListener { presenter.recommend() }
        findViewById<Button>(R.id.compare).setOnClickListener {
            startActivity(Intent(this, CompareActivity::class.java))
        }
        saved = savedInstanceState?.let { restore(it) }
    }

    override fun onStart() {
        presenter.start(saved)
        super.onStart()
    }

    override fun onSaveInstanceState(outState: Bundle) {
        super.onSaveInstanceState(outState)
        val saved = presenter.save()
        outState.putString(KEY_BUNDLE, saved.bundle)
        outState.putInt(KEY_EXAMPLE, saved.example ?: -1)
        val values = Bundle()
        saved.values.forEach { (field, value) -> values.putString(field, value) }
        outState.putBundle(KEY_VALUES, values)
        outState.putBoolean(KEY_RANKED, saved.isRanked)
    }

    private fun restore(saved: Bundle): SavedProfile {
        val values = saved.getBundle(KEY_VALUES) ?: Bundle()
        return SavedProfile(
            saved.getString(KEY_BUNDLE),
            saved.getInt(KEY_EXAMPLE, -1).takeIf { it >= 0 },
            values.keySet().associateWith { values.getString(it).orEmpty() },
            saved.getBoolean(KEY_RANKED),
        )
    }

    override fun show(state: RecommendState) {
        bundle.setChoices(state.bundleNames, state.bundleNames.indexOf(state.selected))
        val examples = List(state.numExamples) { getString(R.string.example_profile, it + 1) }
        profile.setChoices(examples + getString(R.string.own_profile), state.example ?: state.numExamples)
        showInputs(state.inputs)
        recommend.isEnabled = !state.isBusy && state.selected != null
        status.showText(statusText(state))
        showFilms(state.ranking?.films.orEmpty())
    }

    private fun statusText(state: RecommendState): String {
        val ranking = state.ranking
        return when {
            state.isBusy -> getString(if (state.inputs.isEmpty()) R.string.loading else R.string.ranking)
            state.problem != null -> state.problem
            state.selected == null -> getString(R.string.no_bundles)
            !state.hasCatalog -> getString(R.string.no_catalog)
            ranking != null -> resources.getQuantityString(
                R.plurals.ranked, ranking.numRanked, ranking.numRanked, "%.2f".format(ranking.nanos / 1e6),
            )
            else -> ""
        }
    }

    /** Views are kept while the fields stay, so that typing is not interrupted. */
    private fun showInputs(shown: List<ProfileInput>) {
        val names = shown.map { it.field to it.choices }
        if (inputs.tag != names) {
            inputs.tag = names
            inputs.removeAllViews()
            shown.forEach { addInput(it) }
        }
        for (input in shown) {
            when (val view = inputs.findViewWithTag<View>(input.field)) {
                is Spinner -> view.setChoices(
                    listOf(getString(R.string.unknown_value)) + input.choices,
                    input.choices.indexOf(input.value) + 1,
                )
                is EditText -> if (view.text.toString() != input.value) view.setText(input.value)
            }
        }
    }

    private fun addInput(input: ProfileInput) {
        val label = TextView(this, null, 0, R.style.Label)
        label.text = when (input.numKnown) {
            0 -> input.field // hashed, or found by fingerprints: its values have no names here
            else -> resources.getQuantityString(R.plurals.known_values, input.numKnown, input.field, input.numKnown)
        }
        val view: View = if (input.choices.isNotEmpty()) {
            Spinner(this).apply {
                onChosen { position -> presenter.setValue(input.field, input.choices.getOrElse(position - 1) { "" }) }
            }
        } else {
            EditText(this).apply {
                setSingleLine()
                hint = getString(R.string.unknown_value)
                // The field's own state would be restored under another field's value.
                isSaveEnabled = false
                addTextChangedListener(object : TextWatcher {
                    override fun beforeTextChanged(text: CharSequence?, start: Int, count: Int, after: Int) = Unit
                    override fun onTextChanged(text: CharSequence?, start: Int, before: Int, count: Int) = Unit
                    override fun afterTextChanged(text: Editable) = presenter.setValue(input.field, text.toString())
                })
            }
        }
        view.id = View.generateViewId()
        view.tag = input.field
        view.minimumHeight = resources.getDimensionPixelSize(R.dimen.touch_target)
        label.labelFor = view.id
        inputs.addView(label)
        inputs.addView(view)
    }

    private fun showFilms(shown: List<ScoredItem>) {
        if (films.tag === shown) return
        films.tag = shown
        films.removeAllViews()
        shown.forEachIndexed { index, film -> films.addView(row(index + 1, film)) }
    }

    private fun row(position: Int, film: ScoredItem): View {
        val view = layoutInflater.inflate(R.layout.film, films, false)
        val score = "%.3f".format(Locale.getDefault(), film.score)
        view.findViewById<TextView>(R.id.position).text = getString(R.string.film_position, position)
        view.findViewById<TextView>(R.id.title).text = film.title
        view.findViewById<TextView>(R.id.score).text = score
        view.contentDescription = getString(R.string.film_description, position, film.title, score)
        return view
    }

    private companion object {
        const val KEY_BUNDLE = "bundle"
        const val KEY_EXAMPLE = "example"
        const val KEY_VALUES = "values"
        const val KEY_RANKED = "ranked"
    }
}

/** Sets a text that TalkBack announces, only when it is another. */
fun TextView.showText(text: String) {
    if (this.text.toString() != text) this.text = text
    visibility = if (text.isEmpty()) View.GONE else View.VISIBLE
}

/** Shows [choices], with the adapter replaced only when they differ, and chooses without telling the listener twice. */
fun Spinner.setChoices(choices: List<String>, selected: Int) {
    if (getTag(R.id.choices) != choices) {
        setTag(R.id.choices, choices)
        adapter = ArrayAdapter(context, android.R.layout.simple_spinner_item, choices).apply {
            setDropDownViewResource(android.R.layout.simple_spinner_dropdown_item)
        }
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
