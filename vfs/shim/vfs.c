/*
 * vfs.c - the sqlite3_vfs "litejoin": opens, deletes, and passes everything else to the base VFS.
 *
 * Wrapped are main databases (so that PRAGMA litejoin_status answers on each) and the WALs of replicated ones. Every other
 * file is opened by the base VFS directly in the memory SQLite gave us and costs nothing.
 *
 * The base VFS is fixed at the first registration: the default VFS of that moment, or the one base_vfs names. It is never
 * looked up again (a later default may be a shim on top of us).
 *
 * Layer: shim. Thread-safety: the defaults are replaced under a mutex; each open copies them.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "vfs/base/log.h"
#include "vfs/base/str.h"
#include "vfs/shim/bugs.h"
#include "vfs/shim/handle.h"

static struct {
    pthread_mutex_t mutex; /* guards defaults and the registration */
    bool registered;
    bool was_default; /* registered as the default VFS once */
    lj_config defaults;
    sqlite3_vfs *base;
} setup = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static sqlite3_vfs litejoin_vfs;

static sqlite3_vfs *base_of(sqlite3_vfs *vfs)
{
    return vfs->pAppData;
}

/* A child of a fork opens databases too: no thread of the parent may be in the middle of the defaults. */
void lj_vfs_before_fork(void)
{
    pthread_mutex_lock(&setup.mutex);
}

void lj_vfs_after_fork(bool child)
{
    if (child)
        pthread_mutex_init(&setup.mutex, NULL);
    else
        pthread_mutex_unlock(&setup.mutex);
}

/* ------------------------------------------------------------------ configuration of one open */

static const char *uri_lookup(void *ctx, const char *key)
{
    return sqlite3_uri_parameter(ctx, key);
}

static const char *uri_key(void *ctx, int i)
{
    return sqlite3_uri_key(ctx, i);
}

static lj_code config_for(const char *name, lj_config *ret_config, lj_error *err)
{
    lj_config config;
    pthread_mutex_lock(&setup.mutex);
    lj_code code = lj_config_copy(&setup.defaults, &config, err);
    pthread_mutex_unlock(&setup.mutex);
    if (code != LJ_OK)
        return code;
    code = lj_config_load_uri(&config, uri_lookup, uri_key, (void *)(uintptr_t)name, err);
    if (code == LJ_OK)
        code = lj_config_finish(&config, err);
    if (code != LJ_OK) {
        lj_config_clear(&config);
        return code;
    }
    *ret_config = config;
    return LJ_OK;
}

/* Read-only, unlocked or in-memory databases are nobody's live data. */
static bool may_replicate(const char *name, int flags)
{
    const char *mode = sqlite3_uri_parameter(name, "mode");
    return (flags & SQLITE_OPEN_READWRITE) != 0 && (flags & SQLITE_OPEN_MEMORY) == 0 &&
           !sqlite3_uri_boolean(name, "immutable", 0) && !sqlite3_uri_boolean(name, "nolock", 0) &&
           (mode == NULL || (strcmp(mode, "ro") != 0 && strcmp(mode, "memory") != 0)) &&
           strcmp(name, ":memory:") != 0;
}

/* ------------------------------------------------------------------ xOpen */

static void wrap(lj_file *file, bool is_wal)
{
    *file = (lj_file){.magic = LJ_FILE_MAGIC, .is_wal = is_wal};
    file->lower = (sqlite3_file *)&file[1];
    file->lower->pMethods = NULL;
}

static int open_lower(sqlite3_vfs *vfs, const char *name, lj_file *file, int flags, int *ret_flags)
{
    sqlite3_vfs *base = base_of(vfs);
    int rc = base->xOpen(base, name, file->lower, flags, ret_flags);
    if (file->lower->pMethods != NULL)
        file->base.pMethods = lj_file_methods(file->lower->pMethods);
    return rc;
}

