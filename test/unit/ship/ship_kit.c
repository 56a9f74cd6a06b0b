/* ship_kit.c - see ship_kit.h. */
#include "test/unit/ship/ship_kit.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include "vfs/base/buf.h"
#include "vfs/base/io.h"
#include "vfs/base/str.h"
#include "vfs/codec/lz4.h"

/* ------------------------------------------------------------------ the store */

static bool is_to_fail(ship_kit *kit, const char *line)
{
    pthread_mutex_lock(&kit->mutex);
    bool fails = kit->fail_on[0] != 0 && strstr(line, kit->fail_on) != NULL;
    pthread_mutex_unlock(&kit->mutex);
    return fails;
}

static lj_code enter(ship_kit *kit, const char *op, const char *key, lj_error *err)
{
    char line[200];
    snprintf(line, sizeof(line), "%s %s", op, key);
    pthread_mutex_lock(&kit->mutex);
    size_t len = strlen(kit->log);
    snprintf(kit->log + len, sizeof(kit->log) - len, "%s\n", line);
    void (*before)(ship_kit *, const char *) = kit->before;
    pthread_mutex_unlock(&kit->mutex);
    bool fails = is_to_fail(kit, line);
    if (before != NULL)
        before(kit, line);
    if (!fails)
        return LJ_OK;
    lj_code code = kit->fail_code != LJ_OK ? kit->fail_code : LJ_UNAVAILABLE;
    lj_error_set(err, code, "the store is away");
    (void)lj_error_retryable(err, true);
    return code;
}

static lj_code store_put(void *self, const char *key, lj_source *source,
                         const lj_storage_put_options *options, lj_error *err)
{
    ship_kit *kit = self;
    lj_code code = enter(kit, "PUT", key, err);
    if (code != LJ_OK && !kit->put_then_fail)
        return code;
    lj_error ignored = LJ_ERROR_INIT;
    lj_code put = lj_storage_put(kit->files, key, source, options, code == LJ_OK ? err : &ignored);
    return code != LJ_OK ? code : put;
}

static lj_code store_get(void *self, const char *key, uint64_t offset, int64_t length,
                         lj_sink *sink, lj_error *err)
{
    ship_kit *kit = self;
    LJ_TRY(enter(kit, "GET", key, err));
    return lj_storage_get(kit->files, key, offset, length, sink, err);
}

static lj_code store_head(void *self, const char *key, lj_storage_entry *ret_entry, lj_error *err)
{
    return lj_storage_head(((ship_kit *)self)->files, key, ret_entry, err);
}

static lj_code store_list(void *self, const char *prefix, const char *after, lj_storage_list_fn fn,
                          void *ctx, lj_error *err)
{
    ship_kit *kit = self;
    if (is_to_fail(kit, "LIST"))
        return enter(kit, "LIST", prefix, err);
    return lj_storage_list(kit->files, prefix, after, fn, ctx, err);
}

static lj_code store_delete(void *self, const char *const *keys, size_t count,
                            lj_storage_delete_fn fn, void *ctx, lj_error *err)
{
    ship_kit *kit = self;
    (void)fn;
    (void)ctx;
    for (size_t i = 0; i < count; i++) {
        LJ_TRY(enter(kit, "DEL", keys[i], err));
        LJ_TRY(lj_storage_delete_many(kit->files, &keys[i], 1, NULL, NULL, err));
    }
    return LJ_OK;
}

static void store_close(void *self)
{
    (void)self;
}

static const lj_storage_ops store_ops = {
    .name = "recording",
    .features = LJ_STORAGE_IF_ABSENT | LJ_STORAGE_SET_TIME,
    .put = store_put,
    .get = store_get,
    .head = store_head,
    .list = store_list,
    .delete_many = store_delete,
    .close = store_close,
};

/* ------------------------------------------------------------------ the database file */

static lj_code db_freeze(void *ctx, lj_freeze *ret_freeze, lj_error *err)
{
    ship_kit *kit = ctx;
    if (kit->freeze_code != LJ_OK)
        return lj_error_set(err, kit->freeze_code, "cannot freeze");
    pthread_mutex_lock(&kit->db->mutex);
    *ret_freeze = kit->freeze;
    pthread_mutex_unlock(&kit->db->mutex);
    if (kit->during_freeze != NULL)
        kit->during_freeze(kit);
    return LJ_OK;
}

static void db_release(void *ctx)
{
    (void)ctx;
}

static lj_code db_read(void *ctx, uint64_t off, void *out, size_t len, lj_error *err)
{
    ship_kit *kit = ctx;
    LJ_CLEANUP(lj_closep) int fd = -1;
    size_t n = 0;
    memset(out, 0, len);
    LJ_TRY(lj_io_open(kit->dir.db_path, O_RDONLY, 0, &fd, err));
    return lj_io_pread(fd, out, len, off, &n, err);
}

