/*
 * resume.c - does the replica agree with the position?
 *
 * The position file says how far the replica was when this machine last heard of it. A rolled-back volume, a second writer
 * or somebody who emptied the bucket make that untrue; each means a new generation. Asked once per open, before the first object
 * (one LIST), and again before a put that follows a rest: a writer that took over long ago may have deleted, by its retention, the
 * very objects that our next put would have met.
 *
 * And what was acknowledged must be there: a store may lose its last seconds, or be set back to an older state. Whatever is put
 * behind such a hole cannot be restored before the next snapshot.
 *
 * Layer: ship. Runs in the shipping task, but for lj_ship_disown and lj_resume_agree.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "vfs/base/clock.h"
#include "vfs/capture/session.h"
#include "vfs/codec/lz4.h"
#include "vfs/replica/label.h"
#include "vfs/ship/internal.h"

/* Shorter than any retention that makes sense, and long enough for a busy database never to ask. */
#define REST_NS (60 * LJ_NS_PER_S)
/* A store may list what was put last a moment later. */
#define SHOWN_AFTER_NS (2 * LJ_NS_PER_S)
/* an object's label, in the skippable frame that it begins with */
#define LABELLED_BYTES ((int64_t)(8 + LJ_LABEL_BYTES))

static lj_code ahead(const lj_position *theirs, const lj_saved_position *saved, lj_error *err)
{
    char text[LJ_POSITION_TEXT_MAX];
    char ours[LJ_POSITION_TEXT_MAX];
    lj_position_format(theirs, text);
    lj_position_format(&saved->at, ours);
    return lj_error_set(err, LJ_CONFLICT,
                        "the replica is ahead: it has %s, the local database is at %s", text, ours);
}

static lj_code gone(const lj_saved_position *saved, lj_error *err)
{
    char ours[LJ_POSITION_TEXT_MAX];
    lj_position_format(&saved->at, ours);
    return lj_error_set(err, LJ_CONFLICT,
                        "the replica no longer has generation %s, the local database is at %s",
                        saved->at.generation, ours);
}

/* Nobody else is in it: the generation stays ours. */
static lj_code lost(const lj_saved_position *saved, lj_error *err)
{
    char ours[LJ_POSITION_TEXT_MAX];
    lj_position_format(&saved->at, ours);
    return lj_error_set(err, LJ_CONFLICT,
                        "the replica has lost the end of what it had acknowledged of generation "
                        "%s, the local database is at %s",
                        saved->at.generation, ours);
}

/* Where what was acknowledged ends, and the next object goes: a segment, or the end mark of the index before. */
static lj_position end_of_acknowledged(const lj_saved_position *saved)
{
    lj_position end = saved->at;
    if (saved->mark_end != 0) {
        end.index--;
        end.offset = saved->mark_end;
    }
    return end;
}

/* What stands at our place or behind it. */
typedef struct {
    const lj_saved_position *saved;
    lj_position last; /* highest of all; generation "" = none */
    bool
        at_next; /* a segment at our position: an acknowledgement we did not hear, or another writer's */
    bool before;            /* with an end mark to put: something stands in its place */
    const lj_position *own; /* an object of ours that has to be there; NULL: none is known */
    bool own_there;
} view;

static void look_at(view *v, uint32_t index, uint64_t offset)
{
    const lj_saved_position *saved = v->saved;
    lj_position at = saved->at;
    at.index = index;
    at.offset = offset;
    if (v->own != NULL && lj_position_compare(&at, v->own) == 0)
        v->own_there = true;
    if (v->last.generation[0] == 0 || lj_position_compare(&at, &v->last) > 0)
        v->last = at;
    if (lj_position_compare(&at, &saved->at) == 0)
        v->at_next = true;
    if (saved->mark_end != 0 && index + 1 == saved->at.index && offset == saved->mark_end)
        v->before = true;
}

static lj_code judge(const view *v, lj_error *err)
{
    const lj_saved_position *saved = v->saved;
    if (v->last.generation[0] == 0)
        return LJ_OK;
    /* a segment exactly at our position: upload.c compares it */
    if (lj_position_compare(&v->last, &saved->at) > 0)
        return ahead(&v->last, saved, err);
    /* the next index has begun, and the end mark of ours was already deleted: not by us */
    if (saved->mark_end != 0 && v->at_next && !v->before)
        return ahead(&v->last, saved, err);
    return LJ_OK;
}

