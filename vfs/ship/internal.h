/*
 * internal.h - the shipper's object, shared by the files of vfs/ship only.
 *
 *   shipper.c   the shipping task: order of work, ticks, backoff
 *   upload.c    one segment: key, PUT if-absent, what to do when it is already there
 *   endmark.c   the object that ends an index, before the next one begins
 *   takeback.c  objects that may hold a transaction whose COMMIT failed
 *   resume.c    does the replica agree with the position: once per open, and after a rest
 *   rollover.c  the current life of the WAL goes on under the next index, so that a snapshot gets one of its own
 *   snapshot.c  freeze, PUT, hand the result to the shipping task
 *   snapshot_task.c  when one is due, and what follows it
 *   ahead_task.c  frames are copied for the spool before the WAL restarts
 *   retention.c what may be deleted, and in which order
 *   salvage.c   what a database that is gone had not shipped yet
 */
#ifndef LJ_SHIP_INTERNAL_H
#define LJ_SHIP_INTERNAL_H

#include <stdatomic.h>

#include "vfs/capture/walfile.h"
#include "vfs/replica/inventory.h"
#include "vfs/ship/scheduler.h"
#include "vfs/ship/segment.h"
#include "vfs/ship/shipper.h"
#include "vfs/storage/auth/crypto.h"

/* What a first snapshot of a generation leaves for the shipping task. */
typedef struct {
    bool pending;
    lj_saved_position saved; /* the position to go on from */
    uint64_t life, frames;   /* what the snapshot contains */
} lj_new_generation;

#define LJ_STRAYS_MAX  4u
#define LJ_REVOKED_MAX 4u

/* An object as it was sent. */
typedef struct {
    lj_position at;
    uint64_t number; /* of its transaction (capture/pending.h) */
    bool
        whole; /* read to its end: the store may have it; the fields below are those of all its bytes */
    uint64_t bytes;
    uint8_t hash[LJ_SHA256_BYTES];
    unsigned looks; /* how often its key was looked at since the transaction was withdrawn */
    int64_t look_ns;
} lj_sent_object;

/* A source that takes the hash of what passes. */
typedef struct {
    lj_source *inner;
    lj_sent_object *object;
    lj_sha256_state *sha;
} lj_sent_source;

struct lj_shipper {
    lj_db *db;
    lj_storage *storage;
    lj_image_guard *guard;
    lj_dbfile dbfile;
    lj_task ship_task;
    lj_task snapshot_task;
    lj_task ahead_task; /* capture/ahead.h */
    atomic_bool cancel_snapshot;

    /* the shipping task's own */
    lj_saved_position saved;
    bool loaded;     /* saved was taken over from the attach */
    bool unsaved;    /* the position file is behind `saved` */
    int64_t sync_ns; /* monotonic: the position file is to be synced then; 0 = it is */
    bool resumed;    /* the replica was compared with `saved` */
    int64_t agreed_mono_ns, agreed_wall_ns; /* when the replica last was as `saved` says */
    int64_t missing_since_ns; /* monotonic: it did not list what it had acknowledged; 0 = it did */
    lj_new_generation begun;  /* taken over; told to the database once the position file has it */
    lj_walfile wal;
    unsigned failures;    /* in a row */
    lj_position last_put; /* the segment put last; "" generation: none by this process */
    lj_position
        unknown_at;      /* a segment that was sent without an answer ("" generation: none) ... */
    uint64_t unknown_to; /* ... and where it ends */
    uint64_t
        pending; /* the transaction that waits in the segment that is sent now, 0 = none (capture/pending.h) */
    lj_sent_object attempt;                 /* the newest object with such a transaction */
    lj_sent_object revoked[LJ_REVOKED_MAX]; /* those whose transaction was withdrawn since */
    unsigned revoked_count;

    /* guarded by db->mutex */
    char disowned
        [LJ_GENERATION_MAX]; /* another writer's, to be taken out of the lineage; "" = none */
    bool unshippable;        /* commits behind the newest snapshot need another one (snapshot.c) */
    bool want_generation;    /* the snapshot task has to begin a new one */
    lj_new_generation fresh;
    bool
        rollover_wanted; /* the snapshot task wants the current life to go on under the next index */
    bool snapshot_waits; /* one of the flush_waiters is the snapshot task */
    bool snapshot_noted; /* a periodic snapshot is to be written into the position file */
    int64_t noted_ns;
    lj_position noted_at;
    int64_t snapshot_not_before_ns; /* monotonic: backoff of the snapshot task */
    int64_t rest_until_ns;          /* monotonic: no snapshot of the same life before ... */
    uint64_t rest_life; /* ... 0 = none: its frames can be replicated by snapshots alone */
    int64_t
        store_not_before_ns; /* monotonic: the store asked for no request before (Retry-After) */
    int64_t
        newest_object_ns; /* no object we know of is newer, nor one that was only tried to be put */
    bool times_known;     /* ... and the replica has none that is, by a listing of this open */
    int64_t snapshot_timer_ns; /* monotonic: the interval ends that long behind it at the latest */

