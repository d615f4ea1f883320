package org.ondevice.engine

import org.ondevice.core.BundleManifest
import org.ondevice.core.ModelBundle
import org.ondevice.core.BundleError
import org.ondevice.core.Engine
import org.ondevice.core.InputCheck
import org.ondevice.core.Preflight
import org.ondevice.core.Recommendation
import org.ondevice.core.ModelRuntime
import org.pytorch.executorch.DType
import org.pytorch.executorch.EValue
import org.pytorch.executorch.ExecuTorchRuntime
import org.pytorch.executorch.ExecutorchRuntimeException
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor
import java.nio.LongBuffer

/**
 * The stock ExecuTorch runtime; the one file that knows it.
 *
 * Whatever can be checked without native code is checked first, since a phone's library may end the app where
 * another throws: the program's hash, its methods, the shapes and the ranges of ids.
 */
public object ExecuTorch : ModelRuntime {
    private val runtime: ExecuTorchRuntime by lazy {
        try {
            ExecuTorchRuntime.getRuntime()
        } catch (error: LinkageError) {
            throw BundleError.EngineFailure("the ExecuTorch library is missing or does not fit this phone", null, error)
        }
    }

    override val operators: Set<String> by lazy { runtime.let { ExecuTorchRuntime.getRegisteredOps().toSet() } }
    override val backends: Set<String> by lazy { runtime.let { ExecuTorchRuntime.getRegisteredBackends().toSet() } }

    private var numOpen = 0
    private var openThreads = 0

    /**
     * Loads a program and, of its methods, the one that ranks; others are loaded at their first use.
     *
     * The runtime has one pool of threads for the process, to which loaded programs keep a pointer; a load with
     * another number of threads frees it. So all programs open at a time have the same number of threads.
     */
    @Synchronized
    override fun load(bundle: ModelBundle, numThreads: Int): Engine {
        require(numThreads >= 1) { "numThreads is $numThreads; the runtime takes 0 for half the cores" }
        check(numOpen == 0 || numThreads == openThreads) {
            "a program with $openThreads threads is open; close it before loading one with $numThreads"
        }
        Preflight.check(bundle.manifest, this)
        bundle.verifyProgram()
        val engine = guarded {
            val module = Module.load(bundle.program.absolutePath, Module.LOAD_MODE_MMAP, numThreads)
            try {
                LoadedProgram(bundle, module, numThreads)
            } catch (error: Throwable) {
                module.destroy()
                throw error
            }
        }
        numOpen++
        openThreads = numThreads
        return engine
    }

    @Synchronized
    private fun released() {
        numOpen--
    }