lj_code lj_resume_agree(const lj_generation_info *found, const lj_saved_position *saved,
                        lj_error *err)
{
    if (found == NULL || found->snapshot_count == 0)
        return gone(saved, err);
    view v = {.saved = saved};
    for (size_t i = 0; i < found->segment_count; i++)
        look_at(&v, found->segments[i].index, found->segments[i].offset);
    LJ_TRY(judge(&v, err));
    uint32_t newest = found->snapshots[found->snapshot_count - 1].index;
    if (newest <= saved->at.index)
        return LJ_OK;
    char ours[LJ_POSITION_TEXT_MAX];
    lj_position_format(&saved->at, ours);
    return lj_error_set(err, LJ_CONFLICT,
                        "the replica is ahead: it has a snapshot of index %" PRIu32
                        ", the local database is at %s",
                        newest, ours);
}

void lj_resume_agreed(lj_shipper *s)
{
    s->agreed_mono_ns = lj_clock_mono_ns();
    s->agreed_wall_ns = lj_clock_wall_ns();
}

/* ------------------------------------------------------------------ another writer */

void lj_ship_disown(lj_shipper *s, const char *generation)
{
    pthread_mutex_lock(&s->db->mutex);
    s->times_known = false; /* of what the other one has put */
    lj_saved_position_disown(&s->db->saved, generation);
    memcpy(s->disowned, generation, LJ_GENERATION_MAX); /* lj_ship_save writes it down */
    pthread_mutex_unlock(&s->db->mutex);
}

/* In the shipping task: at once into the position file, so that a kill does not bring it back. */
static void disown_now(lj_shipper *s)
{
    lj_error ignored = LJ_ERROR_INIT;
    lj_ship_disown(s, s->saved.at.generation);
    s->unsaved = true;
    (void)!lj_ship_save(s, &ignored);
}

lj_code lj_ship_conflict(lj_shipper *s, const lj_position *at, lj_error *err)
{
    lj_error ignored = LJ_ERROR_INIT;
    lj_inventory *inventory = NULL;
    lj_position theirs = *at;
    if (lj_inventory_read(s->storage, at->generation, &inventory, &ignored) == LJ_OK) {
        const lj_generation_info *found = lj_inventory_find(inventory, at->generation);
        if (found != NULL && found->segment_count > 0) {
            theirs.index = found->segments[found->segment_count - 1].index;
            theirs.offset = found->segments[found->segment_count - 1].offset;
        }
        lj_inventory_free(inventory);
    }
    char text[LJ_POSITION_TEXT_MAX];
    char ours[LJ_POSITION_TEXT_MAX];
    lj_position_format(&theirs, text);
    lj_position_format(at, ours);
    disown_now(s);
    return lj_error_set(err, LJ_CONFLICT,
                        "another writer went on in this generation: it has %s, the local database "
                        "is at %s",
                        text, ours);
}

/* ------------------------------------------------------------------ asking the store */

/* The snapshot timer goes by the replica: a restored database's position file does not know when the snapshot was taken. */
static void note_newest_snapshot(lj_shipper *s, const lj_generation_info *found)
{
    const lj_snapshot_info *newest = &found->snapshots[found->snapshot_count - 1];
    if (s->saved.snapshot_ns == newest->created_ns && s->saved.snapshot_at.index == newest->index)
        return;
    if (s->saved.snapshot_at.index != newest->index)
        s->saved.snapshot_at.offset = 0; /* killed behind it: what it contains is not known */
    s->saved.snapshot_ns = newest->created_ns;
    s->saved.snapshot_at.index = newest->index;
    s->unsaved = true;
    lj_db_enter(s->db);
    s->db->last_snapshot_ns = newest->created_ns;
    lj_db_leave(s->db);
}

/* Nothing stands behind the position locally that an object at it could be. */
static bool nothing_left(lj_db *db, const lj_position *at)
{
    pthread_mutex_lock(&db->mutex);
    const lj_life *life = &db->life;
    const lj_chain *chain = &db->chain;
    bool more = db->spool_bytes > 0 || db->pending.state != LJ_PENDING_NONE;
    if (chain->has_life && life->known && !chain->unused && at->index == chain->index)
        more = more || lj_wal_frame_offset(life->page_size, life->frames + 1) > at->offset;
    pthread_mutex_unlock(&db->mutex);
    return !more;
}