static void note_opened(lj_file *file, bool first)
{
    int mode = lj_journal_mode_of(file->lower);
    if (lj_autowal_at_open(file, mode))
        mode = LJ_JOURNAL_WAL;
    if (mode == LJ_JOURNAL_ROLLBACK) {
        lj_db_journal_mode(file->open->db, "delete");
        /* another connection may have entered WAL mode since the look, and said so before us */
        if (lj_journal_mode_of(file->lower) == LJ_JOURNAL_WAL)
            lj_db_journal_mode(file->open->db, NULL);
    }
    if (first)
        lj_event_first_open(file->open, mode == LJ_JOURNAL_WAL);
}

static lj_code open_replicated(sqlite3_vfs *vfs, const char *name, lj_file *file, int flags,
                               int *ret_flags, const lj_config *config, int *ret_rc, lj_error *err)
{
    lj_registry_path_opens(name);
    LJ_CLEANUP(lj_claim_freep) lj_claim *claim = NULL;
    LJ_TRY(lj_claim_new(name, config, &claim, err));
    if (config->restore_on_boot)
        LJ_TRY(lj_boot_restore(name, config, claim, err));
    lj_identity identity;
    bool there = lj_identity_of(name, &identity);
    int opened = 0;
    *ret_rc = open_lower(vfs, name, file, flags, &opened);
    if (*ret_rc != SQLITE_OK)
        return LJ_OK;
    if (ret_flags != NULL)
        *ret_flags = opened;
    if ((opened & SQLITE_OPEN_READONLY) != 0)
        return LJ_OK; /* the file system said so: SQLite cannot write either */
    bool first = false;
    LJ_TRY(lj_registry_acquire(base_of(vfs), name, config, there ? &identity : NULL, &claim,
                               &file->open, &first, err));
    file->wal_name = sqlite3_filename_wal(name);
    file->auto_wal = config->auto_wal;
    file->psow0 = !sqlite3_uri_boolean(name, "psow", 1);
    lj_durable_open(file, config);
    lj_registry_add_file(file);
    note_opened(file, first);
    return LJ_OK;
}

static int fail_open(lj_file *file, const char *name, const lj_error *err)
{
    lj_last_error_set(err);
    lj_log_error(LJ_LOG_ERROR, name, err);
    if (file->lower->pMethods != NULL)
        file->lower->pMethods->xClose(file->lower);
    file->base.pMethods = NULL;
    return err->code == LJ_NOMEM ? SQLITE_NOMEM : SQLITE_CANTOPEN;
}

static int open_main(sqlite3_vfs *vfs, const char *name, lj_file *file, int flags, int *ret_flags)
{
    lj_error err = LJ_ERROR_INIT;
    lj_config config;
    int rc = SQLITE_OK;
    wrap(file, false);
    lj_last_error_clear();
    lj_code code = config_for(name, &config, &err);
    if (code != LJ_OK)
        return fail_open(file, name, &err);
    if (lj_config_embedded(&config) && may_replicate(name, flags))
        code = open_replicated(vfs, name, file, flags, ret_flags, &config, &rc, &err);
    else
        rc = open_lower(vfs, name, file, flags, ret_flags);
    lj_config_clear(&config);
    return code != LJ_OK ? fail_open(file, name, &err) : rc;
}

static int open_wal(sqlite3_vfs *vfs, const char *name, lj_file *file, lj_file *owner, int flags,
                    int *ret_flags)
{
    wrap(file, true);
    int rc = open_lower(vfs, name, file, flags, ret_flags);
    if (rc != SQLITE_OK)
        return rc;
    file->open = owner->open;
    file->partner = owner;
    owner->partner = file;
    lj_event_wal_opened(file);
    return SQLITE_OK;
}

static int vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags, int *ret_flags)
{
    sqlite3_vfs *base = base_of(vfs);
    if (name != NULL && (flags & SQLITE_OPEN_MAIN_DB) != 0)
        return open_main(vfs, name, (lj_file *)f, flags, ret_flags);
    if (name != NULL && (flags & SQLITE_OPEN_WAL) != 0) {
        lj_file *owner = lj_registry_file_of_wal(name);
        if (owner != NULL && lj_open_alive(owner->open))
            return open_wal(vfs, name, (lj_file *)f, owner, flags, ret_flags);
    }
    return base->xOpen(base, name, f, flags, ret_flags);
}

