/*
 * base.h - macros, integer widths and helpers every layer uses.
 *
 * Layer: base (no domain knowledge, no I/O). Thread-safety: everything here is pure.
 */
#ifndef LJ_BASE_H
#define LJ_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define LJ_WARN_UNUSED       __attribute__((warn_unused_result))
#define LJ_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define LJ_CLEANUP(fn)       __attribute__((cleanup(fn)))

#define LJ_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define LJ_MIN(a, b)    ((a) < (b) ? (a) : (b))
#define LJ_MAX(a, b)    ((a) > (b) ? (a) : (b))

#define LJ_NS_PER_MS INT64_C(1000000)
#define LJ_NS_PER_S  INT64_C(1000000000)

/* Big-endian integers, as SQLite stores them on disk. */
static inline uint32_t lj_get_be32(const uint8_t *p)
{
    return ((uint32_t)p[0] << 24) | ((uint32_t)p[1] << 16) | ((uint32_t)p[2] << 8) | p[3];
}

static inline void lj_put_be32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

static inline uint16_t lj_get_be16(const uint8_t *p)
{
    return (uint16_t)((p[0] << 8) | p[1]);
}

/* For LJ_CLEANUP(lj_freep): frees what the pointer variable points to. */
void lj_freep(void *ptr_to_ptr);
/* For LJ_CLEANUP(lj_closep): closes a file descriptor variable that is >= 0. Keeps errno. */
void lj_closep(int *fd);

#endif
