// Stands in for NCCL where there is no device: the same functions, on the memory of the host, over a socket.
//
// The process that makes the id also serves: every rank sends it what it has, rank after rank it adds, and sends each its
// part. Calls do not block: a thread of each communicator does the work, and until it is done the communicator says that it is
// in progress. What a header promises is held against the caller, and what NCCL leaves undefined is an error here: calls out
// of turn, and ranks that ask for different things.
//
// TASTEMAKER_STANDIN=silent: a lost rank is not noticed, as between devices of one machine; the others hang.

#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { SUCCESS = 0, SYSTEM = 2, INVALID_ARGUMENT = 4, INVALID_USAGE = 5, REMOTE = 6, IN_PROGRESS = 7 };
enum { HELLO = 1, ALL_REDUCE, REDUCE_SCATTER, ALL_GATHER };

typedef struct { char internal[128]; } UniqueId;
typedef struct { size_t size; unsigned magic, version; int blocking; } Config;

// What a rank asks for, before its numbers.
typedef struct { int32_t kind, rank, n_ranks, type; uint64_t count; } Ask;

typedef struct Work {
  Ask ask;
  const void *sent;
  void *kept;
  struct Work *next;
} Work;

typedef struct Comm {
  int rank, n_ranks, socket;
  struct sockaddr_un address;
  _Atomic int state, stops;
  pthread_t thread;
  pthread_mutex_t mutex;
  pthread_cond_t woken;
  Work *first, **last;
  char words[200];
} Comm;

static size_t width(int type) {
  static const size_t bytes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};
  return type >= 0 && type < 10 ? bytes[type] : 0;
}

static size_t sent_bytes(const Ask *ask) {
  size_t bytes = ask->count * width(ask->type);
  return ask->kind == REDUCE_SCATTER ? bytes * ask->n_ranks : ask->kind == HELLO ? 0 : bytes;
}

static size_t kept_bytes(const Ask *ask) {
  size_t bytes = ask->count * width(ask->type);
  return ask->kind == ALL_GATHER ? bytes * ask->n_ranks : ask->kind == HELLO ? 0 : bytes;
}

static int put(int socket, const void *data, size_t n) {
  for (const char *at = data; n > 0;) {
    ssize_t done = send(socket, at, n, MSG_NOSIGNAL);
    if (done <= 0) return -1;
    at += done, n -= done;
  }
  return 0;
}

static int get(int socket, void *data, size_t n) {
  for (char *at = data; n > 0;) {
    ssize_t done = recv(socket, at, n, 0);
    if (done <= 0) return -1;
    at += done, n -= done;
  }
  return 0;
}

// The serving side.

typedef struct { int listens, n_ranks, *sockets; } Server;

static void answer_all(Server *server, int32_t status, const char *words) {
  char text[200] = {0};
  snprintf(text, sizeof text, "%s", words);
  for (int rank = 0; rank < server->n_ranks; rank++) {
    if (server->sockets[rank] < 0) continue;
    put(server->sockets[rank], &status, sizeof status);
    if (status != SUCCESS) put(server->sockets[rank], text, sizeof text);
  }
}

// Whether all ranks have come: the first says how many there are.
static int meet(Server *server) {
  for (int come = 0; come == 0 || come < server->n_ranks; come++) {
    int socket = accept(server->listens, NULL, NULL);
    Ask hello;
    if (socket < 0 || get(socket, &hello, sizeof hello) != 0) return -1;
    if (!server->sockets) {
      server->n_ranks = hello.n_ranks;
      server->sockets = malloc(hello.n_ranks * sizeof(int));
      for (int i = 0; i < hello.n_ranks; i++) server->sockets[i] = -1;
    }
    int fits = hello.kind == HELLO && hello.n_ranks == server->n_ranks && hello.rank < server->n_ranks;
    if (!fits || server->sockets[hello.rank] >= 0) return -1;
    server->sockets[hello.rank] = socket;
  }
  answer_all(server, SUCCESS, "");
  return 0;
}

static int add(void *sum, const void *other, uint64_t n, int type) {
  if (type == 7) {
    float *to = sum;
    const float *from = other;
    for (uint64_t i = 0; i < n; i++) to[i] += from[i];
  } else if (type == 8) {
    double *to = sum;
    const double *from = other;
    for (uint64_t i = 0; i < n; i++) to[i] += from[i];
  } else {
    return -1;
  }
  return 0;
}

