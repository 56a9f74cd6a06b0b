/*
 * session_kit.h - several lj_db objects on one database, as several processes have them. Their ship tasks are played by the tests;
 * threads run as in a process of each.
 */
#ifndef SESSION_KIT_H
#define SESSION_KIT_H

#include "test/unit/capture/kit.h"

#include "vfs/capture/session.h"

#define PAGE 1024u
#define GEN  "00000000000000aa"

typedef struct {
    kit_dir dir;
    kit_wal wal;
    lj_db *a, *b;
} fixture;

/* A database as a process has it, with the WAL of the fixture in it. */
static inline lj_db *process(fixture *f, const lj_db_options *options)
{
    lj_db *db = kit_db(&f->dir, options);
    db->has_opened_identity = lj_identity_of(f->dir.db_path, &db->opened_identity);
    lj_db_ready(db, NULL, NULL);
    return db;
}

/* `a` uploads generation GEN and has shipped `shipped` of `frames` frames; `b` stands by. */
static inline void begin(fixture *f, unsigned frames, unsigned shipped)
{
    kit_dir_make(&f->dir);
    kit_db_file(f->dir.db_path, PAGE, 3, 0);
    kit_wal_begin(&f->wal, f->dir.wal_path, PAGE, 1);
    f->a = process(f, NULL);
    lj_saved_position saved = {.at = {.generation = GEN}, .page_size = PAGE};
    lj_error err = LJ_ERROR_INIT;
    lj_db_enter(f->a);
    f->a->chain = (lj_chain){.active = true};
    memcpy(f->a->chain.generation, GEN, sizeof(GEN));
    f->a->pos = saved.at;
    f->a->broken = false;
    f->a->established = true;
    f->a->state = LJ_DB_REPLICATING;
    lj_db_leave(f->a);
    kit_wal_commits(&f->wal, frames, 3, 1);
    kit_wal_publish(&f->wal, f->a, 3);
    if (shipped > 0) {
        saved.at.offset = lj_wal_frame_offset(PAGE, shipped + 1);
        saved.salt = f->wal.header.salt;
        lj_db_shipped(f->a, &saved.at, f->a->life.number, shipped);
    }
    assert_ok(lj_saved_position_store(f->dir.position_path, &saved, true, &err), &err);
    f->b = process(f, NULL);
    kit_wal_publish(&f->wal, f->b, 3);
}

static inline void end(fixture *f)
{
    lj_db_quiet(f->b);
    lj_db_free(f->b);
    if (f->a != NULL) {
        lj_db_quiet(f->a);
        lj_db_free(f->a);
    }
    kit_dir_remove(&f->dir);
}

#endif
