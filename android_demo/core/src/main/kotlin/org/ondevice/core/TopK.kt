package org.ondevice.core

/** The best of many scores, without sorting them all. */
public object TopK {
    /**
     * Indices of the [k] largest [scores], largest first; equal ones in order of index.
     *
     * @throws BundleError.EngineFailure if a score is not a number.
     */
    @JvmStatic
    @Throws(BundleError::class)
    public fun of(scores: FloatArray, k: Int): IntArray {
        require(k >= 0) { "k is $k" }
        val heap = IntArray(minOf(k, scores.size))
        var size = 0
        for (index in scores.indices) {
            if (scores[index].isNaN()) throw BundleError.EngineFailure("score $index is not a number")
            if (size < heap.size) {
                heap[size] = index
                siftUp(heap, size++, scores)
            } else if (size > 0 && isWorse(heap[0], index, scores)) {
                heap[0] = index
                siftDown(heap, size, scores)
            }
        }
        val best = IntArray(size)
        while (size > 0) {
            best[size - 1] = heap[0]
            heap[0] = heap[--size]
            siftDown(heap, size, scores)
        }
        return best
    }

    private fun isWorse(a: Int, b: Int, scores: FloatArray) =
        scores[a] < scores[b] || (scores[a] == scores[b] && a > b)

    /** The worst of the kept ones is at the root. */
    private fun siftUp(heap: IntArray, from: Int, scores: FloatArray) {
        var child = from
        while (child > 0) {
            val parent = (child - 1) / 2
            if (!isWorse(heap[child], heap[parent], scores)) return
            swap(heap, child, parent)
            child = parent
        }
    }

    private fun siftDown(heap: IntArray, size: Int, scores: FloatArray) {
        var parent = 0
        while (true) {
            var worst = parent
            for (child in 2 * parent + 1..2 * parent + 2) {
                if (child < size && isWorse(heap[child], heap[worst], scores)) worst = child
            }
            if (worst == parent) return
            swap(heap, parent, worst)
            parent = worst
        }
    }

    private fun swap(heap: IntArray, a: Int, b: Int) {
        val kept = heap[a]
        heap[a] = heap[b]
        heap[b] = kept
    }
}
