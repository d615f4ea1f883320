package org.ondevice.core

import java.io.IOException

/**
 * Everything that can be wrong with a bundle or with what it is asked, each with a sentence for the person who
 * holds the phone: what is wrong, and what to do about it.
 */
public sealed class BundleError(message: String, cause: Throwable? = null) : Exception(message, cause) {

    /** A file that the bundle needs is not there. */
    public class MissingFile(public val file: String, bundle: String) :
        BundleError("The bundle \"$bundle\" has no file $file. Export it again, or pick the whole bundle.")

    /** A file is not the one that was exported. */
    public class WrongHash(public val file: String, bundle: String) : BundleError(
        "The file $file of \"$bundle\" is damaged: its SHA-256 is not the one that was exported. " +
            "Copy the bundle again.",
    )

    /** `manifest.json` cannot be understood. */
    public class BadManifest @JvmOverloads constructor(internal val detail: String, cause: Throwable? = null) :
        BundleError("manifest.json cannot be read: $detail. Export the bundle again.", cause)

    /** The bundle comes from a newer exporter than this app knows. */
    public class NewerFormat(public val found: Long, public val supported: Int) : BundleError(
        "This bundle has format version $found; this app reads up to $supported. Update the app.",
    )

    /** `vocabulary.bin` ends too early. */
    public class TruncatedVocabulary(public val position: Int) :
        BundleError("vocabulary.bin is cut off after $position bytes. Copy the bundle again.")

    /** `vocabulary.bin` breaks a rule of its format. */
    public class CorruptVocabulary(detail: String) :
        BundleError("vocabulary.bin is damaged: $detail. Export the bundle again.")

    /** `catalog.bin` cannot be used. */
    public class BadCatalog @JvmOverloads constructor(detail: String, cause: Throwable? = null) :
        BundleError("catalog.bin cannot be used: $detail. Export the bundle again.", cause)

    /** The program calls operators that this runtime was built without. */
    public class UnsupportedOperators(public val operators: List<String>) : BundleError(
        "This app's runtime has no " + plural(operators.size, "operator") + " " +
            operators.joinToString(", ") + ". Export the bundle for the stock runtime, or update the app.",
    )

    /** The program delegates to backends that this runtime was built without. */
    public class UnsupportedBackends(public val backends: List<String>) : BundleError(
        "This app's runtime has no " + plural(backends.size, "backend") + " " +
            backends.joinToString(", ") + ". Export the bundle for XNNPACK.",
    )

    /** The bundle has no such method. */
    public class MissingMethod(public val method: String, available: Collection<String>) : BundleError(
        "The model has no method \"$method\"; it has " + available.sorted().joinToString(", ") + ".",
    )

    /** What the app asked does not fit the model. */
    public class InvalidInput(detail: String) : BundleError("The model cannot be asked this: $detail.")

    /** The native runtime refused. */
    public class EngineFailure @JvmOverloads constructor(detail: String, public val code: Int? = null, cause: Throwable? = null) : BundleError(
        "The model could not be run: $detail" + (if (code == null) "" else " (code 0x%x)".format(code)) + ".",
        cause,
    )

    /** The model answered, but not what it answered when it was exported. */
    public class WrongAnswer(detail: String) : BundleError(
        "The model does not answer its own test cases: $detail. It was not put to use; export it again.",
    )

    /** The phone ran out of memory. */
    public class OutOfMemory(cause: Throwable) : BundleError(
        "There is not enough free memory for this bundle. Close other apps, or choose a smaller bundle.",
        cause,
    )

    /** New items that a bundle cannot take. */
    public class BadNewItems @JvmOverloads constructor(detail: String, cause: Throwable? = null) :
        BundleError("New items cannot be taken: $detail.", cause)

    /** A file in which a [History] should be is something else. */
    public class BadHistory @JvmOverloads constructor(file: String, detail: String, cause: Throwable? = null) :
        BundleError("$file is no history that this app wrote: $detail. Start a new one, or choose another file.", cause)

    /** The picked file is not a bundle in a zip. */
    public class BadArchive @JvmOverloads constructor(detail: String, cause: Throwable? = null) :
        BundleError("This file is not a bundle: $detail. Pick a .zip of an exported bundle.", cause)

    public companion object {
        private fun plural(count: Int, noun: String) = if (count == 1) noun else noun + "s"

        /** The sentence to show for [error], whatever it is. */
        @JvmStatic
        public fun explain(error: Throwable): String = when (error) {
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
