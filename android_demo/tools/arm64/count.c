/*
 * A QEMU plugin that counts the guest's instructions between two marks: those of some libraries, and all.
 *
 * The guest makes a mark with a system call that does not exist, MARK, whose argument is 1 to begin and 2 to end.
 * QEMU executes a program the same way each time, so a program of one thread has the same count each time.
 *
 * Arguments: library=PART_OF_A_PATH, out=FILE, to which each pair of marks adds a line "LIBRARY ALL".
 * The declarations are those of QEMU's plugin interface, version 1; Debian ships no header of it.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define MARK 4242

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_info;
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int, void *, uint64_t);
typedef void syscall_cb(plugin_id, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                        uint64_t, uint64_t);
void qemu_plugin_register_vcpu_syscall_cb(plugin_id, syscall_cb *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
void *qemu_plugin_insn_haddr(const struct qemu_plugin_insn *);

EXPORT int qemu_plugin_version = 1;

enum { ADD_U64 = 0, MAX_RANGES = 4096 };
/* System calls of arm64: brk, munmap, mremap and, among others between, mmap. */
enum { FIRST_MAPPING = 214, LAST_MAPPING = 222 };
static struct { uintptr_t begin, end; bool counted; } ranges[MAX_RANGES];
static size_t num_ranges;
static bool is_stale = true; /* the guest has mapped or unmapped something since the ranges were read */
static uint64_t counts[2], begun[2];
static char library[256], out[1024];

static void read_maps(void) {
  is_stale = false;
  num_ranges = 0;
  FILE *maps = fopen("/proc/self/maps", "r");
  char line[4096];
  while (maps != NULL && num_ranges < MAX_RANGES && fgets(line, sizeof line, maps) != NULL) {
    if (sscanf(line, "%lx-%lx", &ranges[num_ranges].begin, &ranges[num_ranges].end) == 2) {
      ranges[num_ranges++].counted = strstr(line, library) != NULL;
    }
  }
  if (maps != NULL) fclose(maps);
}

/* Whether an address of the host is in one of the libraries. */
static bool is_counted(uintptr_t address) {
  if (is_stale) read_maps();
  for (size_t i = 0; i < num_ranges; i++) {
    if (ranges[i].begin <= address && address < ranges[i].end) return ranges[i].counted;
  }
  return false;
}

static void translate(plugin_id id, struct qemu_plugin_tb *block) {
  size_t size = qemu_plugin_tb_n_insns(block);
  uintptr_t address = (uintptr_t)qemu_plugin_insn_haddr(qemu_plugin_tb_get_insn(block, 0));
  if (is_counted(address)) qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, &counts[0], size);
  qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, &counts[1], size);
}

static void mark(plugin_id id, unsigned vcpu, int64_t number, uint64_t which, uint64_t a2, uint64_t a3, uint64_t a4,
                 uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
  if (number >= FIRST_MAPPING && number <= LAST_MAPPING) is_stale = true;
  if (number != MARK) return;
  if (which == 1) {
    memcpy(begun, counts, sizeof counts);
    return;
  }
  int file = open(out, O_WRONLY | O_CREAT | O_APPEND, 0644);
  dprintf(file, "%lu %lu\n", counts[0] - begun[0], counts[1] - begun[1]);
  close(file);
}

EXPORT int qemu_plugin_install(plugin_id id, const struct qemu_info *info, int argc, char **argv) {
  for (int i = 0; i < argc; i++) {
    if (strncmp(argv[i], "library=", 8) == 0) snprintf(library, sizeof library, "%s", argv[i] + 8);
    if (strncmp(argv[i], "out=", 4) == 0) snprintf(out, sizeof out, "%s", argv[i] + 4);
  }
  if (library[0] == '\0' || out[0] == '\0') return 1;
  qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
  qemu_plugin_register_vcpu_syscall_cb(id, mark);
  return 0;
}
