plugins {
    alias(libs.plugins.android.library)
}

android {
    namespace = "org.ondevice.engine"
    compileSdk = 36

    defaultConfig {
        minSdk = 26
        consumerProguardFiles("consumer-rules.pro")
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }

    testOptions {
        unitTests.all { it.useJUnitPlatform() }
    }
}

dependencies {
    api(project(":core"))
    implementation(libs.executorch.android) {
        // Declared, but none of its classes uses it; with it come a permission, a provider that starts with the app, and
        // an exported receiver.
        exclude(group = "androidx.core")
    }
    testImplementation(libs.junit.jupiter)
    testRuntimeOnly(libs.junit.launcher)
}
