package org.ondevice.demo

import android.app.Activity
import android.content.Intent
import android.os.Build
import android.os.Bundle
import android.view.WindowManager
import android.widget.TextView
import org.ondevice.core.Benchmark
import org.ondevice.core.BenchmarkPlan
import org.ondevice.core.BundleError
import org.ondevice.core.Json
import org.ondevice.core.Measurement
import org.ondevice.core.ModelBundle
import java.io.File
import java.io.IOException

/**
 * Measures bundles without a hand on the phone, and writes `files/latency.json`. In debug builds:
 *
 *     am start -W -n org.ondevice.demo/.BenchmarkActivity --es run ID [--es bundles ours,int8]
 *         [--es candidates 1,100,1000] [--es threads 1,2,4] [--ei warmups 20] [--ei calls 200]
 *
 * The file appears whole, when all is measured, with the `run` that it answers; the screen stays on meanwhile.
 */
class BenchmarkActivity : Activity() {

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        window.addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        val status = TextView(this)
        status.setText(R.string.benchmark_running)
        status.fitsSystemWindows = true
        setContentView(status)
        if (savedInstanceState != null) return

        val app = application as DemoApplication
        val output = File(filesDir, "latency.json")
        output.delete()
        val request = intent
        app.measurer.run({ writeWhole(output, Json.write(report(app.bundles, request))) }) { result ->
            val problem = result.exceptionOrNull()?.let { BundleError.explain(it) }
            status.text = problem ?: getString(R.string.benchmark_done)
        }
    }

    private fun report(bundles: Bundles, request: Intent): Map<String, Any?> {
        val run = mapOf("run" to request.getStringExtra("run"))
        return try {
            bundles.prepare()
            bundles.close()
            val plan = plan(request)
            val names = request.getStringExtra("bundles")?.split(',')?.map { it.trim() } ?: bundles.store.names()
            run + measure(bundles, names, plan)
        } catch (error: IllegalArgumentException) {
            run + mapOf("errors" to mapOf("" to "The benchmark was asked what it cannot do: ${error.message}"))
        } catch (error: Throwable) { // whoever waits for the file is told
            run + mapOf("errors" to mapOf("" to BundleError.explain(error)))
        }
    }

    private fun plan(request: Intent): BenchmarkPlan {
        val default = BenchmarkPlan()
        return BenchmarkPlan(
            numbers(request, "candidates") ?: default.numCandidates,
            numbers(request, "threads") ?: default.numThreads,
            request.getIntExtra("warmups", default.numWarmups),
            request.getIntExtra("calls", default.numCalls),
        )
    }

    private fun numbers(request: Intent, name: String): List<Int>? = request.getStringExtra(name)?.split(',')?.map {
        it.trim().toIntOrNull() ?: throw IllegalArgumentException("$name: \"$it\" is no number")
    }

    private fun measure(bundles: Bundles, names: List<String>, plan: BenchmarkPlan): Map<String, Any?> {
        val results = LinkedHashMap<ModelBundle, List<Measurement>>()
        val errors = LinkedHashMap(bundles.problems)
        for (name in names) {
            try {
                val bundle = bundles.store.open(name)
                results[bundle] = Benchmark(bundles.runtime, Memory::use).run(bundle, plan)
            } catch (error: Throwable) {
                errors[name] = BundleError.explain(error)
            }
        }
        return Benchmark.report(device(), plan, results, errors)
    }

    private fun device(): Map<String, Any?> = linkedMapOf(
        "manufacturer" to Build.MANUFACTURER,
        "model" to Build.MODEL,
        "soc" to if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.S) Build.SOC_MODEL else Build.HARDWARE,
        "android" to Build.VERSION.RELEASE,
        "sdk" to Build.VERSION.SDK_INT,
        "abi" to Build.SUPPORTED_ABIS.first(),
        "cores" to Runtime.getRuntime().availableProcessors(),
    )

    /** A reader sees no file or all of it. */
    private fun writeWhole(file: File, text: String) {
        val part = File(file.parentFile, file.name + ".part")
        part.writeText(text)
        if (!part.renameTo(file)) throw IOException("$file cannot be written")
    }
}
