/* Makes a server of libchdb, which is the whole of ClickHouse as a library: clickhouse-host LIBRARY OPTIONS...
 *
 * A process of its own, because the library takes over signals, threads and memory of the one it is loaded into, and because
 * tests have to be able to kill it. The options are those of clickhouse-local. */
#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>

typedef void *(*command_line)(int argc, char **argv);
typedef const char *(*error_of)(void *result);

int main(int argc, char **argv) {
  if (argc < 2) {
    fprintf(stderr, "usage: %s LIBRARY OPTIONS...\n", argv[0]);
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
