/* shared_test.c - the shared page and its lock: torn stores, kills and stops in between, and many who change it at once. */
#include "test/unit/capture/kit.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vfs/base/clock.h"
#include "vfs/capture/seat.h"

#define SLOTS_AT   64u
#define PAGE_BYTES 16384u

static void path_of(const kit_dir *kit, char out[128])
{
    snprintf(out, 128, "%s/shared", kit->state_dir);
}

static lj_session session_number(uint32_t n)
{
    lj_session session;
    memset(&session, 0, sizeof(session));
    session.chain.active = true;
    snprintf(session.chain.generation, sizeof(session.chain.generation), "%s", "0123456789abcdef");
    session.chain.index = n;
    session.chain.has_life = true;
    session.chain.salt = kit_salt(n);
    session.chain.sealed_frames = n * 3u;
    return session;
}

static void empty_page(void **state)
{
    lj_error err = LJ_ERROR_INIT;
    char path[128];
    path_of(*state, path);
    lj_shared *shared = NULL;
    lj_session session = session_number(9);
    assert_ok(lj_shared_open(path, &shared, &err), &err);
    assert_false(lj_shared_load(shared, &session));
    assert_int_equal(session.chain.index, 9);
    lj_shared_close(shared);
    lj_shared_close(NULL);
}

static void newest_store_wins(void **state)
{
    lj_error err = LJ_ERROR_INIT;
    char path[128];
    path_of(*state, path);
    lj_session got;
    for (uint32_t n = 1; n <= 7; n++) {
        lj_shared *shared = NULL; /* opened anew each time, as after a kill */
        assert_ok(lj_shared_open(path, &shared, &err), &err);
        lj_session session = session_number(n);
        lj_shared_store(shared, &session);
        assert_true(lj_shared_load(shared, &got));
        assert_int_equal(got.chain.index, n);
        lj_shared_close(shared);
    }
    lj_shared *shared = NULL;
    assert_ok(lj_shared_open(path, &shared, &err), &err);
    assert_true(lj_shared_load(shared, &got));
    lj_session last = session_number(7);
    assert_string_equal(got.chain.generation, last.chain.generation);
    assert_true(lj_wal_salt_eq(got.chain.salt, last.chain.salt));
    assert_int_equal(got.chain.sealed_frames, 21);
    lj_shared_close(shared);
}

/* Whichever byte of the newest slot a killed process did not get to, the one before is what is read. */
static void torn_store_leaves_the_one_before(void **state)
{
    lj_error err = LJ_ERROR_INIT;
    char path[128];
    path_of(*state, path);
    lj_shared *shared = NULL;
    assert_ok(lj_shared_open(path, &shared, &err), &err);
    lj_session older = session_number(1);
    lj_session newer = session_number(2);
    lj_shared_store(shared, &older);
    lj_shared_store(shared, &newer);
    lj_shared_close(shared);

    unsigned older_read = 0;
    for (uint64_t off = SLOTS_AT; off < PAGE_BYTES; off += 3) {
        kit_flip(path, off, 0x40);
        lj_session got = session_number(99);
        assert_ok(lj_shared_open(path, &shared, &err), &err);
        assert_true(lj_shared_load(shared, &got));
        assert_true(got.chain.index == 1 || got.chain.index == 2);
        older_read += got.chain.index == 1;
        lj_shared_close(shared);
        kit_flip(path, off, 0x40);
    }
    assert_true(older_read > 64); /* every byte of the newest slot is covered by its checksum */
}

static void both_slots_torn(void **state)
{
    lj_error err = LJ_ERROR_INIT;
    char path[128];
    path_of(*state, path);
    lj_shared *shared = NULL;
    assert_ok(lj_shared_open(path, &shared, &err), &err);
    lj_session session = session_number(1);
    lj_shared_store(shared, &session);
    lj_shared_store(shared, &session);
    lj_shared_close(shared);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    for (unsigned off = SLOTS_AT; off < PAGE_BYTES; off += 8)
        assert_int_equal(pwrite(fd, "torn", 4, off), 4);
    close(fd);
    assert_ok(lj_shared_open(path, &shared, &err), &err);
    assert_false(lj_shared_load(shared, &session));
    lj_session again = session_number(5); /* and it can be written again */
    lj_shared_store(shared, &again);
    assert_true(lj_shared_load(shared, &session));
    assert_int_equal(session.chain.index, 5);
    lj_shared_close(shared);
}

