// The Android plugin compiles Kotlin itself, with the version of the Kotlin plugin that is named here.
plugins {
    alias(libs.plugins.android.application) apply false
    alias(libs.plugins.android.library) apply false
    alias(libs.plugins.kotlin.jvm) apply false
}