    private class LoadedProgram(
        private val bundle: ModelBundle,
        private val module: Module,
        private val numThreads: Int,
    ) : Engine {
        private val manifest = bundle.manifest
        private val inputs = InputCheck(manifest)
        private val loaded = HashSet<String>()
        private val slots = HashMap<String, Slot>()
        private var isClosed = false

        init {
            val missing = manifest.methods.keys - module.getMethods().toSet()
            if (missing.isNotEmpty()) throw BundleError.MissingMethod(missing.first(), module.getMethods().toList())
            load(if ("rank" in manifest.methods) "rank" else manifest.methods.keys.first())
        }

        private fun load(method: String) {
            if (loaded.add(method)) module.loadMethod(method)
        }

        @Synchronized
        override fun score(ids: LongArray): FloatArray {
            val batch = inputs.score(ids)
            return scores(run("forward", slot("forward", ids, batch)), batch)
        }

        @Synchronized
        override fun rank(context: LongArray, items: LongArray): FloatArray {
            val numItems = inputs.rank(context, items)
            val outputs = run("rank", slot("rank context", context, 1), slot("rank items", items, numItems))
            return scores(outputs, numItems)
        }

        @Synchronized
        override fun recommend(context: LongArray, excluded: LongArray): Recommendation {
            inputs.recommend(context, excluded)
            val given = slot("recommend", context, 1)
            val outputs = if (excluded.isEmpty()) {
                run("recommend", given)
            } else {
                run("recommend", given, slot("recommend excluded", excluded, 1))
            }
            val numItems = manifest.signature("recommend").maximum
            val items = tensor(outputs, 1, DType.INT64, numItems).dataAsLongArray
            return Recommendation(scores(outputs, numItems), IntArray(numItems) { items[it].toInt() })
        }

        @Synchronized
        override fun close() {
            if (isClosed) return
            isClosed = true
            module.destroy()
            released()
        }

        private fun run(method: String, vararg values: EValue): Array<EValue> {
            if (isClosed) throw BundleError.EngineFailure("it was closed")
            val reads = manifest.signature(method).readsItemVectors
            return guarded {
                load(method)
                if (reads) module.execute(method, *values, itemVectors) else module.execute(method, *values)
            }
        }

        /** What the method `items` returns, worked out once: a module of its own gives back the memory that it takes. */
        private val itemVectors: EValue by lazy(LazyThreadSafetyMode.NONE) {
            val once = Module.load(bundle.program.absolutePath, Module.LOAD_MODE_MMAP, numThreads)
            try {
                val output = manifest.signature(BundleManifest.ITEMS).outputs.single()
                val count = output.shape.fold(1) { total, size -> total * (size ?: 0) }
                val made = tensor(once.execute(BundleManifest.ITEMS), 0, DType.FLOAT, count)
                val buffer = Tensor.allocateFloatBuffer(count)
                buffer.put(made.dataAsFloatArray)
                EValue.from(Tensor.fromBlob(buffer, made.shape()))
            } finally {
                once.destroy()
            }
        }

        /** The native tensor of an input, used again while its number of rows stays. */
        private fun slot(name: String, ids: LongArray, numRows: Int): EValue {
            val slot = slots[name]?.takeIf { it.buffer.capacity() == ids.size } ?: Slot(ids.size, numRows)
            slots[name] = slot
            slot.buffer.clear()
            slot.buffer.put(ids)
            return slot.value
        }

        private fun scores(outputs: Array<EValue>, count: Int): FloatArray =
            tensor(outputs, 0, DType.FLOAT, count).dataAsFloatArray

        private fun tensor(outputs: Array<EValue>, index: Int, dtype: DType, count: Int): Tensor {
            val value = outputs.getOrNull(index)?.takeIf { it.isTensor }?.toTensor()
            if (value == null || value.dtype() != dtype || value.numel() != count.toLong()) {
                throw BundleError.EngineFailure("output $index is not a tensor of $count values of type $dtype")
            }
            return value
        }
    }

    private class Slot(size: Int, numRows: Int) {
        val buffer: LongBuffer = Tensor.allocateLongBuffer(size)
        val value: EValue =
            EValue.from(Tensor.fromBlob(buffer, longArrayOf(numRows.toLong(), (size / numRows).toLong())))
    }

    private val OUT_OF_MEMORY = setOf(
        ExecutorchRuntimeException.MEMORY_ALLOCATION_FAILED,
        ExecutorchRuntimeException.OUT_OF_RESOURCES,
        ExecutorchRuntimeException.DELEGATE_MEMORY_ALLOCATION_FAILED,
    )

    private inline fun <T> guarded(call: () -> T): T = try {
        call()
    } catch (error: ExecutorchRuntimeException) {
        if (error.errorCode in OUT_OF_MEMORY) throw BundleError.OutOfMemory(error)
        throw BundleError.EngineFailure("the runtime refused it", error.errorCode, error)
    } catch (error: OutOfMemoryError) {
        throw BundleError.OutOfMemory(error)
    } catch (error: IllegalArgumentException) {
        throw BundleError.EngineFailure(error.message ?: "the runtime refused it", null, error)
    }
}
