/* client.h - what the tests of lj_http share: a lj_http with short limits, and sources and sinks that misbehave. */
#ifndef LJ_TEST_HTTP_CLIENT_H
#define LJ_TEST_HTTP_CLIENT_H

#include "vfs/storage/http/http.h"

#define STALL_MS 300

/* With a stall timeout of STALL_MS; `cancel` may be NULL. Fails the test when it cannot. */
lj_http *client_new(const bool *cancel);

/* A sink that counts, sleeps before each piece, and fails once it has `fail_at` bytes (0: never). */
typedef struct {
    uint64_t bytes;
    unsigned calls;
    unsigned sleep_ms;
    uint64_t fail_at;
} counting_sink;
lj_sink counting_sink_new(counting_sink *state);

/* A source of `len` bytes 'y' in pieces of at most `piece` bytes. */
typedef struct {
    uint64_t len;
    uint64_t pos;
    size_t piece;      /* 0: as asked */
    unsigned sleep_ms; /* before each */
    uint64_t fail_at;  /* fails from here on; 0: never */
    unsigned rewinds;
    bool raise_sigpipe;
} test_source;
lj_source test_source_new(test_source *state);

/* Milliseconds since `start_ns` (monotonic). */
unsigned elapsed_ms(int64_t start_ns);
/* Descriptors of this process that are sockets. */
unsigned count_sockets(void);

#endif
