/*
 * boot.c - opening a database that is gone restores it first.
 *
 * Done when the file is missing or empty. No data in the replica: SQLite goes on and creates the file. Replica not readable: the
 * open fails; an empty database is never quietly created over a backup that could not be seen. The replica of another database
 * that is open (claim.h): the open fails too. Two processes at once: one restores, the other waits on the lock and then finds the
 * file.
 *
 * What the lost database had not shipped, and its folder still has, goes to the replica first (ship/salvage.h), so that the restore takes
 * it. While that fails the open does, too.
 *
 * The position file is written so that the restored database continues the generation it came from: the next life of the
 * WAL is the next index.
 *
 * Layer: shim.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vfs/base/clock.h"
#include "vfs/base/io.h"
#include "vfs/base/log.h"
#include "vfs/base/str.h"
#include "vfs/capture/spool.h"
#include "vfs/restore/restore.h"
#include "vfs/ship/salvage.h"
#include "vfs/shim/handle.h"

/* What cannot be seen is not taken for a database: SQLite might still be able to create one in its place. */
static lj_code missing_or_empty(const char *path, bool *ret_answer, lj_error *err)
{
    struct stat st;
    if (stat(path, &st) == 0)
        *ret_answer = S_ISREG(st.st_mode) && st.st_size == 0;
    else if (errno == ENOENT || errno == ENOTDIR)
        *ret_answer = true;
    else
        return lj_error_errno(err, errno, "cannot stat %s", path);
    return LJ_OK;
}

/*
 * An empty file with a hot journal: somebody is just writing the first pages, or was killed at it. Without the file a journal is
 * what a lost database left, and one without a header (journal_mode=PERSIST) says nothing: SQLite would begin with an empty
 * database all the same.
 */
static bool being_made(const char *path)
{
    LJ_CLEANUP(lj_freep) char *journal = lj_str_printf("%s-journal", path);
    LJ_CLEANUP(lj_closep) int fd = -1;
    struct stat st;
    char first = 0;
    size_t n = 0;
    if (journal == NULL || stat(path, &st) != 0 || stat(journal, &st) != 0 || st.st_size == 0)
        return false;
    return lj_io_open(journal, O_RDONLY, 0, &fd, NULL) != LJ_OK ||
           lj_io_pread(fd, &first, 1, 0, &n, NULL) != LJ_OK || first != 0;
}

/*
 * What this folder's databases owned stays owned. The generation that is continued is not among it unless it was before: its
 * writer may still be alive, and only our first object in it shows that it is not (ship/upload.c).
 */
static void keep_lineage(const char *position_path, lj_saved_position *saved)
{
    lj_saved_position before;
    lj_error ignored = LJ_ERROR_INIT;
    if (lj_saved_position_load(position_path, &before, &ignored) != LJ_OK)
        return;
    memcpy(saved->lineage, before.lineage, sizeof(saved->lineage));
    saved->lineage_count = before.lineage_count;
    saved->home = before.home;
    if (strcmp(before.at.generation, saved->at.generation) != 0)
        lj_saved_position_leave(saved, &before);
}

/*
 * Whoever finds the file under its name does not wait for the restore lock: another process may have opened, written and closed it
 * before we look at it. Its ctime says nothing, the change of names has moved it.
 */
static bool is_as_restored(const lj_restore_result *result, const lj_identity *now)
{
    return now->inode == result->inode && now->size_bytes == result->db_bytes &&
           now->mtime_ns == result->mtime_ns;
}

/*
 * What the lost database had not shipped, and what did not get to the replica before it was restored either. Behind the restored
 * state it would be another history. Who has written the restored file meanwhile may have spooled something of his own.
 */
static void drop_left(const char *path, const char *state_dir, const lj_restore_result *result,
                      const lj_left *left)
{
    LJ_CLEANUP(lj_freep) char *dir = lj_str_printf("%s/spool", state_dir);
    lj_identity now;
    if (dir != NULL && lj_identity_of(path, &now) && is_as_restored(result, &now))
        lj_spool_drop(dir, NULL);
    if (left->reason[0] != 0)
        lj_log(LJ_LOG_WARN,
               "%s: what the lost database had not shipped yet, at most %" PRIu64
               " bytes, is lost, the restored one goes on without it: %s",
               path, left->out_bytes, left->reason);
}

static lj_code continue_generation(const char *path, const char *position_path,
                                   const lj_restore_result *result, lj_error *err)
{
    lj_saved_position saved = {.at = result->position, .page_size = result->page_size};
    saved.has_identity = lj_identity_of(path, &saved.identity);
    if (!saved.has_identity || !is_as_restored(result, &saved.identity))
        return lj_error_set(err, LJ_CONFLICT,
                            "somebody else has written the database since it was restored");
    saved.at.offset = 0;
    if (result->has_wal) {
        saved.prev_end = result->position.offset;
        saved.at.index++;
        saved.mark_end = result->position.offset;
    }
    keep_lineage(position_path, &saved);
    saved.last_object_ns = result->time_ns;
    saved.snapshot_ns = lj_clock_wall_ns();
    saved.snapshot_at = result->position;
    saved.snapshot_at.index = result->snapshot_index;
    return lj_saved_position_store(position_path, &saved, true, err);
}

/* A restore that waits for its lock, or has it. */
typedef struct {
    lj_storage *storage;
    const char *path;
    char *state_dir;
    char *position_path;
    lj_db_options options;
    lj_restore_options restore;
    lj_restore_plan *plan; /* from before the lock */
    bool has_before;
    lj_identity before; /* of the position file then */
} boot;

