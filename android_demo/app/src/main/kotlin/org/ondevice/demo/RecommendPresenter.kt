package org.ondevice.demo

import org.ondevice.core.ModelBundle

class RecommendPresenter(private val bundles: Bundles, private val worker: Worker, private val log: Log) :
    Presenter<RecommendState>(RecommendState.Loading()) {
    private var isStarted = false

    /** The profile that the model which is being loaded gets; null for that of its first example. */
    private var restoring: SavedProfile? = null

    /** [Bundles.revision] when the state's bundle was read. */
    private var revision = 0

    /** Profiles of the golden cases of the selected bundle. */
    private var examples: List<Map<String, String>> = emptyList()

    private val ready: RecommendState.Ready? get() = state as? RecommendState.Ready

    /** Loads the first bundle, or the one of [saved]; later calls only look for bundles that were put to use since. */
    fun start(saved: SavedProfile?) {
        if (isStarted) {
            refresh()
            return
        }
        isStarted = true
        load(saved?.bundle, saved)
    }

    /** Reads the bundles again when one was put to use meanwhile. */
    fun refresh() {
        if (isStarted && bundles.revision != revision) load(state.models.selected, profile())
    }

    fun save(): SavedProfile = profile() ?: SavedProfile(state.models.selected, 0, emptyMap())

    private fun profile(): SavedProfile? = ready?.let {
        SavedProfile(it.models.selected, it.profile.example, it.profile.values, it.answer is Answer.Ranked)
    } ?: restoring

    fun selectBundle(name: String) {
        if (name != state.models.selected) load(name, profile())
    }

    fun selectExample(example: Int?) {
        val profile = ready?.profile ?: return
        if (example == profile.example) return
        val values = example?.let { examples[it] }
        val inputs = if (values == null) profile.inputs else profile.inputs.map { it.with(values[it.field]) }
        change(profile.copy(example = example, inputs = inputs))
    }

    fun setValue(field: String, value: String) {
        val profile = ready?.profile ?: return
        if (profile.inputs.none { it.field == field && it.value != value }) return
        val inputs = profile.inputs.map { if (it.field == field) it.with(value) else it }
        change(profile.copy(example = null, inputs = inputs))
    }

    /** A ranking is of the values it was asked for: other values end it. */
    private fun change(profile: Profile) {
        val shown = ready ?: return
        val answer = if (shown.answer is Answer.Ranking) shown.answer else Answer.NotAsked
        state = shown.copy(profile = profile, answer = answer)
    }

    fun recommend() {
        val asked = ready ?: return
        if (asked.answer is Answer.Ranking) return
        val name = asked.models.selected ?: return
        state = asked.copy(answer = Answer.Ranking, warning = null)
        worker.run({ bundles.use(name) { rank(it, asked.profile.values) } }) { result ->
            val now = ready?.takeIf { it.models.selected == name && it.answer is Answer.Ranking } ?: return@run
            val answer = result.getOrElse { Answer.Failed(log.explain("ranking with $name", it)) }
            val isOutdated = answer is Answer.Ranked && now.profile.values != asked.profile.values
            state = now.copy(answer = if (isOutdated) Answer.NotAsked else answer)
        }
    }

    private fun rank(session: Session, profile: Map<String, String>): Answer {
        val numItems = session.recommender.numItems
        if (numItems == 0) return Answer.NothingToRank
        val start = System.nanoTime()
        val films = session.recommender.recommend(profile, NUM_FILMS)
        return Answer.Ranked(films, numItems, System.nanoTime() - start)
    }

    /** What is read of the bundles; [problem] is of [models]' selected one, which then has no inputs. */
    private class Loaded(
        val revision: Int,
        val models: Models,
        val examples: List<Map<String, String>>,
        val inputs: List<ProfileInput>,
        val warning: String?,
        val problem: String?,
    )

    private fun load(wanted: String?, saved: SavedProfile?) {
        restoring = saved
        val loading = RecommendState.Loading(state.models.copy(selected = wanted))
        state = loading
        worker.run({ read(wanted) }) { result ->
            if (state !== loading) return@run // another was chosen meanwhile
            val loaded = result.getOrElse {
                state = RecommendState.Unusable(loading.models, log.explain("looking for models", it))
                return@run
            }
            revision = loaded.revision
            show(loaded, saved)
        }
    }

    private fun show(loaded: Loaded, saved: SavedProfile?) {
        val problems = listOfNotNull(loaded.warning, loaded.problem).joinToString("\n").ifEmpty { null }
        if (loaded.models.selected == null) {
            state = RecommendState.Empty(problems, loaded.models.hasNext)
            return
        }
        if (loaded.problem != null) {
            state = RecommendState.Unusable(loaded.models, problems!!)
            return
        }
        restoring = null
        examples = loaded.examples
        val example = (if (saved == null) 0 else saved.example)?.takeIf { it in examples.indices }
        val values = example?.let { examples[it] } ?: saved?.values.orEmpty()
        val profile = Profile(examples.size, example, loaded.inputs.map { it.with(values[it.field]) })
        state = RecommendState.Ready(loaded.models, profile, warning = loaded.warning)
        if (saved != null && saved.isRanked) recommend()
    }

    private fun read(wanted: String?): Loaded {
        bundles.prepare()
        val revision = bundles.revision
        val names = bundles.names()
        val hasNext = bundles.nextItemNames().isNotEmpty()
        val models = Models(names, wanted?.takeIf { it in names } ?: names.firstOrNull(), hasNext)
        val warning = bundles.problems.map { (name, problem) -> "$name: $problem" }.joinToString("\n").ifEmpty { null }
        val selected = models.selected ?: return Loaded(revision, models, emptyList(), emptyList(), warning, null)
        return try {
            bundles.use(selected) { session ->
                Loaded(revision, models, examples(session.bundle), inputs(session.bundle), warning, null)
            }
        } catch (error: Throwable) { // too little memory is an Error
            val problem = "$selected: ${log.explain("loading $selected", error)}"
            Loaded(revision, models, emptyList(), emptyList(), warning, problem)
        }
    }

    private fun examples(bundle: ModelBundle): List<Map<String, String>> = bundle.manifest.golden.map { case ->
        bundle.manifest.contextFields.map { bundle.manifest.fields[it] }.associate { field ->
            val raw = case.raw[field.name]
            val key = if (field.slots > 1) field.joined(raw) else field.canonicalText(raw)?.takeIf { !field.hasTransform }
            field.name to (key ?: raw?.toString().orEmpty())
        }
    }

    private fun inputs(bundle: ModelBundle): List<ProfileInput> = bundle.manifest.contextFields.map { position ->
        val field = bundle.manifest.fields[position]
        val numKnown = bundle.vocabulary.numKeys(position)
        val keys = if (field.hasTransform || field.slots > 1 || numKnown > MAX_CHOICES) {
            emptyList()
        } else {
            val keys = List(numKnown) { bundle.vocabulary.key(position, it) }
            if (field.isInteger) keys.sortedBy { it.toLong() } else keys.sorted()
        }
        val labels = bundle.manifest.labels[field.name].orEmpty()
        ProfileInput(field.name, numKnown, keys.map { Choice(it, labels[it] ?: it) }, "")
    }

    private companion object {
        const val NUM_FILMS = 20
        const val MAX_CHOICES = 60
    }
}
