plugins {
    alias(libs.plugins.android.library)
    `maven-publish`
}

group = "org.ondevice"
version = "0.1.0"

kotlin {
    explicitApi()
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

    publishing {
        singleVariant("release") {
            withSourcesJar()
            withJavadocJar()
        }
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
    testImplementation(testFixtures(project(":core")))
    testImplementation(libs.abi.tools)
    testImplementation(libs.junit.jupiter)
    testRuntimeOnly(libs.junit.launcher)
}

// gradle :engine:publishToMavenLocal
afterEvaluate {
    publishing.publications.create<MavenPublication>("library") {
        from(components["release"])
        pom.description = "Runs a compact recommender on Android, over ExecuTorch: OnDevice.open(context, name)"
    }
}