static void *serve(void *given) {
  Server *server = given;
  int is_silent = getenv("TASTEMAKER_STANDIN") && strcmp(getenv("TASTEMAKER_STANDIN"), "silent") == 0;
  if (meet(server) != 0) return NULL;
  for (;;) {
    Ask first, ask;
    char **rows = calloc(server->n_ranks, sizeof(char *));
    for (int rank = 0; rank < server->n_ranks; rank++) {
      if (get(server->sockets[rank], &ask, sizeof ask) != 0) goto lost;
      if (rank == 0) first = ask;
      if (ask.kind != first.kind || ask.type != first.type || ask.count != first.count) {
        char words[200];
        snprintf(words, sizeof words, "rank %d asks for %d of %llu numbers of type %d, rank 0 for %d of %llu of type %d",
                 rank, ask.kind, (unsigned long long)ask.count, ask.type, first.kind, (unsigned long long)first.count,
                 first.type);
        answer_all(server, INVALID_USAGE, words);
        goto closed;
      }
      size_t n = sent_bytes(&ask);
      rows[rank] = malloc(n + 1);
      if (get(server->sockets[rank], rows[rank], n) != 0) goto lost;
    }
    if (first.kind != ALL_GATHER) {
      uint64_t n = sent_bytes(&first) / width(first.type);
      for (int rank = 1; rank < server->n_ranks; rank++) {
        if (add(rows[0], rows[rank], n, first.type) != 0) {
          answer_all(server, INVALID_ARGUMENT, "a type that is not summed");
          goto closed;
        }
      }
    }
    answer_all(server, SUCCESS, "");
    for (int to = 0; to < server->n_ranks; to++) {
      size_t one = first.count * width(first.type);
      if (first.kind == ALL_GATHER) {
        for (int from = 0; from < server->n_ranks; from++) put(server->sockets[to], rows[from], one);
      } else {
        put(server->sockets[to], rows[0] + (first.kind == REDUCE_SCATTER ? to * one : 0), one);
      }
    }
    for (int rank = 0; rank < server->n_ranks; rank++) free(rows[rank]);
    free(rows);
  }
lost:
  if (is_silent) return NULL;
  answer_all(server, REMOTE, "a connection was closed");
closed:
  for (int rank = 0; rank < server->n_ranks; rank++) close(server->sockets[rank]);
  return NULL;
}

// The asking side.

static int fail(Comm *comm, int status, const char *words) {
  snprintf(comm->words, sizeof comm->words, "%s", words);
  atomic_store(&comm->state, status);
  return status;
}

static int ask(Comm *comm, const Work *work) {
  int32_t status;
  if (put(comm->socket, &work->ask, sizeof work->ask) != 0 ||
      put(comm->socket, work->sent, sent_bytes(&work->ask)) != 0 || get(comm->socket, &status, sizeof status) != 0) {
    return fail(comm, REMOTE, "the connection was closed");
  }
  if (status != SUCCESS) {
    char words[200];
    return get(comm->socket, words, sizeof words) != 0 ? fail(comm, status, "") : fail(comm, status, words);
  }
  if (get(comm->socket, work->kept, kept_bytes(&work->ask)) != 0) return fail(comm, REMOTE, "the connection was closed");
  return SUCCESS;
}

static void *run(void *given) {
  Comm *comm = given;
  // Polls of the caller see at least one state in progress.
  usleep(2000);
  if (connect(comm->socket, (struct sockaddr *)&comm->address, sizeof comm->address) != 0) {
    fail(comm, SYSTEM, "nobody serves");
    return NULL;
  }
  Work hello = {.ask = {.kind = HELLO, .rank = comm->rank, .n_ranks = comm->n_ranks}};
  if (ask(comm, &hello) != SUCCESS) return NULL;
  pthread_mutex_lock(&comm->mutex);
  for (;;) {
    if (!comm->first) atomic_store(&comm->state, SUCCESS);
    while (!comm->first && !atomic_load(&comm->stops)) pthread_cond_wait(&comm->woken, &comm->mutex);
    Work *work = comm->first;
    if (!work || atomic_load(&comm->stops)) break;
    pthread_mutex_unlock(&comm->mutex);
    int status = ask(comm, work);
    pthread_mutex_lock(&comm->mutex);
    comm->first = work->next;
    if (!comm->first) comm->last = &comm->first;
    free(work);
    if (status != SUCCESS) break;
  }
  pthread_mutex_unlock(&comm->mutex);
  return NULL;
}

static _Thread_local int depth;
static _Thread_local Comm *grouped;
static _Thread_local Work *asked, **asked_last;

static int enqueue(Comm *comm, Ask wanted, const void *sent, void *kept) {
  if (!comm || width(wanted.type) == 0) return INVALID_ARGUMENT;
  int state = atomic_load(&comm->state);
  if (state != SUCCESS) return state == IN_PROGRESS ? fail(comm, INVALID_USAGE, "called while in progress") : state;
  Work *work = calloc(1, sizeof *work);
  *work = (Work){.ask = wanted, .sent = sent, .kept = kept};
  work->ask.rank = comm->rank, work->ask.n_ranks = comm->n_ranks;
  if (depth == 0) {
    free(work);
    return fail(comm, INVALID_USAGE, "called outside of a group");
  }
  if (grouped && grouped != comm) return INVALID_USAGE;
  grouped = comm;
  if (!asked) asked_last = &asked;
  *asked_last = work;
  asked_last = &work->next;
  return SUCCESS;
}

