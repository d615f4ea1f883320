package org.ondevice.core

/** What must hold before a program is loaded. */
public object Preflight {
    /**
     * @throws BundleError.UnsupportedBackends if the program delegates to a backend that [runtime] has not.
     * @throws BundleError.UnsupportedOperators if it calls an operator that [runtime] has not.
     */
    @JvmStatic
    @Throws(BundleError::class)
    public fun check(manifest: BundleManifest, runtime: ModelRuntime) {
        val backends = manifest.backends - runtime.backends
        if (backends.isNotEmpty()) throw BundleError.UnsupportedBackends(backends.sorted())
        val operators = manifest.operators - runtime.operators
        if (operators.isNotEmpty()) throw BundleError.UnsupportedOperators(operators.sorted())
    }
}

/** The cases in the manifest, asked of the program that is really there. */
public object GoldenCheck {
    /**
     * The largest difference of a score, of a case or of an item that is recommended.
     *
     * @param tolerance another processor adds floats in another order; a wrong table or vocabulary is off by far more.
     * @throws BundleError.WrongAnswer if an id or a gap differs at all, or a score by more than [tolerance].
     */
    @JvmStatic
    @JvmOverloads
    @Throws(BundleError::class)
    public fun run(
        bundle: ModelBundle,
        engine: Engine,
        tolerance: Double = bundle.manifest.goldenTolerance,
    ): Double {
        val manifest = bundle.manifest
        val recommender = Recommender(bundle, engine)
        var largest = 0.0
        manifest.golden.forEachIndexed { index, case ->
            val ids = bundle.encode(case.raw)
            for (column in ids.indices) {
                if (ids[column] != case.ids[column].toLong()) {
                    throw BundleError.WrongAnswer(
                        "case ${index + 1} has the id ${ids[column]} for ${manifest.nameOf(column)}, " +
                            "expected ${case.ids[column]}",
                    )
                }
            }
            val context = bundle.encodeContext(case)
            case.gaps.forEachIndexed { place, gap ->
                val given = context[manifest.contextColumns.size + place]
                if (given != gap.toLong()) {
                    throw BundleError.WrongAnswer("case ${index + 1} has the gap $given at place ${place + 1}, expected $gap")
                }
            }
            fun compare(what: String, score: Float, expected: Double) {
                // A text holds as many digits as tell one float from the next.
                val difference = Math.abs(score.toDouble() - expected.toFloat().toDouble())
                if (!(difference <= tolerance)) {
                    throw BundleError.WrongAnswer("case ${index + 1} scores $what$score, expected $expected")
                }
                largest = maxOf(largest, difference)
            }
            compare("", if (manifest.hasGaps) recommender.scoreOne(context, ids) else recommender.scoreOne(ids), case.score)
            if (case.best.isNotEmpty()) compareBest(index + 1, recommended(bundle, recommender, case), case.best, ::compare)
        }
        return largest
    }

    private fun recommended(bundle: ModelBundle, recommender: Recommender, case: GoldenCase): List<ScoredItem> {
        val name = bundle.manifest.historyField?.let { bundle.manifest.fields[it].name }
        val context = bundle.contextOf(case.raw) - setOfNotNull(name)
        return recommender.recommend(bundle.tapsOf(case), case.now, Query(case.best.size), context)
    }

    /** Items of nearly one score may change places on another processor: scores are compared, place by place. */
    private fun compareBest(
        case: Int,
        given: List<ScoredItem>,
        expected: List<Pair<String, Double>>,
        compare: (String, Float, Double) -> Unit,
    ) {
        if (given.size != expected.size) {
            throw BundleError.WrongAnswer("case $case recommends ${given.size} items, expected ${expected.size}")
        }
        for ((item, best) in given.zip(expected)) compare("the item ${item.key} with ", item.score, best.second)
    }
}
