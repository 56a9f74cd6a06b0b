/* ranges_test.c - one large object in ranges: whole, broken off, shorter than listed, with a sink that fails. */
#include "test/unit/restore/memory_storage.h"

#include <stdatomic.h>

#include "vfs/base/clock.h"
#include "vfs/restore/ranges.h"

#define KEY  "generations/0123456789abcdef/snapshots/00000000.snapshot.lz4"
#define SIZE (5 * LJ_RANGE_BYTES + 12345)

typedef struct {
    memory_replica m;
    lj_storage_ops ops;
    uint8_t *data;
    lj_fetch fetch;
    atomic_size_t received;
} fixture;

static void on_received(void *ctx, size_t bytes)
{
    atomic_fetch_add(&((fixture *)ctx)->received, bytes);
}

static void begin(fixture *f)
{
    memory_open_with(&f->m, &f->ops, LJ_STORAGE_REMOTE);
    f->data = malloc(SIZE);
    assert_non_null(f->data);
    for (size_t i = 0; i < SIZE; i++)
        f->data[i] = (uint8_t)(i * 2654435761u >> 13);
    memory_put_raw(&f->m, KEY, f->data, SIZE, 1000);
    atomic_init(&f->received, 0);
    f->fetch = (lj_fetch){.storage = f->m.storage, .received = on_received, .ctx = f};
}

static void end(fixture *f)
{
    memory_free(&f->m);
    free(f->data);
}

/* Compares what comes with what was put, in order. */
typedef struct {
    const uint8_t *want;
    size_t pos;
    size_t fail_at; /* 0: never */
} checker;

static lj_code check_write(void *ctx, const void *data, size_t len, lj_error *err)
{
    checker *c = ctx;
    assert_true(c->pos + len <= SIZE);
    assert_memory_equal(c->want + c->pos, data, len);
    c->pos += len;
    if (c->fail_at != 0 && c->pos >= c->fail_at)
        return lj_error_set(err, LJ_NOSPACE, "the disk is full");
    return LJ_OK;
}

static void in_order_and_whole(void **state)
{
    (void)state;
    fixture f;
    begin(&f);
    lj_error err = LJ_ERROR_INIT;
    checker c = {.want = f.data};
    lj_sink sink = {.ctx = &c, .write = check_write};
    assert_true(lj_ranges_wanted(f.m.storage, SIZE));
    assert_false(lj_ranges_wanted(f.m.storage, 2 * LJ_RANGE_BYTES));
    assert_ok(lj_ranges_get(&f.fetch, KEY, SIZE, &sink, &err), &err);
    assert_int_equal(c.pos, SIZE);
    assert_int_equal(f.m.gets, 6);
    assert_int_equal(atomic_load(&f.received), SIZE);
    end(&f);
}

static void broken_ranges_go_on(void **state)
{
    (void)state;
    fixture f;
    begin(&f);
    f.m.break_after = LJ_RANGE_BYTES / 2;
    lj_error err = LJ_ERROR_INIT;
    checker c = {.want = f.data};
    lj_sink sink = {.ctx = &c, .write = check_write};
    assert_ok(lj_ranges_get(&f.fetch, KEY, SIZE, &sink, &err), &err);
    assert_int_equal(c.pos, SIZE);
    assert_int_equal(f.m.gets, 11); /* each of the five whole ones twice */
    assert_int_equal(atomic_load(&f.received), SIZE);
    end(&f);
}

static void shorter_than_listed(void **state)
{
    (void)state;
    fixture f;
    begin(&f);
    lj_error err = LJ_ERROR_INIT;
    checker c = {.want = f.data};
    lj_sink sink = {.ctx = &c, .write = check_write};
    assert_int_equal(lj_ranges_get(&f.fetch, KEY, SIZE + 1, &sink, &err), LJ_UNAVAILABLE);
    assert_true(err.retryable);
    assert_non_null(strstr(err.message, "the object ends at byte"));
    end(&f);
}

