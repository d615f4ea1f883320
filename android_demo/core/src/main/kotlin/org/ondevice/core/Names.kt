package org.ondevice.core

/** Finds what a misspelt name was meant to be. */
internal object Names {
    /** The nearest of [choices] by edits, capital letters aside, or null where half the letters would have to change. */
    fun nearest(name: String, choices: List<String>): String? = choices
        .map { it to edits(name.lowercase(), it.lowercase()) }
        .filter { (choice, distance) -> 2 * distance <= maxOf(name.length, choice.length) }
        .minByOrNull { it.second }?.first

    /** Letters to insert, remove or replace until [a] is [b] (Levenshtein). */
    private fun edits(a: String, b: String): Int {
        var row = IntArray(b.length + 1) { it }
        for (i in a.indices) {
            val next = IntArray(b.length + 1)
            next[0] = i + 1
            for (j in b.indices) {
                next[j + 1] = minOf(next[j] + 1, row[j + 1] + 1, row[j] + if (a[i] == b[j]) 0 else 1)
            }
            row = next
        }
        return row[b.length]
    }
}
