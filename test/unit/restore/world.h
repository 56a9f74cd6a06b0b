/*
 * world.h - a made-up database with its history for restore tests: a snapshot, WAL indexes made frame by frame, and what
 * the database was after every transaction.
 *
 * Only page 1 looks like SQLite (magic and page size); all other bytes are random.
 */
#ifndef LJ_WORLD_H
#define LJ_WORLD_H

#include "test/unit/restore/memory_storage.h"

#include "vfs/wal/wal.h"

#define WORLD_GENERATION "0123456789abcdef"
#define WORLD_STATES_MAX 256

typedef struct {
    uint8_t *bytes;
    size_t len;
    uint32_t index;  /* the WAL index the transaction is in */
    uint64_t offset; /* where it ends */
} world_state;

typedef struct {
    uint32_t page_size;
    bool big_endian;
    bool encrypted; /* page 1 has no header that could be read */
    unsigned seed;
    uint8_t *db; /* now */
    uint32_t pages;
    world_state states[WORLD_STATES_MAX]; /* [0] is the snapshot */
    size_t state_count;
    /* the WAL index being written */
    uint32_t index;
    lj_wal_header header;
    lj_wal_cksum sum;
    uint8_t *wal;
    size_t wal_len;
} world;

static inline uint32_t world_random(world *w, uint32_t below)
{
    return (uint32_t)rand_r(&w->seed) % below;
}

static inline void world_fill_page(world *w, uint32_t pgno)
{
    uint8_t *page = w->db + (size_t)(pgno - 1) * w->page_size;
    for (uint32_t i = 0; i < w->page_size; i++)
        page[i] = (uint8_t)(rand_r(&w->seed) % 7); /* compressible */
    if (pgno == 1 && !w->encrypted) {
        memcpy(page, "SQLite format 3", 16);
        page[16] = (uint8_t)(w->page_size >> 8);
        page[17] = (uint8_t)(w->page_size >> 16);
    }
}

static inline void world_remember(world *w)
{
    size_t len = (size_t)w->pages * w->page_size;
    assert_true(w->state_count < WORLD_STATES_MAX);
    world_state *state = &w->states[w->state_count++];
    *state = (world_state){
        .bytes = malloc(len + 1), .len = len, .index = w->index, .offset = w->wal_len};
    assert_non_null(state->bytes);
    memcpy(state->bytes, w->db, len);
}

#define WORLD_PAGES_MAX 64u

static inline void world_open_as(world *w, uint32_t page_size, bool big_endian, uint32_t pages,
                                 bool encrypted)
{
    *w = (world){.page_size = page_size,
                 .big_endian = big_endian,
                 .encrypted = encrypted,
                 .seed = 7 + page_size};
    w->db = calloc(WORLD_PAGES_MAX, page_size);
    w->wal = malloc((size_t)4 << 20);
    assert_non_null(w->db);
    assert_non_null(w->wal);
    w->pages = pages;
    for (uint32_t pgno = 1; pgno <= pages; pgno++)
        world_fill_page(w, pgno);
    world_remember(w);
}

static inline void world_open(world *w, uint32_t page_size, bool big_endian, uint32_t pages)
{
    world_open_as(w, page_size, big_endian, pages, false);
}

static inline void world_close(world *w)
{
    for (size_t i = 0; i < w->state_count; i++)
        free(w->states[i].bytes);
    free(w->db);
    free(w->wal);
    *w = (world){0};
}

static inline void world_begin_index(world *w, uint32_t index)
{
    w->index = index;
    w->header = (lj_wal_header){.big_endian = w->big_endian,
                                .page_size = w->page_size,
                                .checkpoint = index,
                                .salt = {.salt1 = 1000 + index, .salt2 = 77 * index}};
    lj_wal_header_write(&w->header, w->wal);
    w->sum = w->header.cksum;
    w->wal_len = LJ_WAL_HEADER_BYTES;
}

static inline void world_frame(world *w, uint32_t pgno, uint32_t db_pages)
{
    const uint8_t *page = w->db + (size_t)(pgno - 1) * w->page_size;
    lj_wal_frame_write(&w->header, &w->sum, pgno, db_pages, page, w->wal + w->wal_len);
    memcpy(w->wal + w->wal_len + LJ_WAL_FRAME_HEADER_BYTES, page, w->page_size);
    w->wal_len += lj_wal_frame_bytes(w->page_size);
}

/* One transaction that leaves the database with `pages` pages: new ones are written, some old ones too. */
static inline void world_transaction(world *w, uint32_t pages)
{
    uint32_t old_pages = w->pages;
    w->pages = pages;
    for (uint32_t pgno = old_pages + 1; pgno <= pages; pgno++) {
        world_fill_page(w, pgno);
        world_frame(w, pgno, 0);
    }
    for (unsigned i = 0; i < 3; i++) { /* may hit a page twice: the later frame counts */
        uint32_t pgno = 1 + world_random(w, pages);
        world_fill_page(w, pgno);
        world_frame(w, pgno, i == 2 ? pages : 0);
    }
    world_remember(w);
}

static inline void world_put_snapshot(memory_replica *m, uint32_t index, const world_state *state,
                                      int64_t created_ns)
{
    char key[LJ_NAME_MAX];
    lj_name_snapshot(WORLD_GENERATION, index, key);
    memory_put_lz4(m, key, state->bytes, state->len, created_ns);
}

/* Bytes from..to of the WAL that is being written, as a segment. */
static inline void world_put_segment(memory_replica *m, const world *w, uint64_t from, uint64_t to,
                                     int64_t created_ns)
{
    char key[LJ_NAME_MAX];
    lj_position at = {.generation = WORLD_GENERATION, .index = w->index, .offset = from};
    lj_name_wal(&at, key);
    memory_put_lz4(m, key, w->wal + from, (size_t)(to - from), created_ns);
}

#endif
