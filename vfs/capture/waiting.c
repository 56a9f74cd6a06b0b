/*
 * waiting.c - waits for one commit (durability=ack) and for one position (litejoin_wait), see database.h.
 *
 * Layer: capture.
 */
#include <stdio.h>
#include <string.h>

#include "vfs/capture/database.h"

lj_code lj_db_wait_commit(lj_db *db, uint64_t life, uint64_t frames, int64_t timeout_ns,
                          lj_error *err)
{
    pthread_mutex_lock(&db->mutex);
    lj_code code = lj_db_wait_for_locked(db, life, frames, timeout_ns, true, err);
    pthread_mutex_unlock(&db->mutex);
    return code;
}

static lj_code same_generation_locked(const lj_db *db, const lj_position *at, lj_error *err)
{
    LJ_TRY(lj_db_cannot_wait_locked(db, err));
    if (!db->chain.active || db->chain.generation[0] == 0)
        return LJ_OK; /* not decided yet */
    if (strcmp(db->chain.generation, at->generation) == 0)
        return LJ_OK;
    lj_error_set(err, LJ_CONFLICT, "the position is of generation %s, the replica goes on with %s",
                 at->generation, db->chain.generation);
    return lj_error_hint(err, "what the older generation contains is in the new one's snapshot: "
                              "use PRAGMA litejoin_sync");
}

static bool passed_locked(const lj_db *db, const lj_position *at)
{
    return db->established && !db->broken && strcmp(db->pos.generation, at->generation) == 0 &&
           lj_position_compare(&db->pos, at) >= 0;
}

lj_code lj_db_wait_position(lj_db *db, const lj_position *at, int64_t timeout_ns, lj_error *err)
{
    struct timespec deadline;
    lj_db_deadline(timeout_ns, &deadline);
    int rc = 0;
    pthread_mutex_lock(&db->mutex);
    lj_code code = same_generation_locked(db, at, err);
    while (code == LJ_OK && !passed_locked(db, at) && rc == 0) {
        rc = pthread_cond_timedwait(&db->cond, &db->mutex, &deadline);
        code = same_generation_locked(db, at, err);
    }
    if (code == LJ_OK && !passed_locked(db, at)) {
        char text[LJ_POSITION_TEXT_MAX];
        lj_position_format(&db->pos, text);
        char what[LJ_POSITION_TEXT_MAX + 24];
        snprintf(what, sizeof(what), "the replica is at %s", text);
        code = lj_db_told_why(err, LJ_TIMEOUT, what, lj_db_shipping_error_locked(db),
                              "nothing asked it to hurry");
    }
    pthread_mutex_unlock(&db->mutex);
    return code;
}