    /* the snapshot task's own */
    unsigned snapshot_failures;
    unsigned lost_images; /* in a row: other processes needed the locks of the image (image.h) */
    bool retention_due;   /* a snapshot was taken since retention was last enforced */
    unsigned retention_failures;
    int64_t retention_not_before_ns; /* monotonic */
    /* generations whose first snapshot may be in the replica although its put failed, oldest first */
    char strays[LJ_STRAYS_MAX][LJ_GENERATION_MAX];
    unsigned stray_count;
    unsigned stray_looks;    /* how often they were looked for ... */
    int64_t stray_look_ns;   /* ... and when that is due again (monotonic) */
    uint32_t verified_index; /* snapshot that was read back whole, +1; 0 = none */
};

/* What the newest snapshot contains: written into the position file or still on its way there. Caller holds db->mutex. */
static inline const lj_position *lj_newest_snapshot_locked(const lj_shipper *s)
{
    return s->snapshot_noted ? &s->noted_at : &s->db->saved.snapshot_at;
}

/* upload.c: ships from..to of the image in fd (a -wal or a spool file) as the next segment and moves s->saved.at. */
LJ_WARN_UNUSED lj_code lj_upload_segment(lj_shipper *s, int fd, const lj_wal_header *header,
                                         uint64_t to, int64_t commit_ns, lj_error *err);
/* takeback.c: `inner` with the hash of what is read from it in *object. The caller ends it; both outlive the source. */
LJ_WARN_UNUSED lj_code lj_sent_source_begin(lj_sent_source *h, lj_source *inner,
                                            lj_sent_object *object, lj_source *ret_source,
                                            lj_error *err);
void lj_sent_source_end(lj_sent_source *h);
/* Takes note of what was sent for a transaction that was withdrawn since: it is not repeated. LJ_CONFLICT as below. */
LJ_WARN_UNUSED lj_code lj_takeback_note(lj_shipper *s, lj_error *err);
/* Takes note of withdrawn transactions and looks at their keys when it is time. LJ_CONFLICT: the chain is to be broken. */
LJ_WARN_UNUSED lj_code lj_takeback_work(lj_shipper *s, lj_error *err);
/* Deletes the object at that place if it is one of a withdrawn transaction. */
LJ_WARN_UNUSED lj_code lj_takeback_remove(lj_shipper *s, const lj_position *at, bool *ret_removed,
                                          lj_error *err);
/* When lj_takeback_work has something to look at, or LJ_TASK_IDLE. */
int64_t lj_takeback_due(const lj_shipper *s);
/*
 * endmark.c: puts the end mark that s->saved asks for, if any: before the first object of an index (a segment or a snapshot).
 * LJ_CONFLICT: another writer went on with the index. s->saved changes, and is not written.
 */
LJ_WARN_UNUSED lj_code lj_end_mark(lj_shipper *s, lj_error *err);
/*
 * resume.c: LJ_OK when the replica may be continued at s->saved.at; LJ_CONFLICT when not (the message is the reason, the
 * generation is disowned).
 */
LJ_WARN_UNUSED lj_code lj_resume_check(lj_shipper *s, lj_error *err);
/* The same once per open, when nothing was shipped yet: an object at s->saved.at that nothing local can be is a conflict, too. */
LJ_WARN_UNUSED lj_code lj_resume_open(lj_shipper *s, lj_error *err);
/*
 * resume.c: before a put: the same, if nothing was heard of the generation for so long that another writer may have gone on and
 * deleted what would have told us. A few requests, whatever the generation's size; none when the last put is fresh.
 */
LJ_WARN_UNUSED lj_code lj_resume_after_rest(lj_shipper *s, lj_error *err);
/* resume.c: an object was put, or the replica compared. */
void lj_resume_agreed(lj_shipper *s);
/* resume.c: whether what a listing shows of the generation is no more than what `saved` knows of. LJ_CONFLICT with the reason. */
LJ_WARN_UNUSED lj_code lj_resume_agree(const lj_generation_info *found,
                                       const lj_saved_position *saved, lj_error *err);