/*
 * A segment exactly at our position is compared when the next one goes there. With nothing to compare it, it is a transaction
 * whose COMMIT failed, or one that a power cut took, and readers must not get it.
 */
static lj_code check_tail(lj_shipper *s, const lj_generation_info *found, lj_error *err)
{
    if (found->segment_count == 0)
        return LJ_OK;
    const lj_segment_info *last = &found->segments[found->segment_count - 1];
    lj_position theirs = s->saved.at;
    theirs.index = last->index;
    theirs.offset = last->offset;
    if (lj_position_compare(&theirs, &s->saved.at) != 0 || !nothing_left(s->db, &theirs))
        return LJ_OK;
    return ahead(&theirs, &s->saved, err);
}

/* Killed behind an object, before the position file: what follows it must not be older all the same. */
static void note_newest_time(lj_shipper *s, const lj_generation_info *found)
{
    if ((lj_storage_features(s->storage) & LJ_STORAGE_SET_TIME) == 0 ||
        found->updated_ns <= s->saved.last_object_ns)
        return;
    s->saved.last_object_ns = found->updated_ns;
    s->unsaved = true;
}

/* Where a segment ends, as its label says; 0: it has none, or may not be read. */
static lj_code end_of_segment(lj_shipper *s, const lj_segment_info *segment, uint64_t *ret_end,
                              lj_error *err)
{
    char key[LJ_NAME_MAX];
    lj_label label;
    lj_lz4_decoder *decoder = NULL;
    lj_sink nothing = lj_sink_nowhere();
    lj_sink sink;
    size_t len = 0;
    *ret_end = 0;
    lj_inventory_segment_key(s->saved.at.generation, segment, key);
    LJ_TRY(lj_lz4_decoder_new(&nothing, &decoder, &sink, err));
    lj_code code = lj_storage_get(s->storage, key, 0, LABELLED_BYTES, &sink, err);
    const uint8_t *bytes = lj_lz4_decoder_label(decoder, &len);
    if (code == LJ_OK && lj_label_read(bytes, len, &label) && lj_label_fits(&label, key))
        *ret_end = segment->offset + label.size_bytes;
    lj_lz4_decoder_free(decoder);
    bool cannot_tell = code == LJ_DENIED || code == LJ_CORRUPT || code == LJ_UNSUPPORTED;
    return cannot_tell ? LJ_OK : code;
}

/* A generation is given up for it, so what is not listed has to be missing for longer than that takes. */
static lj_code not_listed(lj_shipper *s, lj_error *err)
{
    int64_t now_ns = lj_clock_mono_ns();
    if (s->missing_since_ns == 0)
        s->missing_since_ns = now_ns;
    if (now_ns - s->missing_since_ns >= SHOWN_AFTER_NS)
        return lost(&s->saved, err);
    lj_error_set(err, LJ_UNAVAILABLE,
                 "the replica does not list the end of what it had acknowledged of generation %s",
                 s->saved.at.generation);
    return lj_error_retryable(err, true);
}

/* The last segment in front of our place reaches it. */
static lj_code check_acknowledged(lj_shipper *s, const lj_generation_info *found, lj_error *err)
{
    const lj_position end = end_of_acknowledged(&s->saved);
    const lj_segment_info *last = NULL;
    uint64_t reached = 0;
    if (end.offset == 0)
        return LJ_OK;
    for (size_t i = 0; i < found->segment_count; i++) {
        if (found->segments[i].index == end.index && found->segments[i].offset < end.offset)
            last = &found->segments[i];
    }
    if (last == NULL)
        return not_listed(s, err);
    LJ_TRY(end_of_segment(s, last, &reached, err));
    if (reached != 0 && reached < end.offset)
        return not_listed(s, err);
    s->missing_since_ns = 0;
    return LJ_OK;
}

