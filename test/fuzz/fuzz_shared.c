/*
 * fuzz_shared.c - the shared page, as another process (a killed one, one of another version, one gone wrong) may have left it.
 * Whatever it contains: a process that is alone decides by it and makes it true again, one that takes part follows it or gives
 * the chain up, and one that comes is let in or told why not.
 *
 * The first byte chooses. Bit 0 clear: the rest is the begin of the file, behind it a good page goes on (bit 4: an empty one). Set:
 * the page is a good one, the rest are patches to what its newest slot says (two bytes of offset, one of length, the content; of
 * length 255 is one byte that fills all the rest), and the checksum is made right, because random bytes never get past one. Bits
 * 1 to 3: both slots are patched; the words are set; the page comes when two processes are there already.
 */
#include "test/fuzz/fuzz.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vfs/base/table.h"
#include "vfs/capture/session.h"
#include "vfs/capture/shared.h"

#define PAGE_SIZE  1024u
#define GENERATION "0123456789abcdef"
#define URL        "file:///replica"
#define SALT       ((lj_wal_salt){1, 2})
#define WORDS_AT   8u
#define SLOTS_AT   64u
#define SLOT_BYTES                                                                                 \
    (16u + sizeof(lj_session) + 8u) /* magic and sequence, the session, its checksum */
#define FILE_BYTES 16384u
#define PATCHED    (8u + sizeof(lj_session)) /* from the sequence on */

enum { SEALED = 1, BOTH = 2, WORDS = 4, LATE = 8, EMPTY = 16 };
enum { FILL = 255 };

static char folder[] = "/tmp/fuzz_shared_XXXXXX";
static char db_path[64];
static char page_path[96];
static uint8_t good[FILE_BYTES]; /* a page with two good slots */
static uint8_t page[FILE_BYTES];

static void path_of(char out[96], const char *name)
{
    snprintf(out, 96, "%s/.a.db-litejoin/%s", folder, name);
}

static void clean_up(void)
{
    static const char *const names[] = {"shared", "lock", "position", "bell", "spool", ""};
    char path[96];
    for (size_t i = 0; i < LJ_ARRAY_LEN(names); i++) {
        path_of(path, names[i]);
        if (unlink(path) != 0)
            rmdir(path);
    }
    unlink(db_path);
    rmdir(folder);
}

static void write_file(const char *path, const void *data, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || pwrite(fd, data, size, 0) != (ssize_t)size)
        abort();
    close(fd);
}

/* As the uploader leaves it: a life that was sealed and emptied, so that the next open goes on. */
static lj_session session_of(const lj_saved_position *saved)
{
    lj_session s;
    memset(&s, 0, sizeof(s));
    s.chain = (lj_chain){.active = true, .index = 3, .has_life = true, .salt = SALT};
    memcpy(s.chain.generation, GENERATION, LJ_GENERATION_MAX);
    s.chain.sealed = true;
    s.chain.sealed_frames = 2;
    s.chain.emptied = lj_identity_of(db_path, &s.chain.identity);
    s.live = true;
    s.life = 5;
    s.life_salt = SALT;
    s.pos = saved->at;
    s.established = true;
    s.inode = s.chain.identity.inode;
    s.url_hash = lj_hash_text(URL);
    memcpy(s.url, URL, sizeof(URL));
    return s;
}

static void prepare(void)
{
    lj_error err = LJ_ERROR_INIT;
    char path[96];
    if (db_path[0] != 0)
        return;
    if (mkdtemp(folder) == NULL)
        abort();
    atexit(clean_up);
    snprintf(db_path, sizeof(db_path), "%s/a.db", folder);
    path_of(page_path, "shared");
    path_of(path, "");
    write_file(db_path, good, 3 * PAGE_SIZE);
    if (mkdir(path, 0700) != 0)
        abort();
    path_of(path, "position");
    lj_saved_position saved = {.at = {.generation = GENERATION, .index = 3}, .salt = SALT};
    saved.page_size = PAGE_SIZE;
    saved.at.offset = lj_wal_frame_offset(PAGE_SIZE, 3);
    FUZZ_CHECK(lj_saved_position_store(path, &saved, true, &err) == LJ_OK);
    lj_session s = session_of(&saved);
    lj_shared *shared = NULL;
    FUZZ_CHECK(lj_shared_open(page_path, &shared, &err) == LJ_OK);
    lj_shared_store(shared, &s);
    lj_shared_store(shared, &s);
    lj_shared_close(shared);
    int fd = open(page_path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, good, sizeof(good)) != (ssize_t)sizeof(good))
        abort();
    close(fd);
}

