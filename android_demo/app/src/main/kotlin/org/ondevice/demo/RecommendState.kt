package org.ondevice.demo

import org.ondevice.core.ScoredItem

/**
 * The models there are, and the one that is chosen.
 *
 * @property hasNext whether there are also models that say what comes next.
 */
data class Models(val names: List<String> = emptyList(), val selected: String? = null, val hasNext: Boolean = false)

/** A known value of a field: its key, and what a person reads for it. */
data class Choice(val key: String, val label: String)

/**
 * A context field to fill in.
 *
 * @property choices its known values when they are few; else empty, and any text may be written.
 */
data class ProfileInput(val field: String, val numKnown: Int, val choices: List<Choice>, val value: String) {
    /** Filled in; with choices, a value that is none of them is unknown. */
    fun with(value: String?) =
        copy(value = value?.takeIf { choices.isEmpty() || choices.any { choice -> choice.key == it } } ?: "")
}

/** @property example which golden case's profile is shown; null for the user's own values. */
data class Profile(val numExamples: Int, val example: Int?, val inputs: List<ProfileInput>) {
    val values: Map<String, String> get() = inputs.associate { it.field to it.value }
}

/** What became of the wish for recommendations. */
sealed interface Answer {
    data object NotAsked : Answer

    data object Ranking : Answer

    /** The best films of [numRanked], and how long the ranking took. */
    data class Ranked(val films: List<ScoredItem>, val numRanked: Int, val nanos: Long) : Answer

    /** The model has no items of its own, and ships no catalog. */
    data object NothingToRank : Answer

    data class Failed(val problem: String) : Answer
}

/** What the first screen shows. */
sealed interface RecommendState {
    val models: Models

    data class Loading(override val models: Models = Models()) : RecommendState

    /** @property problem why the models that came with the app are not there. */
    data class Empty(val problem: String?, val hasNext: Boolean = false) : RecommendState {
        override val models get() = Models(hasNext = hasNext)
    }

    /** The chosen model cannot be used. */
    data class Unusable(override val models: Models, val problem: String) : RecommendState

    /** @property warning what is wrong with other models. */
    data class Ready(
        override val models: Models,
        val profile: Profile,
        val answer: Answer = Answer.NotAsked,
        val warning: String? = null,
    ) : RecommendState
}

/**
 * What survives the end of the process.
 *
 * @property isRanked whether a ranking was on the screen, so that it is made again.
 */
data class SavedProfile(
    val bundle: String?,
    val example: Int?,
    val values: Map<String, String>,
    val isRanked: Boolean = false,
)
