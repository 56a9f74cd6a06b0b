/*
 * snapshot.c - frozen images of the database as objects.
 *
 * A first snapshot begins a generation: the chain becomes active at the moment of freezing (index 0, frames up to M are in the
 * snapshot, everything behind M is protected by the gate from then on), and no segment is shipped before the snapshot is
 * in the replica. A periodic snapshot is labelled with the index of the life it was frozen in and is published
 * only after every frame up to M is in the replica. An index gets one snapshot: restoring begins at the index's offset 0
 * whatever the snapshot holds, so a second one would only take a restore point away.
 *
 * A WAL that does not verify (image.h) cannot be shipped. Its generations are snapshots alone: the chain stays inactive, and
 * every later commit makes the next one due, with a rest in between (snapshot_task.c), until the WAL restarts.
 *
 * Likewise the frames of a life behind 4 GiB, where the layout has no names for segments. A snapshot frozen there begins a
 * chain all the same, since the next life can follow it; a commit in the same life breaks it, and the next snapshot rests.
 *
 * Layer: ship. Runs in the snapshot task. Source: replica-format sections 2 and 9.2 to 9.5.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "vfs/base/clock.h"
#include "vfs/base/log.h"
#include "vfs/capture/moved.h"
#include "vfs/capture/session.h"
#include "vfs/capture/spool.h"
#include "vfs/codec/lz4.h"
#include "vfs/replica/label.h"
#include "vfs/ship/internal.h"

/* `frames` of the WAL with this salt are in the image. */
static void put_label(lj_lz4_encoder *encoder, const lj_image *image, const char *key,
                      uint64_t frames, lj_wal_salt salt)
{
    lj_label label = {.size_bytes = lj_image_bytes(image), .salt = salt};
    uint8_t bytes[LJ_LABEL_BYTES];
    lj_name_parse(key, &label.name);
    if (frames > 0)
        label.needs = lj_wal_frame_offset(lj_image_freeze(image)->page_size, frames + 1);
    lj_label_write(&label, bytes);
    lj_lz4_encoder_label(encoder, bytes, sizeof(bytes));
}

static lj_code put_snapshot(lj_shipper *s, lj_image *image, const char *generation, uint32_t index,
                            uint64_t frames, lj_wal_salt salt, int64_t created_ns, lj_error *err)
{
    char key[LJ_NAME_MAX];
    lj_name_snapshot(generation, index, key);
    lj_source raw = lj_image_source(image);
    lj_source packed;
    lj_lz4_encoder *encoder = NULL;
    LJ_TRY(lj_lz4_encoder_new(&raw, &encoder, &packed, err));
    put_label(encoder, image, key, frames, salt);
    lj_ship_note_time(s, created_ns);
    lj_storage_put_options options = {.if_absent = true, .created_ns = created_ns};
    lj_code code = lj_storage_put(s->storage, key, &packed, &options, err);
    uint64_t bytes = lj_lz4_encoder_bytes_out(encoder);
    lj_lz4_encoder_free(encoder);
    s->lost_images = code == LJ_BUSY ? s->lost_images + 1 : 0;
    if (code != LJ_OK)
        return lj_error_context(err, "snapshot");
    lj_db_enter(s->db);
    s->db->snapshots++;
    s->db->shipped_bytes += bytes;
    s->db->last_snapshot_ns = created_ns;
    lj_db_leave(s->db);
    lj_log(LJ_LOG_INFO,
           "%s: snapshot %s/%08" PRIx32 ", %" PRIu64 " pages of %" PRIu32 " bytes, %" PRIu64
           " compressed",
           s->db->path, generation, index, (uint64_t)lj_image_freeze(image)->db_pages,
           lj_image_freeze(image)->page_size, bytes);
    return LJ_OK;
}

/* After so many images that were lost to checkpoints of other processes the next is copied first, and stays. */
#define LOST_IMAGES_MAX 3u

static lj_code begin_image(lj_shipper *s, lj_image **ret_image, lj_error *err)
{
    s->guard->copy_first = s->lost_images >= LOST_IMAGES_MAX;
    return lj_image_begin(s->guard, &s->dbfile, s->db->wal_path, s->db->state_dir,
                          &s->cancel_snapshot, ret_image, err);
}

