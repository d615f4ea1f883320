plugins {
    alias(libs.plugins.kotlin.jvm)
    alias(libs.plugins.dokka.javadoc)
    `java-test-fixtures`
    `maven-publish`
}

group = "org.ondevice"
version = "0.1.0"

java {
    withSourcesJar()
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

val kdocJar by tasks.registering(Jar::class) {
    from(tasks.named("dokkaGeneratePublicationJavadoc"))
    archiveClassifier = "javadoc"
}

// gradle :core:publishToMavenLocal
publishing {
    publications.create<MavenPublication>("library") {
        val library = components["java"] as AdhocComponentWithVariants
        for (name in listOf("testFixturesApiElements", "testFixturesRuntimeElements")) {
            library.withVariantsFromConfiguration(configurations[name]) { skip() }
        }
        from(library)
        artifact(kdocJar)
        pom.description = "Reads a compact recommender's bundle, ranks items, heals what is damaged; no dependency but Kotlin's library"
    }
}

tasks.test {
    useJUnitPlatform()
    // ./gradlew :core:test -Pbundle.dir=BUNDLE also tests a bundle that the exporter wrote
    systemProperty("bundle.dir", providers.gradleProperty("bundle.dir").getOrElse(""))
}
