package org.ondevice.core

import org.jetbrains.kotlin.abi.tools.AbiFilters
import org.jetbrains.kotlin.abi.tools.AbiTools
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Test
import java.io.File

/**
 * The public API is the one in `api/core.api`, in the format of Kotlin's ABI validation. A change that is meant is
 * written there by `mvn test -Dtest=ApiTest -Dapi.update=true`.
 */
class ApiTest {
    @Test
    fun `the public API is the committed one`() {
        val classes = File(ModelBundle::class.java.protectionDomain.codeSource.location.toURI())
        val files = classes.walk().filter { it.extension == "class" || it.extension == "jar" }.sorted().asIterable()
        val dump = StringBuilder()
        AbiTools.getInstance().printJvmDump(dump, files, AbiFilters.EMPTY)
        val committed = File("api/core.api")
        if (System.getProperty("api.update") == "true") committed.writeText(dump.toString())
        assertEquals(committed.readText(), dump.toString(), "the API changed; mvn test -Dtest=ApiTest -Dapi.update=true")
    }
}