/* How a frozen state stands to the life of the WAL that is current now. */
typedef struct {
    bool in_life; /* it is a state of this life */
    bool before;  /* the WAL was empty then; this life began behind it */
    uint64_t life,
        frames; /* everything of this process's lives up to here is in the frozen state */
} frozen_place;

/* `last` was the number of the current life before the freeze. false: the lives in between cannot be told apart. */
static bool place_locked(const lj_db *db, const lj_freeze *f, uint64_t last,
                         frozen_place *ret_place)
{
    const lj_life *life = &db->life;
    frozen_place place = {.in_life = false};
    if (db->disturbed)
        return false;
    if (f->frames == 0) {
        /* without a disturbance, a life that is new since then began after the freeze: the WAL was empty */
        place.before = db->session_life > last;
        place.life = last;
        place.frames = UINT64_MAX; /* that life is over, however long others made it */
    } else {
        place.in_life = life->known && lj_wal_salt_eq(life->salt, f->salt);
        if (life->known && !place.in_life)
            return false;
        place.life = place.in_life ? life->number : 0;
        place.frames = place.in_life ? f->frames : 0;
    }
    *ret_place = place;
    return true;
}

static bool ends_past_layout(const lj_freeze *f)
{
    return f->frames > 0 && lj_wal_frame_offset(f->page_size, f->frames + 1) > LJ_OFFSET_MAX;
}

/* The new generation is the chain from here on: what is behind the frozen state is protected. */
static void begin_chain_locked(lj_shipper *s, const lj_freeze *f, const frozen_place *place,
                               lj_new_generation *fresh)
{
    lj_db *db = s->db;
    lj_saved_position *saved = &fresh->saved;
    const lj_chain old = db->chain;
    db->chain = (lj_chain){.active = !f->broken,
                           .has_life = f->frames > 0 || place->before,
                           .salt = place->before ? db->session_salt : f->salt,
                           .unused = f->frames > 0,
                           .base_frames = f->frames};
    if (!db->chain.has_life) {
        /* a header may have been written since the WAL was frozen, or before, with nothing committed under it */
        db->chain.has_next = old.has_next;
        db->chain.next_salt = old.next_salt;
        db->chain.emptied = saved->has_identity;
        db->chain.identity = saved->identity;
    }
    memcpy(db->chain.generation, saved->at.generation, LJ_GENERATION_MAX);
    if (place->in_life && db->life.frames > f->frames)
        db->chain.unused = false;
    db->chain.empty_salt = f->frames == 0 ? f->salt : (lj_wal_salt){0, 0};
    db->broken = false;
    db->snapshots_only = f->broken;
    db->pos = saved->at;
    db->safe_life = place->life;
    db->safe_frames = place->frames;
    /* of the generation before, which may have had frames that were taken back since (lj_db_pending_undo) */
    db->shipped_life = 0;
    db->shipped_frames = 0;
    db->spool_bytes = 0;
    fresh->life = place->life;
    fresh->frames = place->frames;
    saved->page_size = f->page_size;
    saved->has_base = f->frames > 0;
    saved->base_salt = f->salt;
    saved->base_frames = f->frames;
    if (saved->has_base && f->has_cksum) {
        saved->salt = f->salt;
        saved->sum = f->cksum;
    }
}

/* Freezes with restarts held off in between, and makes the new generation the active chain. */
static lj_code activate(lj_shipper *s, lj_image **ret_image, lj_new_generation *fresh,
                        lj_error *err)
{
    lj_db *db = s->db;
    lj_db_enter(db);
    db->freezing = true;
    db->disturbed = false;
    uint64_t last = db->session_life;
    lj_db_leave(db);
    /* what the file looked like when it was frozen is known only if it was not written around that time */
    lj_identity before = {.inode = 0};
    lj_identity after = {.inode = 0};
    bool has_identity = lj_db_identity(db, &before);
    lj_image *image = NULL;
    lj_code code = begin_image(s, &image, err);
    has_identity = has_identity && lj_db_identity(db, &after);
    bool written = has_identity && !lj_identity_eq(&before, &after);

    lj_db_enter(db);
    db->freezing = false;
    frozen_place place = {.in_life = false};
    if (code == LJ_OK && !place_locked(db, lj_image_freeze(image), last, &place)) {
        code = lj_error_set(err, LJ_BUSY, "the WAL was restarted while it was being frozen");
        lj_error_retryable(err, true);
    }
    if (code == LJ_OK && written && lj_image_freeze(image)->frames == 0) {
        /* without a frame only the file tells whether somebody else comes before our first life */
        code = lj_error_set(err, LJ_BUSY, "the database was written while it was being frozen");
        lj_error_retryable(err, true);
    }
    if (code == LJ_OK) {
        fresh->saved.has_identity = lj_image_freeze(image)->frames == 0 && has_identity;
        fresh->saved.identity = before;
        begin_chain_locked(s, lj_image_freeze(image), &place, fresh);
    }
    lj_db_leave(db);
    if (code != LJ_OK) {
        lj_image_end(image);
        return code;
    }
    *ret_image = image;
    return LJ_OK;
}

