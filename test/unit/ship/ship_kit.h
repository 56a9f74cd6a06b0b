/*
 * ship_kit.h - a shipper over a real folder, with a log of what it asked of the store, requests that fail on demand, and a
 * database file that freezes as the test says.
 */
#ifndef LJ_TEST_SHIP_KIT_H
#define LJ_TEST_SHIP_KIT_H

#include "test/unit/capture/kit.h"

#include "vfs/restore/restore.h"
#include "vfs/ship/internal.h"

#define KIT_PAGE 1024u
#define KIT_GEN  "00000000000000aa"

typedef struct ship_kit ship_kit;
struct ship_kit {
    kit_dir dir;
    kit_wal wal;
    lj_image_guard guard;
    lj_freeze freeze; /* what the fake database file freezes */
    lj_code freeze_code;
    void (*during_freeze)(ship_kit *kit); /* called in the middle of a freeze, may be NULL */
    lj_storage *files;                    /* the folder itself */
    lj_db *db;
    lj_shipper *s;

    pthread_mutex_t mutex; /* guards what is below */
    char log[16384];       /* "PUT key\n" and so on, without those LIST that succeed */
    char fail_on[80];      /* requests whose line contains this fail; "" = none */
    lj_code fail_code;     /* ... with this, LJ_OK: with LJ_UNAVAILABLE */
    bool put_then_fail;    /* a failing PUT does its work: only the answer is lost */
    void (*before)(ship_kit *kit, const char *line); /* called before each request, may be NULL */
};

/* A database file of 3 pages in version 0, an empty WAL, and a shipper whose tasks nobody wakes. */
void ship_kit_begin(ship_kit *kit);
/* The same with a scheduler that really runs, and these intervals. */
void ship_kit_begin_live(ship_kit *kit, int64_t sync_interval_ns);
/* What is frozen next: the WAL up to so many frames, with all of it in the database file already. */
void ship_kit_freeze_at(ship_kit *kit, uint64_t frames);
void ship_kit_end(ship_kit *kit);

/* As if generation KIT_GEN was replicated up to `at` of index `index`. */
void ship_kit_replicating(ship_kit *kit, uint32_t index);
/* The life of the WAL ends, and the next one, with this salt, has a commit. */
void ship_kit_next_life(ship_kit *kit, uint32_t salt);
/*
 * ship_kit_begin, and then: index 4 has its snapshot and a segment. With the store away its second commit went to the spool, and the
 * lives behind it, but for the last one, which is in the WAL. The store is back.
 */
void ship_kit_begin_spooled(ship_kit *kit, unsigned lives);
/* How many files of the spool have a name that contains `part`; they are removed when asked for. */
unsigned ship_kit_spooled(const ship_kit *kit, const char *part, bool remove_them);
/* Restores the newest state to a file of the folder. */
void ship_kit_restore(ship_kit *kit, lj_restore_result *ret_result);
/* Compresses and stores `len` bytes under that name with that time (0 = now). */
void ship_kit_put(ship_kit *kit, const char *key, const void *data, size_t len, int64_t created_ns);
/* The object's content, decompressed; free() it. Fails the test when it is not there. */
uint8_t *ship_kit_get(ship_kit *kit, const char *key, size_t *ret_len);
bool ship_kit_has(ship_kit *kit, const char *key);
/* Bytes from..to-1 of the WAL file; free() them. */
uint8_t *ship_kit_wal_bytes(const ship_kit *kit, uint64_t from, uint64_t to);
void ship_kit_fail_on(ship_kit *kit, const char *part);
/* The log so far, and from here on an empty one; valid until the next call. */
const char *ship_kit_log(ship_kit *kit);

#endif