static lj_code db_size(void *ctx, uint64_t *ret_bytes, lj_error *err)
{
    ship_kit *kit = ctx;
    lj_identity identity;
    if (!lj_identity_of(kit->dir.db_path, &identity))
        return lj_error_set(err, LJ_IO, "no database");
    *ret_bytes = identity.size_bytes;
    return LJ_OK;
}

static void db_close(void *ctx)
{
    (void)ctx;
}

/* ------------------------------------------------------------------ life cycle */

static void no_wake(lj_db *db, int64_t due_ns)
{
    (void)db;
    (void)due_ns;
}

static void begin(ship_kit *kit, const lj_db_options *options, lj_db_wake_fn wake)
{
    lj_error err = LJ_ERROR_INIT;
    memset(kit, 0, sizeof(*kit));
    pthread_mutex_init(&kit->mutex, NULL);
    pthread_mutex_init(&kit->guard.mutex, NULL);
    kit_dir_make(&kit->dir);
    kit_db_file(kit->dir.db_path, KIT_PAGE, 3, 0);
    kit_wal_begin(&kit->wal, kit->dir.wal_path, KIT_PAGE, 1);
    LJ_CLEANUP(lj_freep) char *url = lj_str_printf("file://%s/replica", kit->dir.dir);
    assert_ok(lj_storage_open(url, NULL, &kit->files, &err), &err);
    lj_storage *storage = NULL;
    assert_ok(lj_storage_wrap(&store_ops, kit, url, &storage, &err), &err);
    assert_ok(lj_db_new(kit->dir.db_path, url, options, wake, &kit->db, &err), &err);
    lj_dbfile dbfile = {.ctx = kit,
                        .freeze = db_freeze,
                        .release = db_release,
                        .read = db_read,
                        .size = db_size,
                        .close = db_close};
    assert_ok(lj_shipper_new(kit->db, storage, &kit->guard, &dbfile, &kit->s, &err), &err);
}

void ship_kit_begin(ship_kit *kit)
{
    lj_db_options options = kit_db_options();
    options.retention_ns = 3600 * LJ_NS_PER_S;
    begin(kit, &options, no_wake);
}

void ship_kit_freeze_at(ship_kit *kit, uint64_t frames)
{
    pthread_mutex_lock(&kit->db->mutex); /* the snapshot task may be at it */
    kit->freeze =
        (lj_freeze){.frames = frames, .page_size = KIT_PAGE, .db_pages = 3, .backfilled = true};
    if (frames > 0)
        kit->freeze.salt = kit->wal.header.salt;
    pthread_mutex_unlock(&kit->db->mutex);
}

void ship_kit_begin_live(ship_kit *kit, int64_t sync_interval_ns)
{
    lj_db_options options = kit_db_options();
    options.sync_interval_ns = sync_interval_ns;
    options.max_wal_size_bytes = UINT64_C(1) << 30;
    begin(kit, &options, lj_shipper_wake);
}

void ship_kit_end(ship_kit *kit)
{
    lj_shipper_free(kit->s);
    lj_db_free(kit->db);
    lj_storage_close(kit->files);
    pthread_mutex_destroy(&kit->guard.mutex);
    pthread_mutex_destroy(&kit->mutex);
    kit_dir_remove(&kit->dir);
}

void ship_kit_replicating(ship_kit *kit, uint32_t index)
{
    lj_db *db = kit->db;
    lj_saved_position *saved = &kit->s->saved;
    *saved = (lj_saved_position){.at = {.generation = KIT_GEN, .index = index}};
    lj_saved_position_own(saved, KIT_GEN);
    saved->page_size = KIT_PAGE;
    kit->s->loaded = true;
    pthread_mutex_lock(&db->mutex);
    db->chain = (lj_chain){.active = true, .generation = KIT_GEN, .index = index};
    db->attached = true;
    db->established = true;
    db->state = LJ_DB_REPLICATING;
    db->pos = saved->at;
    db->saved = *saved;
    pthread_mutex_unlock(&db->mutex);
}

void ship_kit_next_life(ship_kit *kit, uint32_t salt)
{
    lj_db_seal(kit->db, false);
    lj_db_wal_emptied(kit->db);
    kit_wal_begin(&kit->wal, kit->dir.wal_path, KIT_PAGE, salt);
    lj_db_wal_header(kit->db, kit->wal.header.salt);
    kit_wal_frame(&kit->wal, 1, 3, 60 + salt);
    kit_wal_publish(&kit->wal, kit->db, 3);
}

