package org.ondevice.demo

import android.os.Bundle
import android.view.View
import android.widget.Button
import android.widget.ImageButton
import android.widget.LinearLayout
import android.widget.ScrollView
import android.widget.TextView
import org.ondevice.core.ScoredItem

/** Like a film or do not: the list of what comes next answers at once. */
class NextActivity : StateActivity<NextState>() {
    override val presenter by lazy { app.next }
    private lateinit var scroll: ScrollView
    private lateinit var status: TextView
    private lateinit var liked: TextView
    private lateinit var films: LinearLayout
    private lateinit var again: Button

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setScreen(R.layout.next)
        actionBar!!.setDisplayHomeAsUpEnabled(true)
        scroll = findViewById(R.id.scroll)
        status = findViewById(R.id.status)
        liked = findViewById(R.id.liked)
        films = findViewById(R.id.films)
        again = findViewById(R.id.again)
        again.setOnClickListener { presenter.startAgain() }
    }

    override fun onStart() {
        super.onStart()
        presenter.start()
    }

    override fun show(state: NextState) {
        status.showText(statusText(state))
        val ready = state as? NextState.Ready
        liked.showText(ready?.let { likedText(it) }.orEmpty())
        showFilms(ready?.films.orEmpty())
        val hasTaps = ready != null && (ready.liked.isNotEmpty() || ready.numDisliked > 0)
        again.visibility = if (hasTaps || state is NextState.Failed) View.VISIBLE else View.GONE
    }

    private fun statusText(state: NextState): String = when (state) {
        is NextState.Loading -> getString(R.string.loading)
        is NextState.Empty -> getString(R.string.no_next)
        is NextState.Failed -> state.problem
        is NextState.Ready -> resources.getQuantityString(
            R.plurals.ranked, state.numRanked, state.numRanked, Units.time(this, state.nanos / 1e3),
        )
    }

    private fun likedText(ready: NextState.Ready): String = when {
        ready.liked.isEmpty() -> getString(R.string.nothing_liked)
        ready.liked.size <= NUM_NAMED -> getString(R.string.liked, ready.liked.joinToString(SEPARATOR))
        else -> getString(
            R.string.more_liked, ready.liked.take(NUM_NAMED).joinToString(SEPARATOR), ready.liked.size - NUM_NAMED,
        )
    }

    private fun showFilms(shown: List<ScoredItem>) {
        if (films.tag === shown) return
        films.tag = shown
        films.removeAllViews()
        shown.forEach { films.addView(row(it)) }
        scroll.scrollTo(0, 0)
    }

    private fun row(film: ScoredItem): View {
        val view = layoutInflater.inflate(R.layout.next_film, films, false)
        view.findViewById<TextView>(R.id.title).text = film.title
        view.findViewById<ImageButton>(R.id.like).apply {
            contentDescription = getString(R.string.like, film.title)
            setOnClickListener { presenter.like(film.key) }
        }
        view.findViewById<ImageButton>(R.id.dislike).apply {
            contentDescription = getString(R.string.dislike, film.title)
            setOnClickListener { presenter.dislike(film.key) }
        }
        return view
    }

    private companion object {
        const val NUM_NAMED = 3
        const val SEPARATOR = " · "
    }
}