/* ------------------------------------------------------------------ the page */

/* As shared.c counts it. */
static void seal(uint8_t *slot)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < SLOT_BYTES - 8; i += 8) {
        uint64_t word;
        memcpy(&word, slot + i, sizeof(word));
        hash = (hash ^ word) * UINT64_C(0x100000001b3);
        hash ^= hash >> 29;
    }
    memcpy(slot + SLOT_BYTES - 8, &hash, sizeof(hash));
}

static void patch(uint8_t *slot, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i + 3 < size;) {
        size_t at = (data[i] | (size_t)data[i + 1] << 8) % PATCHED;
        size_t len = LJ_MIN((size_t)data[i + 2], LJ_MIN(PATCHED - at, size - i - 3));
        if (data[i + 2] == FILL) {
            memset(slot + 8 + at, data[i + 3], PATCHED - at);
            len = 1;
        } else {
            memcpy(slot + 8 + at, data + i + 3, len);
        }
        i += 3 + len;
    }
    seal(slot);
}

static void make_page(uint8_t how, const uint8_t *data, size_t size)
{
    memcpy(page, good, sizeof(page));
    if ((how & SEALED) == 0) {
        if ((how & EMPTY) != 0)
            memset(page, 0, sizeof(page));
        if (size > 0)
            memcpy(page, data, LJ_MIN(size, sizeof(page)));
        return;
    }
    /* the second of two stores is in the slot of even sequences */
    patch(page + SLOTS_AT, data, size);
    if ((how & BOTH) != 0)
        patch(page + SLOTS_AT + SLOT_BYTES, data, size);
    if ((how & WORDS) != 0)
        memset(page + WORDS_AT, 0xff, SLOTS_AT - WORDS_AT);
}

/* ------------------------------------------------------------------ who reads it */

static void no_wake(lj_db *db, int64_t due_ns)
{
    (void)db;
    (void)due_ns;
}

static bool look(void *ctx)
{
    (void)ctx;
    return true;
}

static lj_db *open_db(bool wait)
{
    lj_error err = LJ_ERROR_INIT;
    lj_db *db = NULL;
    lj_db_options options = {.sync_interval_ns = LJ_NS_PER_S,
                             .shutdown_timeout_ns = LJ_NS_PER_S,
                             .io_timeout_ns = LJ_NS_PER_S,
                             .max_wal_size_bytes = 64 * 1024,
                             .max_spool_size_bytes = 1024 * 1024};
    FUZZ_CHECK(lj_db_new(db_path, URL, &options, no_wake, &db, &err) == LJ_OK);
    db->has_opened_identity = lj_identity_of(db_path, &db->opened_identity);
    db->ready_failures = wait ? 0 : 1;
    lj_db_ready(db, NULL, NULL);
    return db;
}

static void check_session(const lj_session *s)
{
    FUZZ_CHECK(memchr(s->url, 0, sizeof(s->url)) != NULL);
    FUZZ_CHECK(memchr(s->ship_error.message, 0, sizeof(s->ship_error.message)) != NULL);
    FUZZ_CHECK(s->chain.generation[0] == 0 ? !s->chain.active
                                           : lj_generation_ok(s->chain.generation));
    FUZZ_CHECK(s->chain.index <= LJ_INDEX_MAX && s->pos.index <= LJ_INDEX_MAX);
}

/* What a page is alone: read, or refused, and either way it can be written and says that then. */
static void read_and_store(void)
{
    lj_error err = LJ_ERROR_INIT;
    lj_session s;
    lj_session again;
    lj_shared *shared = NULL;
    FUZZ_CHECK(lj_shared_open(page_path, &shared, &err) == LJ_OK);
    bool loaded = lj_shared_load(shared, &s);
    if (loaded) {
        check_session(&s);
        FUZZ_CHECK(!lj_shared_foreign(shared));
    } else {
        memset(&s, 0, sizeof(s));
    }
    s.life = 77;
    lj_shared_store(shared, &s);
    FUZZ_CHECK(lj_shared_load(shared, &again) && again.life == 77);
    FUZZ_CHECK(!lj_shared_foreign(shared));
    lj_shared_close(shared);
}