/* The attempt failed: nothing needs protection until the next one. */
static void deactivate(lj_shipper *s, const char *generation)
{
    lj_db *db = s->db;
    lj_db_enter(db);
    if (db->chain.active && strcmp(db->chain.generation, generation) == 0) {
        db->chain.active = false;
        db->safe_frames = 0;
        db->spool_bytes = 0;
    }
    lj_db_leave(db);
    /* each attempt has a name of its own: what was spooled for this one is of no use to the next */
    lj_spool_drop(db->spool_dir, generation);
}

/*
 * Each attempt has a name of its own, since an earlier one may still arrive: overwritten by an older snapshot, a generation would
 * be broken. What did arrive is not left to lie there for ever.
 */
static void remember_stray(lj_shipper *s, const char *generation)
{
    if (s->stray_count == LJ_STRAYS_MAX)
        memmove(s->strays[0], s->strays[1], --s->stray_count * sizeof(s->strays[0]));
    memcpy(s->strays[s->stray_count++], generation, LJ_GENERATION_MAX);
    s->stray_looks = 0;
    s->stray_look_ns = 0;
}

/* Somebody else may have found it, restored it and gone on in it. */
static bool is_lonely(lj_shipper *s, const char *generation)
{
    lj_error ignored = LJ_ERROR_INIT;
    lj_inventory *inventory = NULL;
    if (lj_inventory_read(s->storage, generation, &inventory, &ignored) != LJ_OK)
        return false;
    const lj_generation_info *found = lj_inventory_find(inventory, generation);
    bool lonely = found != NULL && found->segment_count == 0 && found->snapshot_count == 1;
    lj_inventory_free(inventory);
    return lonely;
}

static void drop_arrived(lj_shipper *s)
{
    char names[LJ_STRAYS_MAX][LJ_NAME_MAX];
    const char *keys[LJ_STRAYS_MAX];
    unsigned count = 0;
    for (unsigned i = 0; i < s->stray_count; i++) {
        if (!is_lonely(s, s->strays[i]))
            continue;
        lj_name_snapshot(s->strays[i], 0, names[count]);
        keys[count] = names[count];
        count++;
    }
    lj_error err = LJ_ERROR_INIT;
    if (count > 0 && lj_storage_delete_many(s->storage, keys, count, NULL, NULL, &err) != LJ_OK)
        lj_log_error(LJ_LOG_INFO, "a snapshot of an attempt that failed is left to retention",
                     &err);
}

/* A request that nobody heard of again may arrive minutes later; what it brings is the newest generation then, until a commit. */
static const int64_t look_again_ns[] = {15 * LJ_NS_PER_S, 60 * LJ_NS_PER_S, 300 * LJ_NS_PER_S};

int64_t lj_snapshot_drop_strays(lj_shipper *s)
{
    if (s->stray_count == 0)
        return LJ_TASK_IDLE;
    if (lj_clock_mono_ns() < s->stray_look_ns)
        return s->stray_look_ns;
    drop_arrived(s);
    if (s->stray_looks == LJ_ARRAY_LEN(look_again_ns)) {
        s->stray_count = 0;
        return LJ_TASK_IDLE;
    }
    s->stray_look_ns = lj_clock_mono_ns() + look_again_ns[s->stray_looks++];
    return s->stray_look_ns;
}

static void own_strays(const lj_shipper *s, lj_saved_position *saved)
{
    for (unsigned i = 0; i < s->stray_count; i++)
        lj_saved_position_own(saved, s->strays[i]);
}

