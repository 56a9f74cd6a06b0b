/*
 * autowal.c - auto_wal=on: a replicated database that is in rollback-journal mode is switched to WAL.
 *
 * The switch is SQLite's own PRAGMA journal_mode=WAL, run by a connection of ours (nested.h) in the thread of the application, at
 * two moments when that one holds no lock:
 *   - at the open, when the file has content. A hot journal is rolled back first, as by any other open
 *   - when a handle gives its lock back: so a database that was empty at the open is switched behind its first transaction, with
 *     the page size, auto_vacuum and encoding that one chose, and a busy one when it is idle
 * To the application it looks as if another program had run the pragma: SQLite reads the header again with its next
 * transaction, because the change counter moved. A file whose header is not SQLite's own (encrypted) is left alone, and so is
 * one whose application asks for a journal mode other than WAL itself, until it is opened again.
 *
 * Layer: shim. Runs in application threads.
 */
#include <string.h>

#include "vfs/base/clock.h"
#include "vfs/base/log.h"
#include "vfs/shim/nested.h"

#define AGAIN_NS LJ_NS_PER_S

static void give_up(lj_file *file, const char *why)
{
    file->auto_wal = false;
    lj_log(LJ_LOG_WARN, "%s: auto_wal: it stays as it is: %s", file->open->db->path, why);
}

/* The switch itself. A result of SQLite; SQLITE_OK also when SQLite answered that it stays in another mode (*ret_wal). */
static int switch_to_wal(const lj_file *file, bool *ret_wal)
{
    sqlite3 *db = NULL;
    char mode[16];
    *ret_wal = false;
    int rc = lj_nested_open(file->open, file->psow0, &db);
    if (rc != SQLITE_OK)
        return rc;
    rc = lj_nested_ask(db, "PRAGMA journal_mode=WAL", mode, sizeof(mode));
    *ret_wal = rc == SQLITE_OK && strcmp(mode, "wal") == 0;
    sqlite3_close(db);
    return rc;
}

/* true = it is a WAL database now. */
static bool try_switch(lj_file *file)
{
    lj_open *open = file->open;
    bool wal = false;
    int rc = switch_to_wal(file, &wal);
    if (wal) {
        file->auto_wal = false;
        lj_db_break(open->db, "its journal mode was switched to WAL");
        lj_db_journal_mode(open->db, NULL);
        lj_log(LJ_LOG_INFO, "%s: auto_wal: switched to WAL", open->db->path);
        return true;
    }
    int primary = rc & 0xff;
    if (primary == SQLITE_BUSY || primary == SQLITE_LOCKED)
        __atomic_store_n(&open->auto_wal_after_ns, lj_clock_mono_ns() + AGAIN_NS, __ATOMIC_RELAXED);
    else
        give_up(file, rc == SQLITE_OK ? "SQLite refuses WAL here" : sqlite3_errstr(rc));
    return false;
}

bool lj_autowal_at_open(lj_file *file, int journal_mode)
{
    if (!file->auto_wal || journal_mode != LJ_JOURNAL_ROLLBACK)
        return false;
    return try_switch(file);
}

void lj_autowal_unlocked(lj_file *file)
{
    lj_open *open = file->open;
    if (!lj_open_alive(open) || __atomic_load_n(&open->auto_wal_declined, __ATOMIC_RELAXED)) {
        file->auto_wal = false;
        return;
    }
    if (lj_clock_mono_ns() < __atomic_load_n(&open->auto_wal_after_ns, __ATOMIC_RELAXED))
        return;
    switch (lj_journal_mode_of(file->lower)) {
    case LJ_JOURNAL_ROLLBACK:
        if (try_switch(file))
            lj_event_first_open(open, true);
        break;
    case LJ_JOURNAL_NONE:
        break; /* still empty */
    default:
        file->auto_wal = false; /* WAL already, or nothing we could read */
        break;
    }
}

void lj_autowal_pragma(lj_file *file, char **args)
{
    if (sqlite3_stricmp(args[1], "journal_mode") == 0 && args[2] != NULL &&
        sqlite3_stricmp(args[2], "wal") != 0)
        __atomic_store_n(&file->open->auto_wal_declined, true, __ATOMIC_RELAXED);
}