static void ask(lj_db *db)
{
    lj_error err = LJ_ERROR_INIT;
    lj_db_status status;
    char text[LJ_ERROR_TEXT_MAX];
    lj_db_get_status(db, &status);
    pthread_mutex_lock(&db->mutex);
    lj_error_format(lj_db_current_error_locked(db), text, sizeof(text));
    pthread_mutex_unlock(&db->mutex);
    (void)!lj_db_wait(db, 0, false, &err);
    (void)!lj_db_wait_snapshot(db, 0, &err);
    (void)!lj_db_wait_position(db, &(lj_position){.generation = GENERATION, .index = 3}, 0, &err);
    (void)lj_db_degraded(db);
}

/* A transaction that waits for the replica, in this process or as the page says in another one. */
static void pend(lj_db *db)
{
    lj_error err = LJ_ERROR_INIT;
    uint64_t number = 0;
    pthread_mutex_lock(&db->mutex);
    lj_db_refresh_locked(db);
    lj_chain chain = db->chain;
    lj_life life = db->life;
    (void)!lj_db_pending_view_locked(db, &chain, &life, &number, &err);
    pthread_mutex_unlock(&db->mutex);
    if (number != 0 && lj_db_pending_begin(db, number))
        (void)lj_db_pending_end(db, number, false, true);
    (void)lj_db_pending_take_revoked(db);
    lj_db_pending_next_writer(db, look, NULL);
    lj_wal_end end = {.salt = SALT, .frames = 9, .page_size = PAGE_SIZE, .db_pages = 3};
    number = lj_db_pending_offer(db, &end);
    (void)!lj_db_pending_wait(db, number, 0, false, &err);
}

static void live(lj_db *db)
{
    lj_error why = LJ_ERROR_INIT;
    ask(db);
    lj_db_publish(db, SALT, 3, PAGE_SIZE, 3);
    (void)lj_db_gate(db, false);
    lj_db_look_around(db);
    pend(db);
    lj_position next = {.generation = GENERATION, .index = 3, .offset = 4096};
    lj_db_shipped(db, &next, 5, 3);
    lj_error_set(&why, LJ_UNAVAILABLE, "the store is away");
    lj_db_attempt(db, &why);
    lj_db_snapshot_attempt(db, NULL);
    lj_db_caught_up(db);
    (void)lj_db_gate(db, true);
    lj_db_seal(db, false);
    lj_db_wal_emptied(db);
    lj_db_publish(db, (lj_wal_salt){2, 3}, 1, PAGE_SIZE, 3);
    ask(db);
}

/* It takes part, and what it does is in the page. */
static void check_page_of(lj_db *db)
{
    lj_session s;
    lj_db_enter(db);
    lj_db_leave(db);
    FUZZ_CHECK(lj_shared_load(db->shared, &s));
    check_session(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    prepare();
    make_page(data[0], data + 1, size - 1);
    write_file(page_path, page, sizeof(page));
    read_and_store();

    write_file(page_path, (data[0] & LATE) != 0 ? good : page, sizeof(page));
    lj_db *first = open_db(true);
    FUZZ_CHECK(first->attached && first->state != LJ_DB_STOPPED && first->state != LJ_DB_STANDBY);
    check_page_of(first);
    lj_db *second = open_db(true);
    FUZZ_CHECK(second->state == LJ_DB_STANDBY && second->attached);

    write_file(page_path, page, sizeof(page)); /* the uploader wrote that, or a third one */
    lj_db *third = open_db(false);
    FUZZ_CHECK(third->state == LJ_DB_STANDBY || third->state == LJ_DB_STOPPED);
    live(second);
    check_page_of(second);
    write_file(page_path, page, sizeof(page));
    live(first);
    check_page_of(first);
    lj_db_quiet(third);
    lj_db_free(third);

    write_file(page_path, page, sizeof(page));
    lj_db_quiet(first);
    lj_db_free(first);
    (void)lj_db_standby(second);
    live(second);
    check_page_of(second);
    lj_db_quiet(second);
    lj_db_free(second);
    return 0;
}