static void the_sink_fails(void **state)
{
    (void)state;
    fixture f;
    begin(&f);
    lj_error err = LJ_ERROR_INIT;
    checker c = {.want = f.data, .fail_at = LJ_RANGE_BYTES + 1};
    lj_sink sink = {.ctx = &c, .write = check_write};
    assert_int_equal(lj_ranges_get(&f.fetch, KEY, SIZE, &sink, &err), LJ_NOSPACE);
    assert_string_equal(err.message, "the disk is full");
    end(&f);
}

static void cancelled(void **state)
{
    (void)state;
    fixture f;
    begin(&f);
    lj_error err = LJ_ERROR_INIT;
    bool cancel = true;
    checker c = {.want = f.data};
    lj_sink sink = {.ctx = &c, .write = check_write};
    f.fetch.cancel = &cancel;
    assert_int_equal(lj_ranges_get(&f.fetch, KEY, SIZE, &sink, &err), LJ_CANCELLED);
    assert_int_equal(c.pos, 0);
    end(&f);
}

/* The way a restore takes: through LZ4. */
static void a_compressed_object(void **state)
{
    (void)state;
    fixture f;
    begin(&f);
    uint64_t random = 88172645463325252u;
    for (size_t i = 0; i + 8 <= SIZE; i += 8) { /* not to be compressed */
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        memcpy(f.data + i, &random, 8);
    }
    memory_put_lz4(&f.m, KEY ".2", f.data, SIZE, 1000);
    size_t size = f.m.objects[1].len;
    assert_true(lj_ranges_wanted(f.m.storage, size));
    lj_error err = LJ_ERROR_INIT;
    checker c = {.want = f.data};
    lj_sink sink = {.ctx = &c, .write = check_write};
    assert_ok(lj_fetch_object(&f.fetch, KEY ".2", size, &sink, &(lj_label){.size_bytes = 0}, &err),
              &err);
    assert_int_equal(c.pos, SIZE);
    assert_true(f.m.gets > 5);
    f.m.objects[1].data[size / 2] ^= 1;
    c.pos = 0;
    c.want = f.data;
    lj_sink none = lj_sink_buf(&(lj_buf)LJ_BUF_INIT(2 * SIZE));
    lj_code code =
        lj_fetch_object(&f.fetch, KEY ".2", size, &none, &(lj_label){.size_bytes = 0}, &err);
    lj_buf_free(none.ctx);
    assert_int_equal(code, LJ_CORRUPT);
    end(&f);
}

/* A store that has not heard of the object everywhere yet: not for a folder, where absence is the truth. */
static void listed_but_not_there_yet(void **state)
{
    (void)state;
    fixture f;
    begin(&f);
    lj_error err = LJ_ERROR_INIT;
    checker c = {.want = f.data};
    lj_sink sink = {.ctx = &c, .write = check_write};
    f.m.late_gets = 2;
    assert_ok(lj_fetch_bytes(&f.fetch, KEY, 0, -1, &sink, NULL, &err), &err);
    assert_int_equal(c.pos, SIZE);
    assert_int_equal(f.m.gets, 3);
    f.m.late_gets = 100;
    assert_int_equal(lj_fetch_bytes(&f.fetch, KEY, 0, -1, &sink, NULL, &err), LJ_NOTFOUND);
    f.ops.features = 0;
    f.m.gets = 0;
    assert_int_equal(lj_fetch_bytes(&f.fetch, KEY, 0, -1, &sink, NULL, &err), LJ_NOTFOUND);
    assert_int_equal(f.m.gets, 1);
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_order_and_whole),       cmocka_unit_test(broken_ranges_go_on),
        cmocka_unit_test(shorter_than_listed),      cmocka_unit_test(the_sink_fails),
        cmocka_unit_test(listed_but_not_there_yet), cmocka_unit_test(cancelled),
        cmocka_unit_test(a_compressed_object),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
