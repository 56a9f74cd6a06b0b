/*
 * table.c - see table.h.
 */
#include "vfs/base/table.h"

static lj_link **chain_of(lj_table *table, uint64_t hash)
{
    return &table->chains[hash & (LJ_TABLE_CHAINS - 1)];
}

void lj_table_add(lj_table *table, lj_link *link, void *owner, uint64_t hash)
{
    lj_link **chain = chain_of(table, hash);
    *link = (lj_link){.next = *chain, .hash = hash, .owner = owner};
    *chain = link;
}

void lj_table_remove(lj_table *table, lj_link *link)
{
    if (link->owner == NULL)
        return;
    lj_link **at = chain_of(table, link->hash);
    while (*at != NULL && *at != link)
        at = &(*at)->next;
    if (*at == link)
        *at = link->next;
    *link = (lj_link){.next = NULL};
}

static lj_link *same_hash(lj_link *link, uint64_t hash)
{
    while (link != NULL && link->hash != hash)
        link = link->next;
    return link;
}

lj_link *lj_table_first(const lj_table *table, uint64_t hash)
{
    return same_hash(table->chains[hash & (LJ_TABLE_CHAINS - 1)], hash);
}

lj_link *lj_table_next(const lj_link *link)
{
    return same_hash(link->next, link->hash);
}

/* The finalizer of MurmurHash3: every bit of the input moves half of the output. */
uint64_t lj_hash_number(uint64_t number)
{
    number ^= number >> 33;
    number *= UINT64_C(0xff51afd7ed558ccd);
    number ^= number >> 33;
    number *= UINT64_C(0xc4ceb9fe1a85ec53);
    return number ^ (number >> 33);
}

/* FNV-1a, finished as above. */
uint64_t lj_hash_text(const char *text)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (; *text != 0; text++)
        hash = (hash ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
    return lj_hash_number(hash);
}
