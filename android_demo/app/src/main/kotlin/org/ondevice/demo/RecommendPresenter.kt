package org.ondevice.demo

import org.ondevice.core.BundleError
import org.ondevice.core.ModelBundle
import org.ondevice.core.ScoredItem

/**
 * A context field to fill in.
 *
 * @property choices its known values when they are few; else empty, and any text may be written.
 */
data class ProfileInput(val field: String, val numKnown: Int, val choices: List<String>, val value: String) {
    /** Filled in; with choices, a value that is none of them is unknown. */
    fun with(value: String?) = copy(value = value?.takeIf { choices.isEmpty() || it in choices } ?: "")
}

/** The ranked films, and how long the ranking took. */
data class Ranking(val films: List<ScoredItem>, val numRanked: Int, val nanos: Long)

/** @property example which golden case's profile is shown; null for the user's own values. */
data class RecommendState(
    val bundleNames: List<String> = emptyList(),
    val selected: String? = null,
    val numExamples: Int = 0,
    val example: Int? = null,
    val inputs: List<ProfileInput> = emptyList(),
    val isBusy: Boolean = true,
    val hasCatalog: Boolean = true,
    val ranking: Ranking? = null,
    val problem: String? = null,
)

/**
 * What survives the end of the process.
 *
 * @property isRanked whether a ranking was on the screen, so that it is made again.
 */
class SavedProfile(
    val bundle: String?,
    val example: Int?,
    val values: Map<String, String>,
    val isRanked: Boolean = false,
)

class RecommendPresenter(private val bundles: Bundles, private val worker: Worker) :
    Presenter<RecommendState>(RecommendState()) {
    private var isStarted = false

    /** What is being put back: until it is, the state is not worth saving. */
    private var restoring: SavedProfile? = null

    /** [Bundles.revision] when the state's bundle was read. */
    private var revision = 0

    /** Profiles of the golden cases of the selected bundle. */
    private var examples: List<Map<String, String>> = emptyList()

    /** Loads the first bundle, or the one of [saved]; later calls only look for bundles that were put to use since. */
    fun start(saved: SavedProfile?) {
        if (isStarted) {
            refresh()
            return
        }
        isStarted = true
        load(saved?.bundle, saved)
    }

    fun save(): SavedProfile =
        restoring ?: SavedProfile(state.selected, state.example, values(), state.ranking != null)

    private fun values(): Map<String, String> = state.inputs.associate { it.field to it.value }

    fun selectBundle(name: String) {
        if (name != state.selected) load(name, save())
    }

    fun selectExample(example: Int?) {
        if (example == state.example) return
        val values = example?.let { examples[it] }
        state = state.copy(
            example = example,
            inputs = if (values == null) state.inputs else state.inputs.map { it.with(values[it.field]) },
            ranking = null,
        )
    }

    fun setValue(field: String, value: String) {
        if (state.inputs.none { it.field == field && it.value != value }) return
        state = state.copy(
            example = null,
            inputs = state.inputs.map { if (it.field == field) it.with(value) else it },
            ranking = null,
        )
    }

    fun recommend() {
        val name = state.selected ?: return
        if (state.isBusy) return
        val profile = values()
        state = state.copy(isBusy = true, problem = null)
        worker.run({ rank(name, profile) }) { result ->
            if (state.selected != name) return@run
            state = state.copy(
                isBusy = false,
                ranking = result.getOrNull()?.takeIf { values() == profile },
                hasCatalog = result.isFailure || result.getOrNull() != null,
                problem = result.exceptionOrNull()?.let { BundleError.explain(it) },
            )
        }
    }

    private fun rank(name: String, profile: Map<String, String>): Ranking? {
        val session = bundles.session(name)
        val numItems = session.recommender.numItems
        if (numItems == 0) return null
        val start = System.nanoTime()
        val films = session.recommender.recommend(profile, NUM_FILMS)
        return Ranking(films, numItems, System.nanoTime() - start)
    }

    private class Loaded(
        val revision: Int,
        val names: List<String>,
        val selected: String?,
        val examples: List<Map<String, String>>,
        val inputs: List<ProfileInput>,
        val problem: String?,
    )

    private fun load(wanted: String?, saved: SavedProfile?) {
        restoring = saved
        state = state.copy(selected = wanted, isBusy = true, ranking = null, problem = null)
        worker.run({ read(wanted) }) { result ->
            if (state.selected != wanted) return@run
            restoring = null
            val loaded = result.getOrElse {
                state = state.copy(isBusy = false, problem = BundleError.explain(it))
                return@run
            }
            revision = loaded.revision
            examples = loaded.examples
            val example = (if (saved == null) 0 else saved.example)?.takeIf { it in examples.indices }
            val values = example?.let { examples[it] } ?: saved?.values.orEmpty()
            state = RecommendState(
                bundleNames = loaded.names,
                selected = loaded.selected,
                numExamples = examples.size,
                example = example,
                inputs = loaded.inputs.map { it.with(values[it.field]) },
                isBusy = false,
                problem = loaded.problem,
            )
            if (saved != null && saved.isRanked && loaded.problem == null) recommend()
        }
    }

    private fun read(wanted: String?): Loaded {
        bundles.prepare()
        val names = bundles.store.names()
        val selected = wanted?.takeIf { it in names } ?: names.firstOrNull()
        val problems = bundles.problems.map { (name, problem) -> "$name: $problem" }
        val problem = problems.joinToString("\n").ifEmpty { null }
        val revision = bundles.revision
        if (selected == null) return Loaded(revision, names, null, emptyList(), emptyList(), problem)
        val bundle = try {
            bundles.session(selected).bundle
        } catch (error: Throwable) { // too little memory is an Error
            val all = problems + "$selected: ${BundleError.explain(error)}"
            return Loaded(revision, names, selected, emptyList(), emptyList(), all.joinToString("\n"))
        }
        return Loaded(revision, names, selected, examples(bundle), inputs(bundle), problem)
    }

    private fun refresh() {
        worker.run({ bundles.revision }) { result ->
            if (result.getOrNull() != revision) load(state.selected, state.selected?.let { save() })
        }
    }

    private fun examples(bundle: ModelBundle): List<Map<String, String>> = bundle.manifest.golden.map { case ->
        bundle.manifest.contextFields.map { bundle.manifest.fields[it] }.associate { field ->
            field.name to (field.canonicalText(case.raw[field.name])?.takeIf { !field.hasTransform }
                ?: case.raw[field.name]?.toString().orEmpty())
        }
    }

    private fun inputs(bundle: ModelBundle): List<ProfileInput> = bundle.manifest.contextFields.map { position ->
        val field = bundle.manifest.fields[position]
        val numKnown = bundle.vocabulary.numKeys(position)
        val keys = if (field.hasTransform || numKnown > MAX_CHOICES) {
            emptyList()
        } else {
            val keys = List(numKnown) { bundle.vocabulary.key(position, it) }
            if (field.isInteger) keys.sortedBy { it.toLong() } else keys.sorted()
        }
        ProfileInput(field.name, numKnown, keys, "")
    }

    private companion object {
        const val NUM_FILMS = 20
        const val MAX_CHOICES = 60
    }
}