/* ------------------------------------------------------------------ xDelete */

static int vfs_delete(sqlite3_vfs *vfs, const char *name, int sync_dir)
{
    sqlite3_vfs *base = base_of(vfs);
    lj_open *open = lj_str_ends(name, "-wal") ? lj_registry_take_wal(name) : NULL;
    if (open == NULL)
        return base->xDelete(base, name, sync_dir);
    lj_event_wal_emptying(open, true);
    int rc = base->xDelete(base, name, sync_dir);
    if (rc == SQLITE_OK)
        lj_db_wal_emptied(open->db);
    else
        lj_db_wal_stays(open->db);
    lj_registry_release(open); /* the last only if a program deletes the file by itself */
    return rc;
}

/* ------------------------------------------------------------------ everything else passes */

static int vfs_access(sqlite3_vfs *vfs, const char *name, int flags, int *ret_out)
{
    return base_of(vfs)->xAccess(base_of(vfs), name, flags, ret_out);
}

static int vfs_full_pathname(sqlite3_vfs *vfs, const char *name, int size, char *out)
{
    return base_of(vfs)->xFullPathname(base_of(vfs), name, size, out);
}

static void *vfs_dl_open(sqlite3_vfs *vfs, const char *name)
{
    return base_of(vfs)->xDlOpen(base_of(vfs), name);
}

static void vfs_dl_error(sqlite3_vfs *vfs, int size, char *out)
{
    base_of(vfs)->xDlError(base_of(vfs), size, out);
}

static void (*vfs_dl_sym(sqlite3_vfs *vfs, void *handle, const char *symbol))(void)
{
    return base_of(vfs)->xDlSym(base_of(vfs), handle, symbol);
}

static void vfs_dl_close(sqlite3_vfs *vfs, void *handle)
{
    base_of(vfs)->xDlClose(base_of(vfs), handle);
}

static int vfs_randomness(sqlite3_vfs *vfs, int size, char *out)
{
    return base_of(vfs)->xRandomness(base_of(vfs), size, out);
}

static int vfs_sleep(sqlite3_vfs *vfs, int microseconds)
{
    return base_of(vfs)->xSleep(base_of(vfs), microseconds);
}

static int vfs_current_time(sqlite3_vfs *vfs, double *ret_time)
{
    return base_of(vfs)->xCurrentTime(base_of(vfs), ret_time);
}

static int vfs_get_last_error(sqlite3_vfs *vfs, int size, char *out)
{
    const char *text = lj_last_error_text();
    if (text[0] == 0 || size <= 0)
        return base_of(vfs)->xGetLastError(base_of(vfs), size, out);
    size_t n = LJ_MIN(strlen(text), (size_t)size - 1);
    memcpy(out, text, n);
    out[n] = 0;
    return 0;
}

static int vfs_current_time_int64(sqlite3_vfs *vfs, sqlite3_int64 *ret_time)
{
    return base_of(vfs)->xCurrentTimeInt64(base_of(vfs), ret_time);
}

static int vfs_set_system_call(sqlite3_vfs *vfs, const char *name, sqlite3_syscall_ptr fn)
{
    return base_of(vfs)->xSetSystemCall(base_of(vfs), name, fn);
}

static sqlite3_syscall_ptr vfs_get_system_call(sqlite3_vfs *vfs, const char *name)
{
    return base_of(vfs)->xGetSystemCall(base_of(vfs), name);
}

static const char *vfs_next_system_call(sqlite3_vfs *vfs, const char *name)
{
    return base_of(vfs)->xNextSystemCall(base_of(vfs), name);
}

