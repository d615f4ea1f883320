plugins {
    alias(libs.plugins.kotlin.jvm)
    `java-test-fixtures`
}

java {
    sourceCompatibility = JavaVersion.VERSION_11
    targetCompatibility = JavaVersion.VERSION_11
}

kotlin {
    explicitApi()
    compilerOptions {
        jvmTarget = org.jetbrains.kotlin.gradle.dsl.JvmTarget.JVM_11
    }
}

dependencies {
    testImplementation(libs.junit.jupiter)
    testImplementation(libs.abi.tools)
    testRuntimeOnly(libs.junit.launcher)
}

tasks.test {
    useJUnitPlatform()
    // ./gradlew :core:test -Pbundle.dir=BUNDLE also tests a bundle that the exporter wrote
    systemProperty("bundle.dir", providers.gradleProperty("bundle.dir").getOrElse(""))
}
