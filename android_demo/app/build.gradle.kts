plugins {
    alias(libs.plugins.android.application)
}

android {
    namespace = "org.ondevice.demo"
    compileSdk = 36

    defaultConfig {
        applicationId = "org.ondevice.demo"
        minSdk = 26
        targetSdk = 36
        versionCode = 2
        versionName = "0.2.0"
        ndk {
            abiFilters += listOf("arm64-v8a", "x86_64")
        }
    }

    buildTypes {
        release {
            isMinifyEnabled = true
            proguardFiles(getDefaultProguardFile("proguard-android-optimize.txt"))
        }
    }

    androidResources {
        // Stored, so that a bundle takes as much of the APK as its report says.
        noCompress += "pte"
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
    implementation(project(":engine"))
    testImplementation(testFixtures(project(":core")))
    testImplementation(libs.junit.jupiter)
    testRuntimeOnly(libs.junit.launcher)
}
