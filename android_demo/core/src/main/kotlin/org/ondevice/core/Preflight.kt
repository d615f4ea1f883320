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
    /** Another processor adds floats in another order; a wrong table or vocabulary is off by far more. */
    public const val TOLERANCE: Double = 1e-3

    /**
     * The largest difference of a score.
     *
     * @throws BundleError.WrongAnswer if an id differs at all, or a score by more than [tolerance].
     */
    @JvmStatic
    @JvmOverloads
    @Throws(BundleError::class)
    public fun run(bundle: ModelBundle, engine: Engine, tolerance: Double = TOLERANCE): Double {
        val manifest = bundle.manifest
        val recommender = Recommender(bundle, engine)
        var largest = 0.0
        manifest.golden.forEachIndexed { index, case ->
            val ids = bundle.encode(case.raw)
            for (field in manifest.fields.indices) {
                if (ids[field] != case.ids[field].toLong()) {
                    throw BundleError.WrongAnswer(
                        "case ${index + 1} has the id ${ids[field]} for ${manifest.fields[field].name}, " +
                            "expected ${case.ids[field]}",
                    )
                }
            }
            val score = recommender.scoreOne(ids).toDouble()
            // A text holds as many digits as tell one float from the next.
            val difference = Math.abs(score - case.score.toFloat().toDouble())
            if (!(difference <= tolerance)) {
                throw BundleError.WrongAnswer("case ${index + 1} scores $score, expected ${case.score}")
            }
            largest = maxOf(largest, difference)
        }
        return largest
    }
}
