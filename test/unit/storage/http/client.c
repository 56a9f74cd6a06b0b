/* client.c - see client.h. */
#include "test/unit/storage/http/client.h"

#include "test/unit/unit.h"

#include <signal.h>
#include <unistd.h>

#include "vfs/base/clock.h"

#define FD_MAX_LOOKED_AT 1024

lj_http *client_new(const bool *cancel)
{
    lj_error err = LJ_ERROR_INIT;
    lj_http *http = NULL;
    lj_http_options options = {.stall_timeout_ns = STALL_MS * LJ_NS_PER_MS, .cancel = cancel};
    assert_ok(lj_http_new(&options, &http, &err), &err);
    return http;
}

static lj_code count_bytes(void *ctx, const void *data, size_t len, lj_error *err)
{
    counting_sink *state = ctx;
    (void)data;
    state->calls++;
    if (state->sleep_ms > 0)
        lj_clock_sleep_ns(state->sleep_ms * LJ_NS_PER_MS);
    if (state->fail_at > 0 && state->bytes + len >= state->fail_at)
        return lj_error_set(err, LJ_NOSPACE, "the sink is full");
    state->bytes += len;
    return LJ_OK;
}

lj_sink counting_sink_new(counting_sink *state)
{
    return (lj_sink){.ctx = state, .write = count_bytes};
}

static lj_code read_bytes(void *ctx, void *out, size_t max, size_t *ret_n, lj_error *err)
{
    test_source *state = ctx;
    if (state->sleep_ms > 0)
        lj_clock_sleep_ns(state->sleep_ms * LJ_NS_PER_MS);
    if (state->raise_sigpipe)
        raise(SIGPIPE);
    if (state->fail_at > 0 && state->pos >= state->fail_at)
        return lj_error_set(err, LJ_CORRUPT, "the source is broken");
    size_t n = (size_t)LJ_MIN((uint64_t)max, state->len - state->pos);
    if (state->piece > 0)
        n = LJ_MIN(n, state->piece);
    memset(out, 'y', n);
    state->pos += n;
    *ret_n = n;
    return LJ_OK;
}

static lj_code rewind_source(void *ctx, lj_error *err)
{
    test_source *state = ctx;
    (void)err;
    state->pos = 0;
    state->rewinds++;
    return LJ_OK;
}

lj_source test_source_new(test_source *state)
{
    return (lj_source){
        .ctx = state, .read = read_bytes, .rewind = rewind_source, .size = (int64_t)state->len};
}

unsigned elapsed_ms(int64_t start_ns)
{
    return (unsigned)((lj_clock_mono_ns() - start_ns) / LJ_NS_PER_MS);
}

unsigned count_sockets(void)
{
    unsigned n = 0;
    char path[64];
    char target[16];
    for (int fd = 0; fd < FD_MAX_LOOKED_AT; fd++) {
        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        ssize_t len = readlink(path, target, sizeof(target));
        n += len >= 7 && memcmp(target, "socket:", 7) == 0;
    }
    return n;
}