static lj_code check(lj_shipper *s, bool tail, lj_error *err)
{
    lj_inventory *inventory = NULL;
    LJ_TRY(lj_inventory_read(s->storage, s->saved.at.generation, &inventory, err));
    const lj_generation_info *found = lj_inventory_find(inventory, s->saved.at.generation);
    lj_code code = lj_resume_agree(found, &s->saved, err);
    if (code == LJ_OK && tail)
        code = check_tail(s, found, err);
    if (code == LJ_OK) {
        note_newest_snapshot(s, found);
        if (tail)
            note_newest_time(s, found);
        lj_resume_agreed(s);
    }
    if (code == LJ_CONFLICT)
        disown_now(s);
    if (code == LJ_OK && tail)
        code = check_acknowledged(s, found, err);
    lj_inventory_free(inventory);
    return code;
}

lj_code lj_resume_open(lj_shipper *s, lj_error *err)
{
    return check(s, true, err);
}

lj_code lj_resume_check(lj_shipper *s, lj_error *err)
{
    return check(s, false, err);
}

static lj_code take_entry(void *ctx, const lj_storage_entry *entry, lj_error *err)
{
    (void)err;
    lj_name name;
    lj_name_parse(entry->key, &name);
    if (name.kind == LJ_NAME_WAL)
        look_at(ctx, name.position.index, name.position.offset);
    return LJ_OK;
}

/* The segment put last, if it is of the index that goes on or ends next: nobody but another writer may have deleted that. */
static const lj_position *put_last(const lj_shipper *s)
{
    const lj_position end = end_of_acknowledged(&s->saved);
    const lj_position *last = &s->last_put;
    bool there = strcmp(last->generation, end.generation) == 0 && last->index == end.index;
    return there ? last : NULL;
}

/* It was not listed. */
static lj_code look_for(lj_shipper *s, const lj_position *own, lj_error *err)
{
    char key[LJ_NAME_MAX];
    lj_storage_entry entry;
    lj_name_wal(own, key);
    lj_code code = lj_storage_head(s->storage, key, &entry, err);
    return code == LJ_NOTFOUND ? lost(&s->saved, err) : code;
}

/* The segments from our last one or our place on, and whether the generation still has our newest snapshot. */
static lj_code compare_end(lj_shipper *s, view *v, lj_error *err)
{
    const lj_saved_position *saved = &s->saved;
    char prefix[LJ_NAME_MAX + 8];
    char key[LJ_NAME_MAX];
    v->own = put_last(s);
    const lj_position from = v->own != NULL ? *v->own : end_of_acknowledged(saved);
    lj_name_generation_prefix(saved->at.generation, key);
    snprintf(prefix, sizeof(prefix), "%swal/", key);
    lj_name_wal(&from, key);
    *strchr(key, '.') = 0; /* behind this: the object itself, too */
    LJ_TRY(lj_storage_list(s->storage, prefix, key, take_entry, v, err));
    LJ_TRY(judge(v, err));
    lj_storage_entry entry;
    lj_name_snapshot(saved->at.generation, saved->snapshot_at.index, key);
    lj_code code = lj_storage_head(s->storage, key, &entry, err);
    return code == LJ_NOTFOUND ? gone(saved, err) : code;
}

static int64_t rest_ns(const lj_shipper *s)
{
    int64_t retention_ns = s->db->options.retention_ns;
    return retention_ns > 0 ? LJ_MIN(REST_NS, retention_ns / 2) : REST_NS;
}

lj_code lj_resume_after_rest(lj_shipper *s, lj_error *err)
{
    if (s->agreed_mono_ns == 0)
        return LJ_OK; /* lj_resume_check comes first */
    /* of the two clocks, one stands still while a machine is suspended, the other can be set back */
    int64_t wall_ns = lj_clock_wall_ns() - s->agreed_wall_ns;
    if (lj_clock_mono_ns() - s->agreed_mono_ns < rest_ns(s) && wall_ns >= 0 && wall_ns < rest_ns(s))
        return LJ_OK;
    view v = {.saved = &s->saved};
    lj_code code = compare_end(s, &v, err);
    if (code == LJ_CONFLICT)
        disown_now(s);
    if (code == LJ_OK && v.own != NULL && !v.own_there)
        code = look_for(s, v.own, err);
    if (code == LJ_OK)
        lj_resume_agreed(s);
    return code;
}