static lj_code run_restore(const boot *b, const lj_restore_plan *plan, const lj_left *left,
                           lj_error *err)
{
    lj_restore_result result;
    int64_t start_ns = lj_clock_mono_ns();
    LJ_TRY(lj_restore_run(b->storage, plan, b->path, &b->restore, &result, err));
    char at[LJ_POSITION_TEXT_MAX];
    lj_position_format(&result.position, at);
    lj_log(LJ_LOG_INFO, "%s: restored from %s at %s, %" PRIu64 " bytes in %lld ms", b->path,
           lj_storage_url(b->storage), at, result.db_bytes,
           (long long)((lj_clock_mono_ns() - start_ns) / LJ_NS_PER_MS));
    drop_left(b->path, b->state_dir, &result, left);
    lj_error ignored = LJ_ERROR_INIT;
    if (result.at_end && continue_generation(b->path, b->position_path, &result, &ignored) != LJ_OK)
        lj_log_error(LJ_LOG_WARN, b->path, &ignored); /* a new generation follows */
    return LJ_OK;
}

/* Somebody may have shipped what is left, and have died before the restore: then the plan does not have it. */
static bool position_moved(const boot *b)
{
    lj_identity now;
    bool there = lj_identity_of(b->position_path, &now);
    return there != b->has_before || (there && !lj_identity_eq(&now, &b->before));
}

static lj_code restore_locked(const boot *b, lj_error *err)
{
    lj_salvage_result salvaged;
    lj_restore_result planned;
    lj_restore_plan_describe(b->plan, &planned);
    LJ_TRY(
        lj_salvage(b->storage, b->path, &b->options, planned.position.generation, &salvaged, err));
    lj_restore_plan *newer = NULL;
    if (salvaged.tried || position_moved(b))
        LJ_TRY(lj_restore_plan_make(b->storage, &b->restore, &newer, err));
    lj_code code = run_restore(b, newer != NULL ? newer : b->plan, &salvaged.left, err);
    lj_restore_plan_free(newer);
    return code;
}

/* The locks of restores that are under way; -1 = none. More than these at once are not known to a child. */
static atomic_int locks[] = {-1, -1, -1, -1, -1, -1, -1, -1};

static void note_lock(int from, int to)
{
    for (size_t i = 0; i < LJ_ARRAY_LEN(locks); i++) {
        int expected = from;
        if (atomic_compare_exchange_strong(&locks[i], &expected, to))
            return;
    }
}

/* Else a restore whose process is killed would stay locked for as long as a child of it lives. */
void lj_boot_in_child(void)
{
    for (size_t i = 0; i < LJ_ARRAY_LEN(locks); i++) {
        int fd = atomic_exchange(&locks[i], -1);
        if (fd >= 0)
            close(fd);
    }
}

/* Unlocked, not only closed: a child that was forked meanwhile has the descriptor too, and would keep the lock. */
static void unlock(int *fd)
{
    if (*fd >= 0) {
        (void)flock(*fd, LOCK_UN);
        note_lock(*fd, -1);
    }
    lj_closep(fd);
}

static lj_code restore_under_lock(const boot *b, lj_error *err)
{
    LJ_CLEANUP(lj_freep) char *lock = lj_restore_lock_path(b->path);
    if (lock == NULL)
        return lj_error_nomem(err);
    LJ_TRY(lj_io_mkdirs(b->state_dir, 0700, err));
    LJ_CLEANUP(unlock) int fd = -1;
    LJ_TRY(lj_io_open(lock, O_RDWR | O_CREAT, 0600, &fd, err));
    note_lock(-1, fd);
    while (flock(fd, LOCK_EX) != 0) {
        if (errno != EINTR)
            return lj_error_errno(err, errno, "cannot lock %s", lock);
    }
    bool wanted = false;
    LJ_TRY(missing_or_empty(b->path, &wanted, err));
    if (!wanted)
        return LJ_OK; /* another process was faster */
    return restore_locked(b, err);
}

static lj_code restore_from(boot *b, lj_error *err)
{
    b->state_dir = lj_str_state_dir(b->path);
    b->position_path = b->state_dir == NULL ? NULL : lj_str_printf("%s/position", b->state_dir);
    if (b->position_path == NULL)
        return lj_error_nomem(err);
    b->has_before = lj_identity_of(b->position_path, &b->before);
    lj_code code = lj_restore_plan_make(b->storage, &b->restore, &b->plan, err);
    if (code == LJ_NOTFOUND)
        return LJ_OK; /* nothing was ever replicated there */
    return code == LJ_OK ? restore_under_lock(b, err) : code;
}

lj_code lj_boot_restore(const char *path, const lj_config *config, const lj_claim *claim,
                        lj_error *err)
{
    bool wanted = false;
    if (missing_or_empty(path, &wanted, err) != LJ_OK)
        return lj_error_context(err, "restoring before open");
    if (!wanted || being_made(path))
        return LJ_OK;
    boot b = {.path = path,
              .options = lj_registry_options(config),
              .restore = {.remove_stale_wal = true, .overwrite_empty = true, .locked = true}};
    lj_storage_options storage_options = {.io_timeout_ns = config->io_timeout_ns};
    if (lj_storage_open(claim->url, &storage_options, &b.storage, err) != LJ_OK)
        return lj_error_context(err, "replica_url");
    if (claim->rival != NULL) {
        lj_claim_not_restored(claim, lj_storage_url(b.storage), err);
        lj_storage_close(b.storage);
        return LJ_CONFLICT;
    }
    lj_code code = restore_from(&b, err);
    if (code != LJ_OK)
        lj_error_context(err, "restoring before open");
    lj_restore_plan_free(b.plan);
    lj_storage_close(b.storage);
    free(b.state_dir);
    free(b.position_path);
    return code;
}
