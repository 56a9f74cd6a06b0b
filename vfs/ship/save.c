/*
 * save.c - the shipping task writes down how far the replica is (invariant I2 of database.h).
 *
 * Layer: ship. Thread-safety: see internal.h.
 */
#include <string.h>

#include "vfs/base/clock.h"
#include "vfs/base/log.h"
#include "vfs/capture/session.h"
#include "vfs/ship/internal.h"

#define POSITION_SYNC_NS LJ_NS_PER_S

lj_code lj_ship_save(lj_shipper *s, lj_error *err)
{
    if (!s->unsaved)
        return LJ_OK;
    pthread_mutex_lock(&s->db->mutex);
    lj_saved_position_disown(&s->saved, s->disowned);
    bool moved = s->db->moved;
    pthread_mutex_unlock(&s->db->mutex);
    if (moved)
        return LJ_OK; /* the file is of what has the name now */
    /* a COMMIT that waits does not wait for the disk: all that a power cut can cost is the generation */
    bool durable = s->pending == 0;
    lj_code code = lj_saved_position_store(s->db->position_path, &s->saved, durable, err);
    if (code != LJ_OK)
        return lj_error_context(err, "position file");
    s->unsaved = false;
    if (durable)
        s->sync_ns = 0;
    else if (s->sync_ns == 0)
        s->sync_ns = lj_clock_mono_ns() + POSITION_SYNC_NS;
    lj_db_enter(s->db); /* the others are shown some of it */
    s->db->saved = s->saved;
    s->newest_object_ns = LJ_MAX(s->newest_object_ns, s->saved.last_object_ns);
    lj_db_leave(s->db);
    return LJ_OK;
}

void lj_ship_note_time(lj_shipper *s, int64_t created_ns)
{
    pthread_mutex_lock(&s->db->mutex);
    s->newest_object_ns = LJ_MAX(s->newest_object_ns, created_ns);
    pthread_mutex_unlock(&s->db->mutex);
}

uint64_t lj_ship_life_of(const lj_chain *chain, const lj_life *life, uint32_t index)
{
    uint64_t back = chain->index - index;
    return chain->has_life && life->number > back ? life->number - back : 0;
}

void lj_ship_tell(lj_shipper *s, const lj_chain *chain, const lj_life *life,
                  const lj_position *known)
{
    const lj_position *at = &s->saved.at;
    if (at->offset == 0 || s->unsaved || strcmp(at->generation, chain->generation) != 0 ||
        lj_position_compare(known, at) >= 0)
        return;
    lj_db_shipped(s->db, at, lj_ship_life_of(chain, life, at->index),
                  lj_wal_frames_below(s->saved.page_size, at->offset));
}

void lj_ship_sync_position(lj_shipper *s)
{
    lj_error err = LJ_ERROR_INIT;
    if (s->sync_ns == 0)
        return;
    s->unsaved = true;
    if (lj_ship_save(s, &err) != LJ_OK)
        lj_log_error(LJ_LOG_WARN, s->db->path,
                     &err); /* and before the next object it is tried again */
}