static void change(lj_session *session, int what)
{
    uint8_t raw = 7;
    switch (what) {
    case 0:
        memcpy(&session->chain.sealed, &raw, 1);
        break; /* no bool */
    case 1:
        memset(session->chain.generation, 'a', LJ_GENERATION_MAX);
        break;
    case 2:
        snprintf(session->pos.generation, LJ_GENERATION_MAX, "../../etc");
        break;
    case 3:
        session->chain.index = LJ_INDEX_MAX + 1u;
        break;
    case 4:
        memset(session->url, 'x', sizeof(session->url));
        break;
    case 5:
        memset(session->ship_error.hint, 'x', sizeof(session->ship_error.hint));
        break;
    case 6:
        session->last_object_ns = INT64_MAX;
        break;
    case 7:
        session->pending.state = (lj_pending_state)6;
        break;
    case 8:
        session->pending.end.page_size = 1000;
        break;
    default:
        session->chain.sealed_frames = UINT64_MAX;
        break;
    }
}

/* The checksum is right, and the content is nothing a session can be: as if it had not been stored. */
static void what_cannot_be_is_refused(void **state)
{
    lj_error err = LJ_ERROR_INIT;
    char path[128];
    path_of(*state, path);
    lj_shared *shared = NULL;
    lj_session got;
    assert_ok(lj_shared_open(path, &shared, &err), &err);
    for (int what = 0; what < 10; what++) {
        lj_session good = session_number(100 + (uint32_t)what);
        lj_session bad = good;
        lj_shared_store(shared, &good);
        change(&bad, what);
        lj_shared_store(shared, &bad);
        assert_true(lj_shared_load(shared, &got));
        assert_memory_equal(&got, &good, sizeof(good));
        lj_shared_store(shared, &bad);
        lj_shared_store(shared, &bad);
        lj_shared_store(shared, &good);
        assert_true(lj_shared_load(shared, &got));
    }
    lj_shared_close(shared);
}

/* Another build had the page, and did not write over all of ours. */
static void what_was_ours_before_another_build_is_old(void **state)
{
    lj_error err = LJ_ERROR_INIT;
    char path[128];
    path_of(*state, path);
    lj_shared *shared = NULL;
    lj_session session = session_number(1);
    assert_ok(lj_shared_open(path, &shared, &err), &err);
    for (int i = 0; i < 5; i++)
        lj_shared_store(shared, &session);
    kit_flip(path, 0, 1);
    assert_true(lj_shared_foreign(shared));
    assert_false(lj_shared_load(shared, &session));
    session = session_number(2); /* we were alone, and have decided */
    lj_shared_store(shared, &session);
    assert_false(lj_shared_foreign(shared));
    assert_true(lj_shared_load(shared, &session));
    assert_int_equal(session.chain.index, 2);
    lj_shared_close(shared);
}

static void page_that_cannot_be_made(void **state)
{
    const kit_dir *kit = *state;
    lj_error err = LJ_ERROR_INIT;
    lj_shared *shared = NULL;
    assert_int_not_equal(lj_shared_open(kit->state_dir, &shared, &err), LJ_OK);
    assert_null(shared);
    assert_true(strstr(err.message, kit->state_dir) != NULL);
}

/* ------------------------------------------------------------------ the lock */

static int seat(const kit_dir *kit)
{
    lj_error err = LJ_ERROR_INIT;
    char path[128];
    int fd = -1;
    snprintf(path, sizeof(path), "%s/lock", kit->state_dir);
    assert_ok(lj_seat_open(path, &fd, &err), &err);
    return fd;
}

#define CHANGERS 4
#define CHANGES  400

