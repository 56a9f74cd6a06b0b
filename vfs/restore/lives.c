/*
 * lives.c - see lives.h.
 */
#include "vfs/restore/lives.h"

#include <stdlib.h>

#define SIZE_FIRST 64u

void lj_lives_clear(lj_lives *lives)
{
    free(lives->table);
    *lives = (lj_lives){.count = 0};
}

/* Where these salts are, or belong. Both salts 0 would be a free place: such a life is never found, which costs a check. */
static lj_wal_salt *place(lj_wal_salt *table, size_t size, lj_wal_salt salt)
{
    size_t at = (salt.salt1 * UINT32_C(2654435761)) ^ salt.salt2;
    lj_wal_salt none = {0, 0};
    for (at &= size - 1; !lj_wal_salt_eq(table[at], salt) && !lj_wal_salt_eq(table[at], none);)
        at = (at + 1) & (size - 1);
    return &table[at];
}

static lj_code make_room(lj_lives *lives, lj_error *err)
{
    if (lives->count * 2 < lives->size)
        return LJ_OK;
    size_t size = lives->size == 0 ? SIZE_FIRST : lives->size * 2;
    lj_wal_salt *table = calloc(size, sizeof(*table));
    if (table == NULL)
        return lj_error_nomem(err);
    for (size_t i = 0; i < lives->size; i++)
        *place(table, size, lives->table[i]) = lives->table[i];
    free(lives->table);
    lives->table = table;
    lives->size = size;
    return LJ_OK;
}

/*
 * SQLite restarted the WAL so many times between the two, in this direction. Only a first salt that began at random tells: a
 * TRUNCATE checkpoint of a database without a WAL begins at 0 and counts from there, each time anew.
 */
static bool restarted_from(const lj_wal_header *later, const lj_wal_header *earlier)
{
    uint32_t restarts = earlier->checkpoint - later->checkpoint;
    if (later->salt.salt1 == later->checkpoint)
        return false;
    return later->checkpoint < earlier->checkpoint &&
           earlier->salt.salt1 - later->salt.salt1 == restarts;
}

lj_code lj_lives_next(lj_lives *lives, const lj_wal_header *header, bool *ret_same, lj_error *err)
{
    bool first = lives->count == 0;
    if (!first && lj_wal_salt_eq(header->salt, lives->last.salt)) {
        *ret_same = true;
        return LJ_OK;
    }
    LJ_TRY(make_room(lives, err));
    lj_wal_salt *at = place(lives->table, lives->size, header->salt);
    bool none = header->salt.salt1 == 0 && header->salt.salt2 == 0;
    if (!first && !none && lj_wal_salt_eq(*at, header->salt))
        return lj_error_set(err, LJ_CORRUPT,
                            "this WAL was already replayed under an earlier index");
    if (!first && restarted_from(header, &lives->last))
        return lj_error_set(err, LJ_CORRUPT,
                            "this WAL is older than the one of the index before it");
    *at = header->salt;
    lives->count++;
    lives->last = *header;
    *ret_same = false;
    return LJ_OK;
}
