/*
 * walindex.c - see walindex.h. Everything is read through volatile words, so that the compiler reads memory once per use.
 */
#include "vfs/shim/walindex.h"

#include <string.h>

#define HEADER_BYTES 48u
#define AT_CHANGE    8u
#define AT_FLAGS     12u
#define AT_FRAMES    16u
#define AT_SALT      32u
#define AT_BACKFILL  96u
#define AT_MARKS     100u
#define AT_ATTEMPTED 128u

static uint32_t load(const volatile void *region, size_t at)
{
    return __atomic_load_n((const volatile uint32_t *)((const volatile uint8_t *)region + at),
                           __ATOMIC_RELAXED);
}

static void copy_header(const volatile void *region, size_t at, uint8_t out[HEADER_BYTES])
{
    for (size_t i = 0; i < HEADER_BYTES; i += 4) {
        uint32_t word = load(region, at + i);
        memcpy(out + i, &word, sizeof(word));
    }
}

static uint32_t word_at(const uint8_t *raw, size_t at)
{
    uint32_t word;
    memcpy(&word, raw + at, sizeof(word));
    return word;
}

bool lj_walindex_read(const volatile void *region, lj_walindex *ret_index)
{
    uint8_t first[HEADER_BYTES];
    uint8_t second[HEADER_BYTES];
    copy_header(region, 0, first);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    copy_header(region, HEADER_BYTES, second);
    if (memcmp(first, second, HEADER_BYTES) != 0 || first[AT_FLAGS] == 0)
        return false;
    const bool big_endian = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__;
    lj_wal_cksum sum = lj_wal_checksum(big_endian, (lj_wal_cksum){0, 0}, first, 40);
    if (sum.s1 != word_at(first, 40) || sum.s2 != word_at(first, 44))
        return false;
    uint16_t page_size;
    memcpy(&page_size, first + AT_FLAGS + 2, sizeof(page_size));
    *ret_index = (lj_walindex){
        .change = word_at(first, AT_CHANGE),
        .frames = word_at(first, AT_FRAMES),
        .db_pages = word_at(first, 20),
        .page_size = (page_size & 0xfe00u) + ((page_size & 1u) << 16),
        .cksum = {.s1 = word_at(first, 24), .s2 = word_at(first, 28)},
        .salt = {.salt1 = lj_get_be32(first + AT_SALT), .salt2 = lj_get_be32(first + AT_SALT + 4)},
    };
    memcpy(ret_index->raw, first, HEADER_BYTES);
    return true;
}

bool lj_walindex_read_whole(const lj_open *open, const volatile void *region,
                            lj_walindex *ret_index)
{
    unsigned repairs = atomic_load(&open->repairs);
    if (atomic_load(&open->unsummed) != 0 || !lj_walindex_read(region, ret_index))
        return false;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return atomic_load(&open->unsummed) == 0 && atomic_load(&open->repairs) == repairs;
}

bool lj_walindex_look(void *ctx, lj_wal_end *ret_end)
{
    const lj_walindex_view *view = ctx;
    lj_walindex index;
    if (!lj_walindex_read_whole(view->open, view->region, &index))
        return false;
    *ret_end = (lj_wal_end){.salt = index.salt,
                            .frames = index.frames,
                            .page_size = index.page_size,
                            .db_pages = index.db_pages};
    return true;
}

void lj_walindex_peek(const volatile void *region, lj_wal_salt *ret_salt, uint32_t *ret_frames)
{
    uint32_t salt[2] = {load(region, AT_SALT), load(region, AT_SALT + 4)};
    *ret_salt = (lj_wal_salt){.salt1 = lj_get_be32((const uint8_t *)&salt[0]),
                              .salt2 = lj_get_be32((const uint8_t *)&salt[1])};
    *ret_frames = load(region, AT_FRAMES);
}

static void store_header(volatile void *region, size_t at, const uint8_t raw[HEADER_BYTES])
{
    for (size_t i = 0; i < HEADER_BYTES; i += 4)
        __atomic_store_n((volatile uint32_t *)((volatile uint8_t *)region + at + i),
                         word_at(raw, i), __ATOMIC_RELAXED);
}