/* One of several who add to the same number, each with a mapping and a descriptor of its own, as processes have. */
static void *add_many(void *ctx)
{
    const kit_dir *kit = ctx;
    lj_error err = LJ_ERROR_INIT;
    lj_shared *shared = NULL;
    char path[128];
    path_of(kit, path);
    assert_ok(lj_shared_open(path, &shared, &err), &err);
    int fd = seat(kit);
    for (int i = 0; i < CHANGES; i++) {
        lj_session s;
        assert_true(lj_seat_lock_page(fd, 60 * LJ_NS_PER_S));
        assert_true(lj_shared_load(shared, &s));
        s.spool_bytes++;
        s.chain.index = (uint32_t)s.spool_bytes;
        lj_shared_store(shared, &s);
        lj_seat_unlock_page(fd);
        lj_shared_add(shared, LJ_WORD_CALLS);
    }
    lj_seat_leave(fd);
    lj_shared_close(shared);
    return NULL;
}

static void no_change_is_lost(void **state)
{
    lj_error err = LJ_ERROR_INIT;
    lj_shared *shared = NULL;
    char path[128];
    path_of(*state, path);
    assert_ok(lj_shared_open(path, &shared, &err), &err);
    lj_session session = session_number(0);
    lj_shared_store(shared, &session);
    uint64_t version = lj_shared_version(shared);
    pthread_t threads[CHANGERS];
    for (int i = 0; i < CHANGERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, add_many, *state), 0);
    for (int i = 0; i < CHANGERS; i++)
        pthread_join(threads[i], NULL);
    assert_true(lj_shared_load(shared, &session));
    assert_int_equal(session.spool_bytes, CHANGERS * CHANGES);
    assert_int_equal(session.chain.index, CHANGERS * CHANGES);
    assert_int_equal(lj_shared_get(shared, LJ_WORD_CALLS), CHANGERS * CHANGES);
    assert_true(lj_shared_version(shared) != version);
    lj_shared_close(shared);
}

/* A child that takes the page's lock, tells so, and waits to be killed. */
static pid_t holder(const kit_dir *kit)
{
    int ready[2];
    char byte = 0;
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        int fd = seat(kit);
        if (!lj_seat_lock_page(fd, 0) || !lj_seat_join(fd) || !lj_seat_lead(fd) ||
            write(ready[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return pid;
}

static void stopped_or_killed_with_the_lock(void **state)
{
    int fd = seat(*state);
    pid_t pid = holder(*state);
    assert_int_equal(kill(pid, SIGSTOP), 0);
    int64_t start_ns = lj_clock_mono_ns();
    assert_false(lj_seat_lock_page(fd, 20 * LJ_NS_PER_MS));
    assert_true(lj_clock_mono_ns() - start_ns >= 20 * LJ_NS_PER_MS);
    assert_true(lj_seat_company(fd));
    assert_false(lj_seat_alone(fd));
    assert_false(lj_seat_lead(fd));
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_true(lj_seat_lock_page(fd, 0));
    lj_seat_unlock_page(fd);
    assert_false(lj_seat_company(fd));
    assert_true(lj_seat_alone(fd));
    assert_true(lj_seat_lead(fd));
    lj_seat_leave(fd);
}

static void who_is_there(void **state)
{
    int a = seat(*state);
    int b = seat(*state);
    assert_true(lj_seat_alone(a));
    assert_false(lj_seat_alone(b)); /* it has to wait */
    assert_false(lj_seat_join(b));
    assert_true(lj_seat_join(a)); /* has decided, and lets others in */
    assert_true(lj_seat_join(b));
    assert_true(lj_seat_company(a) && lj_seat_company(b));
    assert_true(lj_seat_lead(a));
    assert_false(lj_seat_lead(b));
    lj_seat_leave(a);
    assert_true(lj_seat_lead(b));
    assert_false(lj_seat_company(b));
    lj_seat_leave(b);
    lj_seat_leave(-1);
}

#define ONE(fn) cmocka_unit_test_setup_teardown(fn, kit_dir_setup, kit_dir_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(empty_page),
        ONE(newest_store_wins),
        ONE(torn_store_leaves_the_one_before),
        ONE(both_slots_torn),
        ONE(what_cannot_be_is_refused),
        ONE(what_was_ours_before_another_build_is_old),
        ONE(page_that_cannot_be_made),
        ONE(no_change_is_lost),
        ONE(stopped_or_killed_with_the_lock),
        ONE(who_is_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
