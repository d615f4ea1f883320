/*
 * What Android's C library has and the desktop's has not, or has otherwise, for an Android build of the runtime
 * that a desktop JVM loads. It takes the place of libc.so and is searched before glibc, to which all else goes.
 *
 * Where both have a function of one name, the sizes or constants of its arguments differ; the comments say which.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <wchar.h>

/* The desktop's own function of a name that is also defined here. */
static void *desktop(const char *name) {
  static void *libc;
  if (libc == NULL) libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
  void *found = dlsym(libc, name);
  if (found == NULL) abort();
  return found;
}

#define DESKTOP(type, name, ...)                       \
  static type (*name##_)(__VA_ARGS__);                 \
  if (name##_ == NULL) name##_ = (type(*)(__VA_ARGS__))desktop(#name)

int *__errno(void) { return __errno_location(); }

/* stdio: before API 23 the streams are elements of an array, whose elements take 152 bytes. */
char __sF[3][152];

static FILE *stream(FILE *file) {
  if ((char *)file == __sF[0]) return stdin;
  if ((char *)file == __sF[1]) return stdout;
  if ((char *)file == __sF[2]) return stderr;
  return file;
}

int vfprintf(FILE *file, const char *format, va_list arguments) {
  DESKTOP(int, vfprintf, FILE *, const char *, va_list);
  return vfprintf_(stream(file), format, arguments);
}

int fprintf(FILE *file, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  int written = vfprintf(file, format, arguments);
  va_end(arguments);
  return written;
}

size_t fwrite(const void *data, size_t size, size_t count, FILE *file) {
  DESKTOP(size_t, fwrite, const void *, size_t, size_t, FILE *);
  return fwrite_(data, size, count, stream(file));
}

int fputs(const char *text, FILE *file) {
  DESKTOP(int, fputs, const char *, FILE *);
  return fputs_(text, stream(file));
}

int fputc(int value, FILE *file) {
  DESKTOP(int, fputc, int, FILE *);
  return fputc_(value, stream(file));
}

int fflush(FILE *file) {
  DESKTOP(int, fflush, FILE *);
  return fflush_(file == NULL ? NULL : stream(file));
}

int getc(FILE *file) {
  DESKTOP(int, getc, FILE *);
  return getc_(stream(file));
}

int ungetc(int value, FILE *file) {
  DESKTOP(int, ungetc, int, FILE *);
  return ungetc_(value, stream(file));
}

/* Other numbers for the same questions. */
long sysconf(int name) {
  DESKTOP(long, sysconf, int);
  switch (name) {
    case 0x27:
    case 0x28: return sysconf_(_SC_PAGESIZE);
    case 0x60: return sysconf_(_SC_NPROCESSORS_CONF);
    case 0x61: return sysconf_(_SC_NPROCESSORS_ONLN);
    case 0x62: return sysconf_(_SC_PHYS_PAGES);
    case 0x63: return sysconf_(_SC_AVPHYS_PAGES);
    default: errno = EINVAL; return -1;
  }
}

/* Bionic has the locales C and C.UTF-8 and takes any mask. */
locale_t newlocale(int mask, const char *name, locale_t base) {
  DESKTOP(locale_t, newlocale, int, const char *, locale_t);
  return newlocale_(mask & LC_ALL_MASK, name[0] == '\0' ? "C" : name, base);
}

/* sigset_t has 8 bytes; glibc's has 128. */
int sigfillset(sigset_t *set) {
  memset(set, 0xff, 8);
  return 0;
}

int pthread_sigmask(int how, const sigset_t *set, sigset_t *old) {
  return syscall(SYS_rt_sigprocmask, how, set, old, 8) == 0 ? 0 : errno;
}

/*
 * pthread_mutex_t has 40 bytes; glibc's on arm64 has 48, of which it uses 40 after it has cleared all of them.
 * Bionic's static initializers of recursive and error-checking mutexes are flags in the first word.
 */
enum { MUTEX_BYTES = 40 };

int pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes) {
  DESKTOP(int, pthread_mutex_init, pthread_mutex_t *, const pthread_mutexattr_t *);
  pthread_mutex_t made;
  int error = pthread_mutex_init_(&made, attributes);
  if (error == 0) memcpy(mutex, &made, MUTEX_BYTES);
  return error;
}

static void make_static(pthread_mutex_t *mutex) {
  uint32_t flags;
  memcpy(&flags, mutex, sizeof flags);
  if (flags != 1u << 14 && flags != 2u << 14) return;
  static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
  DESKTOP(int, pthread_mutex_lock, pthread_mutex_t *);
  DESKTOP(int, pthread_mutex_unlock, pthread_mutex_t *);
  pthread_mutex_lock_(&guard);
  memcpy(&flags, mutex, sizeof flags);
  if (flags == 1u << 14 || flags == 2u << 14) {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    int type = flags == 1u << 14 ? PTHREAD_MUTEX_RECURSIVE : PTHREAD_MUTEX_ERRORCHECK;
    pthread_mutexattr_settype(&attributes, type);
    pthread_mutex_init(mutex, &attributes);
    pthread_mutexattr_destroy(&attributes);
  }
  pthread_mutex_unlock_(&guard);
}

int pthread_mutex_lock(pthread_mutex_t *mutex) {
  DESKTOP(int, pthread_mutex_lock, pthread_mutex_t *);
  make_static(mutex);
  return pthread_mutex_lock_(mutex);
}

int pthread_mutex_trylock(pthread_mutex_t *mutex) {
  DESKTOP(int, pthread_mutex_trylock, pthread_mutex_t *);
  make_static(mutex);
  return pthread_mutex_trylock_(mutex);
}

/* An unversioned reference would find glibc's first condition variables, of another layout. */
int pthread_cond_broadcast(pthread_cond_t *condition) {
  DESKTOP(int, pthread_cond_broadcast, pthread_cond_t *);
  return pthread_cond_broadcast_(condition);
}

int pthread_cond_signal(pthread_cond_t *condition) {
  DESKTOP(int, pthread_cond_signal, pthread_cond_t *);
  return pthread_cond_signal_(condition);
}

int pthread_cond_destroy(pthread_cond_t *condition) {
  DESKTOP(int, pthread_cond_destroy, pthread_cond_t *);
  return pthread_cond_destroy_(condition);
}

int pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex) {
  DESKTOP(int, pthread_cond_wait, pthread_cond_t *, pthread_mutex_t *);
  return pthread_cond_wait_(condition, mutex);
}

