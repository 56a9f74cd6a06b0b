/*
 * session.h - how the processes that have one database open act as one.
 *
 * Each has an lj_db of its own; what they must agree on (the chain, what is shipped and safe, the spool, whether a generation is
 * being begun) is in the shared page, and the fields of lj_db marked "shared" are copies of it. Between lj_db_enter and
 * lj_db_leave a process holds the page's lock and its copies are current; what it changes is stored by lj_db_leave. These
 * are the only places where shared fields change. That happens at restarts, acknowledgements and requests, not at commits:
 * a commit compares one number (lj_db_page_moved_locked).
 *
 * A process killed in between changes nothing, or all of it. One that is stopped there keeps the lock: after LJ_PAGE_WAIT_NS the
 * others take the chain for broken (LJ_WORD_STUCK) instead of waiting, and the next one who gets the lock writes that down.
 *
 * Layer: capture. Thread-safety: lj_db.mutex, which enter and leave take and release.
 */
#ifndef LJ_SESSION_H
#define LJ_SESSION_H

#include "vfs/capture/database.h"

#define LJ_PAGE_WAIT_NS LJ_NS_PER_S

/* Locks the mutex and the page and reads it; stores what was changed and unlocks. Some hundred nanoseconds and two system calls. */
void lj_db_enter(lj_db *db);
void lj_db_leave(lj_db *db);
/* The same for a caller that has the mutex already. */
void lj_db_enter_locked(lj_db *db);
void lj_db_leave_locked(lj_db *db);
/* Another process has changed the page since it was read here. Two loads. */
bool lj_db_page_moved_locked(const lj_db *db);
/* Brings the copies up to date if it has. */
void lj_db_refresh_locked(lj_db *db);
/* The copies become the session: this process is alone and has decided. Or: it takes part in what the page says. */
void lj_db_session_begin(lj_db *db);
void lj_db_session_join(lj_db *db);

/* Somebody waits for a flush, here or in another process. Caller holds the mutex. */
bool lj_db_flush_wanted_locked(const lj_db *db);

/* ---- the uploader's side ---- */

/* Looks at the wal-index and the page for what other processes did. In threads of ours only. */
void lj_db_look_around(lj_db *db);
/*
 * The uploader is going to sleep: from here on commits of other processes ring. Called before the last look. With `asleep`
 * false they need not.
 */
void lj_db_sleeping(lj_db *db, bool asleep);
/* Callback of the uploader's bell. */
void lj_db_rung(void *ctx, bool gone);
/* Locks of a snapshot are held on the database (see lj_image_hold), or none. */
void lj_db_image_held(lj_db *db, unsigned hold);
/* Another process takes part now. */
bool lj_db_company(lj_db *db);

/* Gives the place up, with all that can be seen of it: whoever learns that we are gone finds the seat free. (join.c) */
void lj_db_leave_seat(lj_db *db);

/* ---- a standby's side ---- */

/*
 * What a standby's ship task does when it is woken: rings for the uploader; and if that is gone, takes over or finds the new
 * one. Returns when to be called again, LJ_DB_ASLEEP, or LJ_DB_LEADS when this process is the uploader now. (join.c)
 */
#define LJ_DB_ASLEEP INT64_C(-1)
#define LJ_DB_LEADS  INT64_C(-2)
int64_t lj_db_standby(lj_db *db);
/* The uploader must not wait for its next tick. Caller holds the mutex and wakes afterwards. */
void lj_db_call_locked(lj_db *db);
/*
 * A snapshot of the uploader is in the way of a lock. Asks for it and waits for at most LJ_YIELD_WAIT_NS; true: the lock may
 * work now. Rarely called: only when a checkpoint or a lock of the whole file was refused while such a snapshot runs.
 */
#define LJ_YIELD_WAIT_NS (100 * LJ_NS_PER_MS)
bool lj_db_ask_yield(lj_db *db, bool exclusive);

#endif
