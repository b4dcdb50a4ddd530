/* Runs libchdb, which is the whole of ClickHouse as a library, as a server: clickhouse-host LIBRARY OPTIONS...
 *
 * It is a process of its own, because the library takes over signals, threads and memory of its process, and because tests have to be able to
 * kill it. The options are those of clickhouse-local.
 *
 * STACK_CLICKHOUSE_CLOCK names a file of 8 bytes, a number of seconds by which the server's clock is ahead of this machine's. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

typedef void *(*command_line)(int argc, char **argv);
typedef const char *(*error_of)(void *result);

#ifdef __x86_64__
static const volatile int64_t *ahead;

static int ask(long call, long first, long second) {
  long result;
  __asm__ volatile("syscall" : "=a"(result) : "a"(call), "D"(first), "S"(second) : "rcx", "r11", "memory");
  return (int)result;
}

static int read_clock(clockid_t clock, struct timespec *now) {
  int failed = ask(SYS_clock_gettime, clock, (long)now);
  if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += *ahead;
  return failed;
}

static int read_time_of_day(struct timeval *now, void *zone) {
  int failed = ask(SYS_gettimeofday, (long)now, (long)zone);
  if (!failed && now) now->tv_sec += *ahead;
  return failed;
}

static time_t read_seconds(time_t *seconds) {
  struct timespec now;
  read_clock(CLOCK_REALTIME, &now);
  if (seconds) *seconds = now.tv_sec;
  return now.tv_sec;
}

/* The kernel lets the vDSO be made writable as a whole only, and does not say how large it is. */
static int make_writable(void *vdso) {
  for (size_t pages = 1; pages <= 16; pages++)
    if (!mprotect(vdso, pages * 4096, PROT_READ | PROT_WRITE | PROT_EXEC)) return 0;
  return -1;
}

static int replace(void *vdso, const char *name, void *function) {
  unsigned char jump[12] = {0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xe0}; /* mov $function, %rax; jmp *%rax */
  unsigned char *at = dlsym(vdso, name);
  if (!at) return -1;
  memcpy(jump + 2, &function, sizeof function);
  memcpy(at, jump, sizeof jump);
  return 0;
}

/* The library brings its own clock_gettime, which calls the kernel's vDSO: libfaketime and its like have no effect on it. So the
 * functions of the vDSO are replaced, in this process only. */
static int move_clock(const char *path) {
  int file = open(path, O_RDONLY);
  if (file < 0 || (ahead = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0)) == MAP_FAILED) return -1;
  void *vdso = dlopen("linux-vdso.so.1", RTLD_NOW | RTLD_NOLOAD);
  return !vdso || make_writable((void *)getauxval(AT_SYSINFO_EHDR)) || replace(vdso, "__vdso_clock_gettime", read_clock) ||
         replace(vdso, "__vdso_gettimeofday", read_time_of_day) || replace(vdso, "__vdso_time", read_seconds);
}
#else
static int move_clock(const char *path) {
  (void)path;
  return -1;
}
#endif

int main(int argc, char **argv) {
  if (argc < 2) {
    fprintf(stderr, "usage: %s LIBRARY OPTIONS...\n", argv[0]);
    return 2;
  }
  const char *clock = getenv("STACK_CLICKHOUSE_CLOCK");
  if (clock && move_clock(clock)) {
    fprintf(stderr, "clickhouse-host: cannot move the clock by the number of seconds in %s\n", clock);
    return 2;
  }
  void *library = dlopen(argv[1], RTLD_NOW);
  command_line run = library ? (command_line)dlsym(library, "chdb_query_cmdline") : NULL;
  error_of error = library ? (error_of)dlsym(library, "chdb_result_error") : NULL;
  if (!run || !error) {
    fprintf(stderr, "clickhouse-host: %s\n", dlerror());
    return 2;
  }
  void *result = run(argc - 1, argv + 1); /* the library's path stands where a program has its own name */
  const char *message = result ? error(result) : "no result";
  fprintf(stderr, "clickhouse-host: the server ended: %s\n", message ? message : "no error given");
  fflush(stderr);
  _exit(1); /* a server does not end by itself; exit() would run destructors under the library's live threads */
}