void ship_kit_begin_spooled(ship_kit *kit, unsigned lives)
{
    ship_kit_begin(kit);
    kit->db->options.sync_interval_ns = 0;
    ship_kit_replicating(kit, 4);
    kit->s->resumed = true;
    uint8_t pages[3 * KIT_PAGE];
    for (uint32_t i = 1; i <= 3; i++)
        kit_page(pages + (i - 1) * KIT_PAGE, KIT_PAGE, i, 0);
    ship_kit_put(kit, "generations/" KIT_GEN "/snapshots/00000004.snapshot.lz4", pages,
                 sizeof(pages), 1000);
    kit_wal_frame(&kit->wal, 3, 3, 1);
    kit_wal_publish(&kit->wal, kit->db, 3);
    (void)kit->s->ship_task.run(&kit->s->ship_task);
    ship_kit_fail_on(kit, "PUT");
    kit_wal_frame(&kit->wal, 2, 3, 50);
    kit_wal_publish(&kit->wal, kit->db, 3);
    for (unsigned i = 0; i < lives; i++)
        ship_kit_next_life(kit, 2 + i);
    ship_kit_fail_on(kit, "");
    kit->freeze_code = LJ_IO; /* no other generation begins */
}

unsigned ship_kit_spooled(const ship_kit *kit, const char *part, bool remove_them)
{
    unsigned found = 0;
    DIR *dir = opendir(kit->dir.spool_dir);
    assert_non_null(dir);
    for (struct dirent *d = readdir(dir); d != NULL; d = readdir(dir)) {
        if (d->d_name[0] == '.' || strstr(d->d_name, part) == NULL)
            continue;
        found++;
        if (remove_them)
            assert_int_equal(unlinkat(dirfd(dir), d->d_name, 0), 0);
    }
    closedir(dir);
    return found;
}

void ship_kit_restore(ship_kit *kit, lj_restore_result *ret_result)
{
    lj_error err = LJ_ERROR_INIT;
    lj_restore_options options = {.parallelism = 1};
    lj_restore_plan *plan = NULL;
    LJ_CLEANUP(lj_freep) char *out = lj_str_printf("%s/restored.db", kit->dir.dir);
    assert_ok(lj_restore_plan_make(kit->files, &options, &plan, &err), &err);
    assert_ok(lj_restore_run(kit->files, plan, out, &options, ret_result, &err), &err);
    lj_restore_plan_free(plan);
}

/* ------------------------------------------------------------------ objects */

void ship_kit_put(ship_kit *kit, const char *key, const void *data, size_t len, int64_t created_ns)
{
    lj_error err = LJ_ERROR_INIT;
    lj_memory_source memory;
    lj_source raw = lj_source_memory(&memory, data, len);
    lj_source packed;
    lj_lz4_encoder *encoder = NULL;
    assert_ok(lj_lz4_encoder_new(&raw, &encoder, &packed, &err), &err);
    lj_storage_put_options options = {.created_ns = created_ns};
    assert_ok(lj_storage_put(kit->files, key, &packed, &options, &err), &err);
    lj_lz4_encoder_free(encoder);
}

uint8_t *ship_kit_get(ship_kit *kit, const char *key, size_t *ret_len)
{
    lj_error err = LJ_ERROR_INIT;
    lj_buf buf = LJ_BUF_INIT(64u << 20);
    lj_sink plain = lj_sink_buf(&buf);
    lj_sink sink;
    lj_lz4_decoder *decoder = NULL;
    assert_ok(lj_lz4_decoder_new(&plain, &decoder, &sink, &err), &err);
    assert_ok(lj_storage_get(kit->files, key, 0, -1, &sink, &err), &err);
    assert_ok(lj_lz4_decoder_finish(decoder, &err), &err);
    lj_lz4_decoder_free(decoder);
    *ret_len = buf.len;
    return buf.data;
}

bool ship_kit_has(ship_kit *kit, const char *key)
{
    lj_error err = LJ_ERROR_INIT;
    lj_storage_entry entry;
    return lj_storage_head(kit->files, key, &entry, &err) == LJ_OK;
}

uint8_t *ship_kit_wal_bytes(const ship_kit *kit, uint64_t from, uint64_t to)
{
    lj_error err = LJ_ERROR_INIT;
    LJ_CLEANUP(lj_closep) int fd = -1;
    uint8_t *data = malloc(to - from);
    size_t n = 0;
    assert_ok(lj_io_open(kit->dir.wal_path, O_RDONLY, 0, &fd, &err), &err);
    assert_ok(lj_io_pread(fd, data, to - from, from, &n, &err), &err);
    assert_int_equal(n, to - from);
    return data;
}

void ship_kit_fail_on(ship_kit *kit, const char *part)
{
    pthread_mutex_lock(&kit->mutex);
    snprintf(kit->fail_on, sizeof(kit->fail_on), "%s", part);
    pthread_mutex_unlock(&kit->mutex);
}

const char *ship_kit_log(ship_kit *kit)
{
    static char copy[sizeof(kit->log)];
    pthread_mutex_lock(&kit->mutex);
    memcpy(copy, kit->log, sizeof(copy));
    kit->log[0] = 0;
    pthread_mutex_unlock(&kit->mutex);
    return copy;
}
