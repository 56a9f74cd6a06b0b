/*
 * moved.c - see moved.h.
 */
#include "vfs/capture/moved.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "vfs/base/log.h"
#include "vfs/capture/session.h"

#define MOVED "the file was moved, replaced or deleted"

/* What another handle on the same name needs. The attach, which uses both without the mutex, is over or has not begun. */
static void give_back(lj_db *db)
{
    pthread_mutex_lock(&db->ready_mutex);
    atomic_store(&db->ready, true); /* not attached yet: nor will it be */
    lj_db_leave_seat(db);
    pthread_mutex_unlock(&db->ready_mutex);
}

static void end_replication(lj_db *db)
{
    pthread_mutex_lock(&db->mutex);
    bool first = !db->moved;
    db->moved = true;
    db->state = LJ_DB_STOPPED;
    snprintf(db->reason, sizeof(db->reason), MOVED);
    lj_error_set(&db->ship_error, LJ_UNSUPPORTED, MOVED " while it was open");
    pthread_cond_broadcast(&db->cond);
    pthread_mutex_unlock(&db->mutex);
    if (!first)
        return;
    lj_db_break(db, MOVED);
    give_back(db);
    lj_log(LJ_LOG_ERROR,
           "%s: not replicating any more: " MOVED
           " while it was open; what its connections write goes to a file that does not have this "
           "name (close them and open it again)",
           db->path);
}

static bool another_file(const lj_db *db, const struct stat *st)
{
    return db->inode != 0 && (uint64_t)st->st_ino != db->inode;
}

bool lj_db_in_place(lj_db *db)
{
    struct stat st;
    pthread_mutex_lock(&db->mutex);
    bool moved = db->moved;
    pthread_mutex_unlock(&db->mutex);
    if (moved)
        return false;
    if (db->inode == 0)
        return true;
    bool gone =
        stat(db->path, &st) != 0 ? errno == ENOENT || errno == ENOTDIR : another_file(db, &st);
    if (gone)
        end_replication(db);
    return !gone;
}

bool lj_db_identity(lj_db *db, lj_identity *ret_identity)
{
    pthread_mutex_lock(&db->mutex);
    bool moved = db->moved;
    pthread_mutex_unlock(&db->mutex);
    if (moved)
        return false;
    if (lj_identity_of(db->path, ret_identity) &&
        (db->inode == 0 || ret_identity->inode == db->inode))
        return true;
    (void)lj_db_in_place(db); /* if it is not, that is told */
    return false;
}