/*
 * A restore takes the generation with the newest object. What an open finds may be newer than the position file says, if there is one:
 * it was not written behind the last object, or another writer has put it. And its clock, or ours then, may have been ahead of ours
 * now: where we set the times, ours have to be later.
 */
static lj_code learn_newest_time(lj_shipper *s, lj_error *err)
{
    pthread_mutex_lock(&s->db->mutex);
    bool known = s->times_known;
    pthread_mutex_unlock(&s->db->mutex);
    if (known || (lj_storage_features(s->storage) & LJ_STORAGE_SET_TIME) == 0)
        return LJ_OK;
    lj_inventory *inventory = NULL;
    LJ_TRY(lj_inventory_read(s->storage, NULL, &inventory, err));
    size_t count = inventory->generation_count;
    int64_t newest_ns = count > 0 ? inventory->generations[count - 1].updated_ns : 0;
    lj_inventory_free(inventory);
    pthread_mutex_lock(&s->db->mutex);
    s->newest_object_ns = LJ_MAX(s->newest_object_ns, newest_ns);
    s->times_known = true;
    pthread_mutex_unlock(&s->db->mutex);
    return LJ_OK;
}

lj_code lj_snapshot_first(lj_shipper *s, lj_error *err)
{
    lj_error local = LJ_ERROR_INIT;
    err = err != NULL ? err : &local;
    lj_db *db = s->db;
    LJ_TRY(learn_newest_time(s, err));
    lj_new_generation fresh = {.pending = true};
    pthread_mutex_lock(&db->mutex);
    fresh.saved = (lj_saved_position){.last_object_ns = s->newest_object_ns};
    memcpy(fresh.saved.lineage, db->saved.lineage, sizeof(fresh.saved.lineage));
    fresh.saved.lineage_count = db->saved.lineage_count;
    fresh.saved.home = db->saved.home;
    lj_saved_position_leave(&fresh.saved, &db->saved);
    pthread_mutex_unlock(&db->mutex);
    lj_generation_new(fresh.saved.at.generation);
    own_strays(s, &fresh.saved);
    lj_saved_position_own(&fresh.saved, fresh.saved.at.generation);

    lj_image *image = NULL;
    LJ_TRY(activate(s, &image, &fresh, err));
    int64_t created_ns = LJ_MAX(lj_clock_wall_ns(), fresh.saved.last_object_ns + 1);
    const lj_freeze *f = lj_image_freeze(image);
    bool broken = f->broken;
    bool past_layout = ends_past_layout(f);
    lj_code code =
        put_snapshot(s, image, fresh.saved.at.generation, 0, f->frames, f->salt, created_ns, err);
    lj_image_end(image);
    if (code == LJ_EXISTS)
        code =
            LJ_OK; /* nobody else has this name: a repeated request of ours found its own object */
    if (code != LJ_OK) {
        deactivate(s, fresh.saved.at.generation);
        if (lj_ship_outcome_unknown(err))
            remember_stray(s, fresh.saved.at.generation);
        return code;
    }
    if (broken && !s->unshippable)
        lj_log(LJ_LOG_ERROR,
               "%s: SQLite wrote frames whose checksums do not hold (fixed in 3.50.2): a crash "
               "loses these commits and all behind them, and until the WAL restarts they are "
               "replicated by snapshots (run PRAGMA wal_checkpoint(TRUNCATE) at once, and upgrade "
               "SQLite)",
               db->path);
    fresh.saved.last_object_ns = created_ns;
    fresh.saved.snapshot_ns = created_ns;
    fresh.saved.snapshot_at = fresh.saved.at; /* the index begins behind the snapshot */
    s->verified_index = 0;                    /* that was of another generation */
    pthread_mutex_lock(&db->mutex);
    s->fresh = fresh;
    s->want_generation = false;
    s->unshippable = broken || past_layout;
    pthread_mutex_unlock(&db->mutex);
    return LJ_OK;
}

