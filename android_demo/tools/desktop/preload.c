/*
 * Loads the runtime the way Android's linker would: with its own libraries searched before the program's, so that
 * all of them share one C++ exception runtime. The JVM loads this first; its own load of the runtime then finds it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

__attribute__((constructor)) static void load(void) {
  if (dlopen("libexecutorch.so", RTLD_NOW | RTLD_DEEPBIND) == NULL) {
    fprintf(stderr, "libexecutorch.so: %s\n", dlerror());
    exit(70);
  }
}