int ncclGetVersion(int *version) {
  *version = 22809;
  return SUCCESS;
}

const char *ncclGetErrorString(int status) {
  switch (status) {
    case SYSTEM: return "unhandled system error";
    case INVALID_ARGUMENT: return "invalid argument";
    case INVALID_USAGE: return "invalid usage";
    case REMOTE: return "remote process exited or there was a network error";
    default: return "no error";
  }
}

const char *ncclGetLastError(Comm *comm) { return comm ? comm->words : ""; }

int ncclGetUniqueId(UniqueId *id) {
  static _Atomic int number;
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  // A name that no file has: its first byte is zero.
  snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "tastemaker-standin-%d-%d", (int)getpid(),
           atomic_fetch_add(&number, 1));
  Server *server = calloc(1, sizeof *server);
  server->listens = socket(AF_UNIX, SOCK_STREAM, 0);
  if (bind(server->listens, (struct sockaddr *)&address, sizeof address) != 0 || listen(server->listens, 64) != 0) {
    return SYSTEM;
  }
  memset(id, 0, sizeof *id);
  memcpy(id->internal, &address, sizeof address < sizeof *id ? sizeof address : sizeof *id);
  pthread_t thread;
  if (pthread_create(&thread, NULL, serve, server) != 0) return SYSTEM;
  pthread_detach(thread);
  return SUCCESS;
}

int ncclCommInitRankConfig(Comm **comm, int n_ranks, UniqueId id, int rank, Config *config) {
  int knows = config && config->size >= sizeof(Config) && config->magic == 0xcafebeef && config->version >= 21400 &&
              config->version <= 22809 && config->blocking == 0;
  if (!knows || n_ranks < 1 || rank < 0 || rank >= n_ranks) return INVALID_ARGUMENT;
  Comm *made = calloc(1, sizeof *made);
  made->rank = rank, made->n_ranks = n_ranks, made->socket = socket(AF_UNIX, SOCK_STREAM, 0);
  memcpy(&made->address, id.internal, sizeof made->address);
  made->last = &made->first;
  atomic_store(&made->state, IN_PROGRESS);
  pthread_mutex_init(&made->mutex, NULL);
  pthread_cond_init(&made->woken, NULL);
  *comm = made;
  return pthread_create(&made->thread, NULL, run, made) == 0 ? IN_PROGRESS : SYSTEM;
}

int ncclCommGetAsyncError(Comm *comm, int *state) {
  if (!comm) return INVALID_ARGUMENT;
  *state = atomic_load(&comm->state);
  return SUCCESS;
}

int ncclCommFinalize(Comm *comm) { return comm ? atomic_load(&comm->state) : INVALID_ARGUMENT; }

static int end(Comm *comm) {
  if (!comm) return INVALID_ARGUMENT;
  pthread_mutex_lock(&comm->mutex);
  atomic_store(&comm->stops, 1);
  pthread_cond_signal(&comm->woken);
  pthread_mutex_unlock(&comm->mutex);
  shutdown(comm->socket, SHUT_RDWR);
  pthread_join(comm->thread, NULL);
  close(comm->socket);
  free(comm);
  return SUCCESS;
}

int ncclCommDestroy(Comm *comm) { return end(comm); }
int ncclCommAbort(Comm *comm) { return end(comm); }

int ncclGroupStart(void) {
  depth++;
  return SUCCESS;
}

int ncclGroupEnd(void) {
  if (depth == 0) return INVALID_USAGE;
  if (--depth > 0 || !grouped) return SUCCESS;
  Comm *comm = grouped;
  pthread_mutex_lock(&comm->mutex);
  atomic_store(&comm->state, IN_PROGRESS);
  *comm->last = asked;
  comm->last = asked_last;
  pthread_cond_signal(&comm->woken);
  pthread_mutex_unlock(&comm->mutex);
  grouped = NULL, asked = NULL;
  return IN_PROGRESS;
}

int ncclAllReduce(const void *sent, void *kept, size_t count, int type, int op, Comm *comm, void *stream) {
  if (op != 0 || stream) return INVALID_ARGUMENT;
  return enqueue(comm, (Ask){.kind = ALL_REDUCE, .type = type, .count = count}, sent, kept);
}

int ncclReduceScatter(const void *sent, void *kept, size_t count, int type, int op, Comm *comm, void *stream) {
  if (op != 0 || stream) return INVALID_ARGUMENT;
  return enqueue(comm, (Ask){.kind = REDUCE_SCATTER, .type = type, .count = count}, sent, kept);
}

int ncclAllGather(const void *sent, void *kept, size_t count, int type, Comm *comm, void *stream) {
  if (stream) return INVALID_ARGUMENT;
  return enqueue(comm, (Ask){.kind = ALL_GATHER, .type = type, .count = count}, sent, kept);
}