int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *until) {
  DESKTOP(int, pthread_cond_timedwait, pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
  return pthread_cond_timedwait_(condition, mutex, until);
}

/* Fortified calls that glibc has not. */
size_t __strlen_chk(const char *text, size_t size) { return strlen(text); }
char *__strchr_chk(const char *text, int wanted, size_t size) { return strchr(text, wanted); }
char *__strrchr_chk(const char *text, int wanted, size_t size) { return strrchr(text, wanted); }
ssize_t __write_chk(int file, const void *data, size_t count, size_t size) { return write(file, data, count); }
char *__gnu_strerror_r(int error, char *buffer, size_t size) { return strerror_r(error, buffer, size); }

void __assert2(const char *file, int line, const char *function, const char *text) {
  fprintf(stderr, "%s:%d: %s: assertion \"%s\" failed\n", file, line, function, text);
  abort();
}

void android_set_abort_message(const char *message) { fprintf(stderr, "abort: %s\n", message); }

int __system_property_get(const char *name, char *value) {
  value[0] = '\0';
  return 0;
}

/* The log: warnings and what is worse, to standard error. */
enum { ANDROID_LOG_WARN = 5 };

int __android_log_vprint(int priority, const char *tag, const char *format, va_list arguments) {
  if (priority < ANDROID_LOG_WARN) return 0;
  fprintf(stderr, "%s: ", tag == NULL ? "" : tag);
  int written = vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  return written;
}

int __android_log_print(int priority, const char *tag, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  int written = __android_log_vprint(priority, tag, format, arguments);
  va_end(arguments);
  return written;
}

int __android_log_write(int priority, const char *tag, const char *text) {
  return __android_log_print(priority, tag, "%s", text);
}

void __android_log_assert(const char *condition, const char *tag, const char *format, ...) {
  if (format != NULL) {
    va_list arguments;
    va_start(arguments, format);
    __android_log_vprint(ANDROID_LOG_WARN, tag, format, arguments);
    va_end(arguments);
  }
  abort();
}

void __gcov_dump(void) {}
void __gcov_flush(void) {}