static sqlite3_vfs litejoin_vfs = {
    .zName = "litejoin",
    .xOpen = vfs_open,
    .xDelete = vfs_delete,
    .xAccess = vfs_access,
    .xFullPathname = vfs_full_pathname,
    .xDlOpen = vfs_dl_open,
    .xDlError = vfs_dl_error,
    .xDlSym = vfs_dl_sym,
    .xDlClose = vfs_dl_close,
    .xRandomness = vfs_randomness,
    .xSleep = vfs_sleep,
    .xCurrentTime = vfs_current_time,
    .xGetLastError = vfs_get_last_error,
    .xCurrentTimeInt64 = vfs_current_time_int64,
    .xSetSystemCall = vfs_set_system_call,
    .xGetSystemCall = vfs_get_system_call,
    .xNextSystemCall = vfs_next_system_call,
};

/* ------------------------------------------------------------------ registration */

/*
 * Threads of ours use the base VFS, whose locks are SQLite's mutexes. Behind sqlite3_config(SQLITE_CONFIG_SINGLETHREAD) these do
 * nothing, and what is allocated is no address.
 */
static bool mutexes_work(void)
{
    sqlite3_mutex *mutex = sqlite3_mutex_alloc(SQLITE_MUTEX_FAST);
    bool work = mutex == NULL || (uintptr_t)mutex >= 4096;
    sqlite3_mutex_free(mutex);
    return work;
}

static lj_code first_registration(const lj_config *config, lj_error *err)
{
    sqlite3_vfs *base = sqlite3_vfs_find(config->base_vfs);
    if (base == NULL) {
        lj_error_set(err, LJ_INVALID, "base_vfs: there is no VFS named '%s'",
                     config->base_vfs != NULL ? config->base_vfs : "(default)");
        return lj_error_hint(err, "name one that is registered, e.g. unix");
    }
    if (sqlite3_threadsafe() == 0 || !mutexes_work()) {
        lj_error_set(
            err, LJ_UNSUPPORTED,
            "this SQLite is not for threads (SQLITE_THREADSAFE=0 or SQLITE_CONFIG_SINGLETHREAD)");
        return lj_error_hint(err, "replicate from a second process with mode sidecar instead");
    }
    setup.base = base;
    litejoin_vfs.iVersion = LJ_MIN(base->iVersion, 3);
    litejoin_vfs.szOsFile = (int)((sizeof(lj_file) + 7) & ~(size_t)7) + base->szOsFile;
    litejoin_vfs.mxPathname = base->mxPathname;
    litejoin_vfs.pAppData = base;
    lj_registry_init();
    return LJ_OK;
}

/*
 * Registering again moves us in SQLite's list: off the first place, or in front of a shim that was put on top of us. So what
 * is there stays where it is, unless the call itself asks for the first place. (sqlite3_shutdown gives that to the base VFS.)
 */
static bool needs_registering(const lj_config *config, bool asked, bool was_default)
{
    if (sqlite3_vfs_find(litejoin_vfs.zName) != &litejoin_vfs)
        return true;
    return config->default_vfs &&
           (asked || !was_default || sqlite3_vfs_find(NULL) == base_of(&litejoin_vfs));
}

lj_code lj_vfs_setup(const lj_config *config, bool asks_for_default, lj_error *err)
{
    lj_config copy;
    LJ_TRY(lj_config_copy(config, &copy, err));
    pthread_mutex_lock(&setup.mutex);
    bool was_default = false;
    lj_code code = setup.registered ? LJ_OK : first_registration(config, err);
    if (code == LJ_OK) {
        if (setup.registered)
            lj_config_clear(&setup.defaults);
        setup.registered = true;
        setup.defaults = copy;
        was_default = setup.was_default;
        setup.was_default = was_default || config->default_vfs;
    } else {
        lj_config_clear(&copy);
    }
    pthread_mutex_unlock(&setup.mutex);
    if (code != LJ_OK)
        return code;
    if (needs_registering(config, asks_for_default, was_default) &&
        sqlite3_vfs_register(&litejoin_vfs, config->default_vfs) != SQLITE_OK)
        return lj_error_set(err, LJ_INTERNAL, "sqlite3_vfs_register failed");
    lj_bugs_warn_once(sqlite3_libversion_number(), sqlite3_libversion());
    return LJ_OK;
}