static void set_word(uint8_t *raw, size_t at, uint32_t word)
{
    memcpy(raw + at, &word, sizeof(word));
}

/* The header's checksum of itself, in the byte order of the machine. */
static void sum_up(uint8_t raw[HEADER_BYTES])
{
    const bool big_endian = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__;
    lj_wal_cksum own = lj_wal_checksum(big_endian, (lj_wal_cksum){0, 0}, raw, 40);
    set_word(raw, 40, own.s1);
    set_word(raw, 44, own.s2);
}

void lj_walindex_set_sum(sqlite3_file *file, const volatile void *region, lj_wal_cksum sum)
{
    uint8_t raw[HEADER_BYTES];
    volatile void *writable = (volatile void *)(uintptr_t)region;
    copy_header(region, 0, raw);
    set_word(raw, 24, sum.s1);
    set_word(raw, 28, sum.s2);
    sum_up(raw);
    store_header(writable, HEADER_BYTES, raw);
    file->pMethods->xShmBarrier(file);
    store_header(writable, 0, raw);
}

uint32_t lj_walindex_backfilled(const volatile void *region)
{
    return load(region, AT_BACKFILL);
}

uint32_t lj_walindex_attempted(const volatile void *region)
{
    return load(region, AT_ATTEMPTED);
}

uint32_t lj_walindex_mark(const volatile void *region, int reader)
{
    return load(region, AT_MARKS + 4u * (unsigned)reader);
}

void lj_walindex_set_mark(volatile void *region, int reader, uint32_t frames)
{
    __atomic_store_n(
        (volatile uint32_t *)((volatile uint8_t *)region + AT_MARKS + 4u * (unsigned)reader),
        frames, __ATOMIC_SEQ_CST);
}

static void store(volatile void *region, size_t at, uint32_t word)
{
    __atomic_store_n((volatile uint32_t *)((volatile uint8_t *)region + at), word,
                     __ATOMIC_SEQ_CST);
}

/* The second copy first: a reader that sees them differ waits. */
static void store_both(volatile void *region, const uint8_t raw[HEADER_BYTES])
{
    store_header(region, HEADER_BYTES, raw);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    store_header(region, 0, raw);
}

bool lj_walindex_blank(const volatile void *region)
{
    uint32_t first = load(region, 0);
    /* SQLite cuts a file that was left behind to three bytes, not to none, and these are of the header that was there */
    uint32_t any = ((const uint8_t *)&first)[3];
    for (size_t at = 4; at < 2 * HEADER_BYTES; at += 4)
        any |= load(region, at);
    return any == 0;
}

void lj_walindex_make(volatile void *region)
{
    uint8_t raw[HEADER_BYTES] = {0};
    set_word(raw, 0, LJ_WAL_VERSION);
    raw[AT_FLAGS] = 1; /* isInit */
    sum_up(raw);
    for (int i = 1; i < LJ_WALINDEX_READERS; i++)
        store(region, AT_MARKS + 4u * (unsigned)i, LJ_WALINDEX_UNUSED);
    store_both(region, raw);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void lj_walindex_restart(volatile void *region, const lj_walindex *now, lj_wal_salt salt)
{
    uint8_t raw[HEADER_BYTES];
    memcpy(raw, now->raw, sizeof(raw));
    set_word(raw, AT_FRAMES, 0);
    lj_put_be32(raw + AT_SALT, salt.salt1);
    lj_put_be32(raw + AT_SALT + 4, salt.salt2);
    sum_up(raw);
    store_both(region, raw);
    store(region, AT_BACKFILL, 0);
    store(region, AT_ATTEMPTED, 0);
    store(region, AT_MARKS + 4, 0);
    for (int i = 2; i < LJ_WALINDEX_READERS; i++)
        store(region, AT_MARKS + 4u * (unsigned)i, LJ_WALINDEX_UNUSED);
}
