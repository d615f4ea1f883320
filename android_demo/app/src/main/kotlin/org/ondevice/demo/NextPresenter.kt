package org.ondevice.demo

import org.ondevice.core.History
import org.ondevice.core.Query
import org.ondevice.core.ScoredItem
import org.ondevice.core.Tap
import java.io.File

/** What the screen of likes and dislikes shows. */
sealed interface NextState {
    data object Loading : NextState

    /** No model in this app says what comes next. */
    data object Empty : NextState

    data class Failed(val problem: String) : NextState

    /**
     * @property films the best ones after what the person likes, of [numRanked], and how long the ranking took.
     * @property liked titles of what the person likes, the newest first.
     */
    data class Ready(
        val films: List<ScoredItem>,
        val liked: List<String>,
        val numDisliked: Int,
        val numRanked: Int,
        val nanos: Long,
    ) : NextState
}

/**
 * Keeps what a person likes and dislikes, and asks the model after each tap. What is liked is the history that the
 * model reads; what is disliked is left out, and no model hears of it.
 *
 * @param folder where the taps are kept.
 * @param clock the present moment, in seconds: when each tap was, and when the model is asked.
 */
class NextPresenter(
    private val bundles: Bundles,
    private val worker: Worker,
    folder: File,
    private val log: Log,
    private val clock: () -> Double = Tap::now,
) : Presenter<NextState>(NextState.Loading) {
    private class Taps(val liked: History, val disliked: History)

    private val likedFile = File(folder, "liked.json")
    private val dislikedFile = File(folder, "disliked.json")

    /** Of the worker's thread alone. */
    private var opened: Taps? = null

    /** Ranks with the model that is there now: another may have been put to use since. */
    fun start() = answer("ranking") {}

    fun like(key: String) = add("keeping a like", key) { it.liked }

    fun dislike(key: String) = add("keeping a dislike", key) { it.disliked }

    /** The moment is that of the tap, however long the worker takes to come to it. */
    private fun add(what: String, key: String, list: (Taps) -> History) {
        val at = clock()
        answer(what) { list(it).add(key, at) }
    }

    /** Forgets all taps, also where their files are not the app's. */
    fun startAgain() {
        worker.run({
            opened = null
            listOf(likedFile, dislikedFile).forEach { History.wipe(it) }
        }) { result -> result.onFailure { log.explain("forgetting", it) } }
        start()
    }

    private fun answer(what: String, change: (Taps) -> Unit) {
        worker.run({
            bundles.prepare()
            val taps = opened ?: Taps(History.open(likedFile), History.open(dislikedFile)).also { opened = it }
            change(taps)
            bundles.nextItemNames().firstOrNull()?.let { name -> bundles.use(name) { rank(it, taps) } } ?: NextState.Empty
        }) { result -> state = result.getOrElse { NextState.Failed(log.explain(what, it)) } }
    }

    private fun rank(session: Session, taps: Taps): NextState {
        val (liked, disliked) = taps.liked.taps to taps.disliked.keys
        val recommender = session.recommender
        val start = System.nanoTime()
        val films = recommender.recommend(liked, clock(), Query(NUM_FILMS, excluded = disliked))
        val nanos = System.nanoTime() - start
        val titles = liked.asReversed().map { it.key as String }.distinct().map { title(session, it) }
        return NextState.Ready(films, titles, disliked.distinct().size, recommender.numItems, nanos)
    }

    /** The key itself of what the catalogue does not have. */
    private fun title(session: Session, key: String): String {
        val catalog = session.recommender.catalog ?: return key
        val index = catalog.indexOf(key)
        return if (index < 0) key else catalog[index].title
    }

    private companion object {
        const val NUM_FILMS = 10
    }
}
