package org.ondevice.core

import java.io.IOException

/**
 * Everything that can be wrong with a bundle or with what it is asked, each with a sentence for the person who
 * holds the phone: what is wrong, and what to do about it.
 */
sealed class BundleError(message: String, cause: Throwable? = null) : Exception(message, cause) {

    /** A file that the bundle needs is not there. */
    class MissingFile(val file: String, bundle: String) :
        BundleError("The bundle \"$bundle\" has no file $file. Export it again, or pick the whole bundle.")

    /** A file is not the one that was exported. */
    class WrongHash(val file: String, bundle: String) : BundleError(
        "The file $file of \"$bundle\" is damaged: its SHA-256 is not the one that was exported. " +
            "Copy the bundle again.",
    )

    /** `manifest.json` cannot be understood. */
    class BadManifest(detail: String, cause: Throwable? = null) :
        BundleError("manifest.json cannot be read: $detail. Export the bundle again.", cause)

    /** The bundle comes from a newer exporter than this app knows. */
    class NewerFormat(val found: Long, val supported: Int) : BundleError(
        "This bundle has format version $found; this app reads up to $supported. Update the app.",
    )

    /** `vocabulary.bin` ends too early. */
    class TruncatedVocabulary(val position: Int) :
        BundleError("vocabulary.bin is cut off after $position bytes. Copy the bundle again.")

    /** `vocabulary.bin` breaks a rule of its format. */
    class CorruptVocabulary(detail: String) :
        BundleError("vocabulary.bin is damaged: $detail. Export the bundle again.")

    /** `catalog.bin` cannot be used. */
    class BadCatalog(detail: String, cause: Throwable? = null) :
        BundleError("catalog.bin cannot be used: $detail. Export the bundle again.", cause)

    /** The program calls operators that this runtime was built without. */
    class UnsupportedOperators(val operators: List<String>) : BundleError(
        "This app's runtime has no " + plural(operators.size, "operator") + " " +
            operators.joinToString(", ") + ". Export the bundle for the stock runtime, or update the app.",
    )

    /** The program delegates to backends that this runtime was built without. */
    class UnsupportedBackends(val backends: List<String>) : BundleError(
        "This app's runtime has no " + plural(backends.size, "backend") + " " +
            backends.joinToString(", ") + ". Export the bundle for XNNPACK.",
    )

    /** The bundle has no such method. */
    class MissingMethod(val method: String, available: Collection<String>) : BundleError(
        "The model has no method \"$method\"; it has " + available.sorted().joinToString(", ") + ".",
    )

    /** What the app asked does not fit the model. */
    class InvalidInput(detail: String) : BundleError("The model cannot be asked this: $detail.")

    /** The native runtime refused. */
    class EngineFailure(detail: String, val code: Int? = null, cause: Throwable? = null) : BundleError(
        "The model could not be run: $detail" + (if (code == null) "" else " (code 0x%x)".format(code)) + ".",
        cause,
    )

    /** The model answered, but not what it answered when it was exported. */
    class WrongAnswer(detail: String) : BundleError(
        "The model does not answer its own test cases: $detail. It was not put to use; export it again.",
    )

    /** The phone ran out of memory. */
    class OutOfMemory(cause: Throwable) : BundleError(
        "There is not enough free memory for this bundle. Close other apps, or choose a smaller bundle.",
        cause,
    )

    /** The picked file is not a bundle in a zip. */
    class BadArchive(detail: String, cause: Throwable? = null) :
        BundleError("This file is not a bundle: $detail. Pick a .zip of an exported bundle.", cause)

    companion object {
        private fun plural(count: Int, noun: String) = if (count == 1) noun else noun + "s"

        /** The sentence to show for [error], whatever it is. */
        fun explain(error: Throwable): String = when (error) {
            is BundleError -> error.message!!
            is OutOfMemoryError -> OutOfMemory(error).message!!
            is SecurityException -> "This app may not read the file any more. Pick it again."
            is IOException ->
                if (error.message.orEmpty().contains("ENOSPC") || error.message.orEmpty().contains("No space left")) {
                    "The phone's storage is full. Free some space and try again."
                } else {
                    "A file could not be read or written: ${error.message ?: error.javaClass.simpleName}."
                }
            else -> "Something went wrong: ${error.message ?: error.javaClass.simpleName}."
        }
    }
}