/* Which index the frozen state belongs to, and what has to be in the replica first. */
static lj_code locate(lj_shipper *s, const lj_freeze *f, uint64_t life_before, lj_position *ret_at,
                      uint64_t *ret_life, uint64_t *ret_frames, lj_wal_salt *ret_salt,
                      lj_error *err)
{
    lj_db *db = s->db;
    lj_code code = LJ_OK;
    pthread_mutex_lock(&db->mutex);
    lj_db_refresh_locked(db);
    const lj_chain *chain = &db->chain;
    /* of an empty WAL: nothing but the begin of one life may have come behind it, and that one must not be over (it could have
     * come and gone before the freeze): the state would get the index of a life whose predecessor it does not contain */
    bool next = db->session_life == life_before + 1 && !chain->sealed;
    bool current = f->frames == 0 ? db->session_life == life_before || next
                                  : lj_chain_has_life(chain, f->salt);
    if (!chain->active || !current) {
        code = lj_error_set(err, LJ_BUSY, "the WAL was restarted while it was being frozen");
        lj_error_retryable(err, true);
    } else {
        *ret_at = (lj_position){.index = chain->index};
        memcpy(ret_at->generation, chain->generation, LJ_GENERATION_MAX);
        const lj_life *life = &db->life;
        bool begun = f->frames == 0 &&
                     db->session_life != life_before; /* behind the snapshot from its first frame */
        /* other processes may have lengthened and ended it without our seeing it: then its end is in the chain */
        bool seen = life->known && life->number == db->session_life;
        uint64_t frames = LJ_MAX(seen ? life->frames : 0, chain->sealed ? chain->sealed_frames : 0);
        *ret_frames = f->frames != 0 || begun ? f->frames : frames;
        *ret_life = db->session_life;
        *ret_salt = f->frames != 0 ? f->salt : db->session_salt;
        /* an unused index may be taken over by another life: then all of that one is behind the snapshot */
        uint32_t page_size = f->frames != 0 ? f->page_size : life->page_size;
        ret_at->offset =
            *ret_frames > 0 && !chain->unused ? lj_wal_frame_offset(page_size, *ret_frames + 1) : 0;
    }
    pthread_mutex_unlock(&db->mutex);
    return code;
}

/*
 * The replica has everything up to these frames, and the position file knows the index: else a kill behind the snapshot
 * would leave a replica that is ahead of it (resume.c).
 */
static bool is_shipped_locked(const lj_db *db, const lj_position *at, uint64_t life,
                              uint64_t frames)
{
    if (strcmp(db->saved.at.generation, at->generation) != 0 || db->saved.at.index < at->index)
        return false;
    /* nobody may be able to go on with the index before it: a snapshot would hide what it wrote */
    if (db->saved.at.index == at->index && db->saved.mark_end != 0)
        return false;
    return life == 0 || db->shipped_life > life ||
           (db->shipped_life == life && db->shipped_frames >= frames);
}

#define SHIP_WAIT_NS   (30 * LJ_NS_PER_S)
#define STORE_CLOCK_NS (2 * LJ_NS_PER_S)

/* For news of the shipping task; with a limit, because a cancellation is not announced. */
static void wait_a_little_locked(lj_db *db)
{
    int64_t until_ns = lj_clock_mono_ns() + 100 * LJ_NS_PER_MS;
    struct timespec at = {.tv_sec = (time_t)(until_ns / LJ_NS_PER_S),
                          .tv_nsec = (long)(until_ns % LJ_NS_PER_S)};
    pthread_cond_timedwait(&db->cond, &db->mutex, &at);
}

static lj_code behind_locked(const lj_db *db, lj_error *err)
{
    lj_error_set(err, LJ_TIMEOUT, "snapshot: the replica is behind: %s",
                 db->ship_error.code != LJ_OK ? db->ship_error.message : "still shipping");
    return lj_error_retryable(err, true);
}

/* The shipping task does not wait for its next tick. */
static void wait_begins_locked(lj_shipper *s)
{
    s->snapshot_waits = true;
    s->db->flush_waiters++;
}

static void wait_ends_locked(lj_shipper *s)
{
    s->snapshot_waits = false;
    s->db->flush_waiters--;
}

/* Lets the shipping task bring the replica to the frozen state. */
static lj_code wait_until_shipped(lj_shipper *s, const lj_position *at, uint64_t life,
                                  uint64_t frames, lj_error *err)
{
    lj_db *db = s->db;
    int64_t deadline_ns = lj_clock_mono_ns() + SHIP_WAIT_NS;
    lj_code code = LJ_OK;
    pthread_mutex_lock(&db->mutex);
    wait_begins_locked(s);
    pthread_mutex_unlock(&db->mutex);
    lj_shipper_wake(db, 0);
    pthread_mutex_lock(&db->mutex);
    while (code == LJ_OK && !is_shipped_locked(db, at, life, frames)) {
        if (atomic_load(&s->cancel_snapshot) || !db->chain.active ||
            lj_clock_mono_ns() >= deadline_ns) {
            code = behind_locked(db, err);
            break;
        }
        wait_a_little_locked(db);
    }
    wait_ends_locked(s);
    pthread_mutex_unlock(&db->mutex);
    return code;
}

