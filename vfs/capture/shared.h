/*
 * shared.h - the page of shared memory in which the processes of one database agree on what is shipped and what is safe.
 *
 * `.NAME-litejoin/shared` holds two slots with a checksum each, so that a process killed in the middle of a store leaves the
 * older one valid, and a few words for news that need no order. Load, change and store happen under the page's lock (seat.h),
 * which is held for memory work alone; so they can happen under the WAL write lock. The chain in it also outlives all
 * processes: the next open compares it with the WAL and the file. After a power cut it may be old; every use of it then
 * is cross-checked with salts or file identity.
 *
 * Layer: capture. Thread-safety: the slots by the page's lock between processes and lj_db.mutex within one; the words are
 * atomic.
 */
#ifndef LJ_SHARED_H
#define LJ_SHARED_H

#include "vfs/base/error.h"
#include "vfs/capture/pending.h"

#define LJ_REASON_MAX 192
#define LJ_BREAK_MAX  400

/* What all processes of a database go by. One that has it open takes part (session.h); the uploader writes most of it. */
typedef struct {
    lj_chain chain;
    bool live; /* what is below is true: somebody decided how to go on, and nobody is deciding */
    uint64_t
        life; /* number of the current life of the WAL, the same in all processes; 0 = none yet */
    lj_wal_salt life_salt;
    lj_position pos;                       /* the next byte to ship */
    uint64_t shipped_life, shipped_frames; /* in the replica */
    uint64_t safe_life, safe_frames; /* in the replica, or in the snapshot that is being taken */
    uint64_t spool_bytes;            /* of all processes together */
    bool established;                /* the generation's first snapshot is in the replica */
    bool freezing;                   /* ... is being frozen: no restart in between */
    bool disturbed;                  /* ... and one had to be allowed all the same */
    bool broken;  /* the chain was given up: the uploader has to begin a new generation */
    bool not_wal; /* journal mode is not WAL: mode says which */
    char broken_reason[LJ_REASON_MAX];
    char last_break[LJ_BREAK_MAX];
    char mode[LJ_REASON_MAX];
    uint64_t attempts, failures;
    uint64_t snapshot_requests, snapshot_done, snapshot_failed;
    int64_t last_snapshot_ns;
    int64_t last_object_ns;
    uint32_t page_size; /* of what is spooled, 0 = not known */
    uint32_t uploader;  /* its process id, for messages only; 0 = none */
    uint64_t inode;     /* of the database file */
    uint64_t url_hash;  /* of the replica the session ships to ... */
    char url[256];      /* ... and its begin, for messages */
    lj_error ship_error, snapshot_error;
    lj_pending pending; /* the transaction that waits for the replica, of whichever process */
} lj_session;

typedef struct lj_shared lj_shared;

/* Maps `path`, creating it. *ret_shared is freed with lj_shared_close. */
LJ_WARN_UNUSED lj_code lj_shared_open(const char *path, lj_shared **ret_shared, lj_error *err);
void lj_shared_close(lj_shared *shared);
/* The newest valid slot; false when there is none. */
bool lj_shared_load(const lj_shared *shared, lj_session *ret_session);
void lj_shared_store(lj_shared *shared, const lj_session *session);
/* Another number after each store of any process: a cheap "did anything change?". */
uint64_t lj_shared_version(const lj_shared *shared);
/* The page was written by a build that lays it out in another way: only who is alone may store. */
bool lj_shared_foreign(const lj_shared *shared);

/* Words that are read and written without the lock. All begin as 0. */
typedef enum {
    LJ_WORD_STUCK,     /* the page's lock could not be had: the chain counts as broken */
    LJ_WORD_SLEEPING,  /* the uploader has nothing to do: the next commit rings its bell */
    LJ_WORD_CALLS,     /* counts what cannot wait for the uploader's next tick */
    LJ_WORD_IMAGE,     /* an lj_image_hold: the uploader's snapshot keeps locks on the database */
    LJ_WORD_YIELDS,    /* counts checkpoints that found these locks in their way ... */
    LJ_WORD_EXCLUSIVE, /* ... and locks of the whole file that did */
    LJ_WORD_COUNT,
} lj_shared_word;
uint32_t lj_shared_get(const lj_shared *shared, lj_shared_word word);
void lj_shared_set(lj_shared *shared, lj_shared_word word, uint32_t value);
/* Returns what was there before. */
uint32_t lj_shared_swap(lj_shared *shared, lj_shared_word word, uint32_t value);
void lj_shared_add(lj_shared *shared, lj_shared_word word);

#endif
