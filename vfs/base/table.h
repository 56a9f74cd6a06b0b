/*
 * table.h - a hash table of objects that carry their own links: finding one of ten thousand costs a few steps, adding one
 * allocates nothing.
 *
 * A fixed number of chains, which suits what a process has open: with 10,000 objects a chain has ten.
 *
 * Layer: base. Thread-safety: none; guarded by its owner.
 */
#ifndef LJ_TABLE_H
#define LJ_TABLE_H

#include "vfs/base/base.h"

#define LJ_TABLE_CHAINS 1024u /* a power of two */

typedef struct lj_link lj_link;
struct lj_link {
    lj_link *next;
    uint64_t hash;
    void *owner; /* what the link is a part of; NULL: not in a table */
};

typedef struct {
    lj_link *chains[LJ_TABLE_CHAINS];
} lj_table;

/* Adds the link of `owner` in front of those with the same hash. */
void lj_table_add(lj_table *table, lj_link *link, void *owner, uint64_t hash);
/* Takes it out; nothing happens to one that is in no table. */
void lj_table_remove(lj_table *table, lj_link *link);
/* The first link with this hash, and the next one behind it; NULL = no more. The caller compares what the hash stands for. */
lj_link *lj_table_first(const lj_table *table, uint64_t hash);
lj_link *lj_table_next(const lj_link *link);

/* Hashes that spread neighbours evenly. */
uint64_t lj_hash_number(uint64_t number);
uint64_t lj_hash_text(const char *text);

#endif