/*
 * A store that sets the times itself counts whole seconds, and its machines do not agree to the millisecond. A restore to a moment
 * at which the snapshot is there and a segment that it contains is not yet would put older pages over newer ones: so the
 * snapshot comes a clear time behind that segment.
 */
static lj_code wait_for_the_stores_clock(lj_shipper *s, lj_error *err)
{
    if ((lj_storage_features(s->storage) & LJ_STORAGE_SET_TIME) != 0)
        return LJ_OK;
    lj_db *db = s->db;
    lj_code code = LJ_OK;
    pthread_mutex_lock(&db->mutex);
    int64_t until_ns = db->shipped_ns != 0 ? db->shipped_ns + STORE_CLOCK_NS : 0;
    while (code == LJ_OK && lj_clock_mono_ns() < until_ns) {
        if (atomic_load(&s->cancel_snapshot))
            code = lj_error_set(err, LJ_CANCELLED, "the snapshot was cancelled");
        else
            wait_a_little_locked(db);
    }
    pthread_mutex_unlock(&db->mutex);
    return code;
}

static lj_code publish_periodic(lj_shipper *s, lj_image *image, uint64_t life_before, lj_error *err)
{
    lj_position at;
    uint64_t life = 0;
    uint64_t frames = 0;
    int64_t frozen_ns = lj_clock_wall_ns();
    lj_wal_salt salt;
    LJ_TRY(locate(s, lj_image_freeze(image), life_before, &at, &life, &frames, &salt, err));
    LJ_TRY(wait_until_shipped(s, &at, life, frames, err));
    LJ_TRY(wait_for_the_stores_clock(s, err));
    pthread_mutex_lock(&s->db->mutex);
    int64_t created_ns = LJ_MAX(frozen_ns, s->newest_object_ns);
    pthread_mutex_unlock(&s->db->mutex);
    lj_code code = put_snapshot(s, image, at.generation, at.index, frames, salt, created_ns, err);
    if (code == LJ_EXISTS)
        code = LJ_OK; /* the life could not roll over: this index has its snapshot */
    if (code != LJ_OK)
        return code;
    pthread_mutex_lock(&s->db->mutex);
    s->snapshot_noted = true;
    s->noted_ns = created_ns;
    s->noted_at = at;
    pthread_mutex_unlock(&s->db->mutex);
    lj_shipper_wake(s->db, 0);
    return LJ_OK;
}

/* Asks the shipping task for the next index if the current one has a snapshot, and in any case whether the replica is still ours. */
static lj_code roll_over(lj_shipper *s, lj_error *err)
{
    lj_db *db = s->db;
    int64_t deadline_ns = lj_clock_mono_ns() + SHIP_WAIT_NS;
    lj_code code = LJ_OK;
    pthread_mutex_lock(&db->mutex);
    s->rollover_wanted = true;
    wait_begins_locked(s);
    pthread_mutex_unlock(&db->mutex);
    lj_shipper_wake(db, 0);
    pthread_mutex_lock(&db->mutex);
    while (s->rollover_wanted && db->chain.active && !atomic_load(&s->cancel_snapshot) &&
           lj_clock_mono_ns() < deadline_ns)
        wait_a_little_locked(db);
    if (s->rollover_wanted && db->chain.active && !atomic_load(&s->cancel_snapshot))
        code = behind_locked(db, err); /* nobody could ask */
    wait_ends_locked(s);
    pthread_mutex_unlock(&db->mutex);
    return code;
}

lj_code lj_snapshot_periodic(lj_shipper *s, lj_error *err)
{
    lj_image *image = NULL;
    LJ_TRY(roll_over(s, err));
    pthread_mutex_lock(&s->db->mutex);
    uint64_t life_before = s->db->session_life;
    pthread_mutex_unlock(&s->db->mutex);
    LJ_TRY(begin_image(s, &image, err));
    lj_code code = publish_periodic(s, image, life_before, err);
    lj_image_end(image);
    return code;
}