/*
 * resume.c: somebody else's object stands at `at` in our generation: disowns it, and sets LJ_CONFLICT with the end of the other and
 * our own in the message (asks the store for the former).
 */
lj_code lj_ship_conflict(lj_shipper *s, const lj_position *at, lj_error *err);
/* resume.c: the current generation is no longer ours to delete in. Any task. */
void lj_ship_disown(lj_shipper *s, const char *generation);
/*
 * rollover.c: in the shipping task, when the snapshot task asked for it: the next index, if the current one has a snapshot; and in any
 * case what lj_resume_after_rest asks, and the end mark. LJ_OK: a snapshot may be put.
 */
LJ_WARN_UNUSED lj_code lj_rollover(lj_shipper *s, lj_error *err);
/* save.c: writes s->saved if it changed. */
LJ_WARN_UNUSED lj_code lj_ship_save(lj_shipper *s, lj_error *err);
/* Which of this process's lives an index is; 0 for one from before. */
uint64_t lj_ship_life_of(const lj_chain *chain, const lj_life *life, uint32_t index);
/*
 * Tells the database of an acknowledgement that could not be written into the position file at first, when it is written now.
 * `known` is the position the database knows, looked at together with `chain` and `life`.
 */
void lj_ship_tell(lj_shipper *s, const lj_chain *chain, const lj_life *life,
                  const lj_position *known);
/*
 * Gets an object and unpacks it into `content`, to its checksum. LJ_CORRUPT: it is not one whole LZ4 frame; else the errors of
 * the store and of `content`.
 */
LJ_WARN_UNUSED lj_code lj_ship_read(lj_shipper *s, const char *key, lj_sink *content,
                                    lj_error *err);
/* How many bytes it has, unpacked. */
LJ_WARN_UNUSED lj_code lj_ship_content_bytes(lj_shipper *s, const char *key, uint64_t *ret_bytes,
                                             lj_error *err);
/* An object that is there already was taken as ours: what follows it must not be older. *ns becomes its time if that is later. */
LJ_WARN_UNUSED lj_code lj_ship_adopted_ns(lj_shipper *s, const char *key, int64_t *ns,
                                          lj_error *err);
/* An object with that time is going to be put: whatever becomes of it, the next generation begins later. */
void lj_ship_note_time(lj_shipper *s, int64_t created_ns);
/* What was saved while a COMMIT waited is synced. A failure is logged. */
void lj_ship_sync_position(lj_shipper *s);
/* shipper.c: ships what the database knows of, the spool first. Other results are those of the first object that failed. */
LJ_WARN_UNUSED lj_code lj_ship_all(lj_shipper *s, lj_error *err);
/*
 * shipper.c: when to try again after `failures` in a row, of either task. Who waits for a flush is not kept waiting by our backoff,
 * but what the store asked for holds for everybody. Caller holds db->mutex.
 */
int64_t lj_ship_retry_at_locked(lj_shipper *s, unsigned failures, const lj_error *err);
/* snapshot_task.c: the task itself, and when it is due (LJ_TASK_IDLE: nothing changed). Caller holds db->mutex. */
int64_t lj_snapshot_run(lj_task *task);
int64_t lj_snapshot_due_locked(const lj_shipper *s);
/* Before this moment none is taken unless somebody waits: backoff, and the rest of a life that cannot be shipped. */
int64_t lj_snapshot_allowed_locked(const lj_shipper *s);
/* ahead_task.c */
int64_t lj_ahead_task_run(lj_task *task);
void lj_ahead_task_wake(lj_db *db);
/* snapshot.c */
LJ_WARN_UNUSED lj_code lj_snapshot_first(lj_shipper *s, lj_error *err);
LJ_WARN_UNUSED lj_code lj_snapshot_periodic(lj_shipper *s, lj_error *err);
/*
 * Once the replica has a generation: removes what earlier attempts at one may have left there. When to look again, because a
 * request may arrive late, or LJ_TASK_IDLE.
 */
int64_t lj_snapshot_drop_strays(lj_shipper *s);
/* Whether a put that failed so may all the same have been done, or still be on its way to the store. */
bool lj_ship_outcome_unknown(const lj_error *err);
/* retention.c: one round. A generation that turns out to have another writer is given up. */
LJ_WARN_UNUSED lj_code lj_retention_enforce(lj_shipper *s, lj_error *err);
/* shipper.c: time until the next try after `failures` in a row: exponential with full jitter, or what the store asked for. */
int64_t lj_backoff_ns(unsigned failures, const lj_error *err);

#endif
