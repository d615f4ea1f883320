package org.ondevice.demo

import android.content.Intent
import android.graphics.Rect
import android.os.Bundle
import android.view.View
import android.view.inputmethod.InputMethodManager
import android.widget.Button
import android.widget.LinearLayout
import android.widget.Spinner
import android.widget.TextView
import org.ondevice.core.ScoredItem

/** Choose a profile, see the films ranked for it. */
class RecommendActivity : StateActivity<RecommendState>() {
    override val presenter by lazy { app.recommend }
    private lateinit var bundleGroup: View
    private lateinit var bundle: Spinner
    private lateinit var profileGroup: View
    private lateinit var profile: Spinner
    private lateinit var inputs: ProfileInputs
    private lateinit var recommend: Button
    private lateinit var next: Button
    private lateinit var results: View
    private lateinit var status: TextView
    private lateinit var films: LinearLayout
    private var saved: SavedProfile? = null

    /** The answer that is on the screen: each is brought into view once. */
    private var shown: Answer? = null

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setScreen(R.layout.recommend)
        bundleGroup = findViewById(R.id.bundle_group)
        bundle = findViewById(R.id.bundle)
        profileGroup = findViewById(R.id.profile_group)
        profile = findViewById(R.id.profile)
        inputs = ProfileInputs(findViewById(R.id.inputs), presenter::setValue)
        recommend = findViewById(R.id.recommend)
        results = findViewById(R.id.results)
        status = findViewById(R.id.status)
        films = findViewById(R.id.films)
        bundle.onChosen { position ->
            presenter.state.models.names.getOrNull(position)?.let { presenter.selectBundle(it) }
        }
        profile.onChosen { position ->
            val ready = presenter.state as? RecommendState.Ready ?: return@onChosen
            presenter.selectExample(position.takeIf { it < ready.profile.numExamples })
        }
        recommend.setOnClickListener {
            hideKeyboard()
            presenter.recommend()
        }
        next = findViewById(R.id.next)
        next.setOnClickListener { startActivity(Intent(this, NextActivity::class.java)) }
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
        bundle.setChoices(state.models.names, state.models.names.indexOf(state.models.selected))
        bundleGroup.isShown(state.models.names.isNotEmpty())
        next.isShown(state.models.hasNext)
        if (state is RecommendState.Ready) showProfile(state.profile)
        // While another model is loaded the profile stays as it is, so that the screen does not jump.
        if (state !is RecommendState.Loading || !inputs.areShown) profileGroup.isShown(state is RecommendState.Ready)
        val answer = (state as? RecommendState.Ready)?.answer
        recommend.isEnabled = answer != null && answer !is Answer.Ranking
        status.showText(statusText(state))
        val ranked = answer as? Answer.Ranked
        showFilms(ranked?.films.orEmpty())
        if (answer != shown) {
            shown = answer
            if (answer is Answer.Ranked || answer is Answer.Failed || answer is Answer.NothingToRank) reveal()
        }
        if (state is RecommendState.Unusable) reveal()
    }

    private fun View.isShown(isShown: Boolean) {
        visibility = if (isShown) View.VISIBLE else View.GONE
    }

    private fun showProfile(shown: Profile) {
        val examples = List(shown.numExamples) { getString(R.string.example_profile, it + 1) }
        profile.setChoices(examples + getString(R.string.own_profile), shown.example ?: shown.numExamples)
        inputs.show(shown.inputs)
    }

    private fun statusText(state: RecommendState): String = when (state) {
        is RecommendState.Loading -> getString(R.string.loading)
        is RecommendState.Empty -> state.problem ?: getString(if (state.hasNext) R.string.only_next else R.string.no_bundles)
        is RecommendState.Unusable -> state.problem
        is RecommendState.Ready -> when (val answer = state.answer) {
            is Answer.NotAsked -> state.warning.orEmpty()
            is Answer.Ranking -> getString(R.string.ranking)
            is Answer.NothingToRank -> getString(R.string.no_catalog)
            is Answer.Failed -> answer.problem
            is Answer.Ranked -> resources.getQuantityString(
                R.plurals.ranked, answer.numRanked, answer.numRanked, Units.time(this, answer.nanos / 1e3),
            )
        }
    }

    private fun showFilms(shown: List<ScoredItem>) {
        if (films.tag === shown) return
        films.tag = shown
        films.removeAllViews()
        shown.forEachIndexed { index, film -> films.addView(row(index + 1, film)) }
    }

    private fun row(position: Int, film: ScoredItem): View {
        val view = layoutInflater.inflate(R.layout.film, films, false)
        val score = Units.format(this, "%.3f", film.score)
        view.findViewById<TextView>(R.id.position).text = getString(R.string.film_position, position)
        view.findViewById<TextView>(R.id.title).text = film.title
        view.findViewById<TextView>(R.id.score).text = score
        view.setDescription(getString(R.string.film_description, position, film.title, score))
        return view
    }

    /** Scrolls to what was answered, from wherever the button was: on a small screen it is below it. */
    private fun reveal() {
        results.addOnLayoutChangeListener(object : View.OnLayoutChangeListener {
            override fun onLayoutChange(
                view: View, left: Int, top: Int, right: Int, bottom: Int,
                oldLeft: Int, oldTop: Int, oldRight: Int, oldBottom: Int,
            ) {
                results.removeOnLayoutChangeListener(this)
                results.post { results.requestRectangleOnScreen(Rect(0, 0, results.width, results.height)) }
            }
        })
        results.requestLayout()
    }

    private fun hideKeyboard() {
        getSystemService(InputMethodManager::class.java).hideSoftInputFromWindow(results.windowToken, 0)
    }

    private companion object {
        const val KEY_BUNDLE = "bundle"
        const val KEY_EXAMPLE = "example"
        const val KEY_VALUES = "values"
        const val KEY_RANKED = "ranked"
    }
}
