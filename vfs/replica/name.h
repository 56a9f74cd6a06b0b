/*
 * name.h - object names of the Litestream v0.3 layout and positions in it.
 *
 *   generations/<GEN>/snapshots/<INDEX>.snapshot.lz4
 *   generations/<GEN>/wal/<INDEX>_<OFFSET>.wal.lz4
 *
 * GEN is 16 lowercase hex digits, INDEX and OFFSET 8 (the reader also takes 9..16 digits of OFFSET, as v0.5 does; the
 * writer never makes them). INDEX counts the lives of the WAL file (0..2^31-1), OFFSET is the byte offset of the segment's
 * first byte in the uncompressed WAL: 0 or 32 + k * (24 + page size).
 *
 * Layer: replica (pure). Source: replica-format section 1.
 */
#ifndef LJ_NAME_H
#define LJ_NAME_H

#include "vfs/base/error.h"

#define LJ_GENERATION_MAX 17u /* 16 hex digits and NUL */
#define LJ_INDEX_MAX      0x7fffffffu
#define LJ_OFFSET_MAX                                                                              \
    UINT64_C(0xffffffff) /* what an 8-digit name can say; larger is invisible to v0.3.13 */
#define LJ_PAST_LAYOUT_TEXT "the WAL passed 4 GiB, the largest offset of the layout"
#define LJ_NAME_MAX         96u

/* A place in a replica: byte `offset` of WAL life `index` of `generation`. */
typedef struct {
    char generation[LJ_GENERATION_MAX]; /* "" = none */
    uint32_t index;
    uint64_t offset;
} lj_position;

#define LJ_POSITION_TEXT_MAX 48u
/* "0123456789abcdef/00000001:4152" (index in hex, offset in decimal), or "-" without a generation. */
void lj_position_format(const lj_position *position, char out[LJ_POSITION_TEXT_MAX]);
/* Reads what lj_position_format writes; false when the text is no position (*ret_position untouched). */
bool lj_position_parse(const char *text, lj_position *ret_position);
/* Orders by index, then offset (the generation is not looked at). <0, 0, >0. */
int lj_position_compare(const lj_position *a, const lj_position *b);
/* The same place of the same generation. */
bool lj_position_eq(const lj_position *a, const lj_position *b);

bool lj_generation_ok(const char *text);
/* Eight random bytes as hex. */
void lj_generation_new(char out[LJ_GENERATION_MAX]);

typedef enum { LJ_NAME_FOREIGN, LJ_NAME_SNAPSHOT, LJ_NAME_WAL } lj_name_kind;

typedef struct {
    lj_name_kind kind;
    lj_position position; /* offset is 0 for a snapshot */
} lj_name;

/* Parses a key. Anything that is not exactly of the layout is LJ_NAME_FOREIGN (and is to be left alone). */
void lj_name_parse(const char *key, lj_name *ret_name);
/*
 * An object of a replica of Litestream v0.5, which has another layout: LEVEL/MIN-MAX.ltx with a level of 4 hex digits, or
 * ltx/LEVEL/MIN-MAX.ltx with a decimal one; 16 hex digits each.
 */
bool lj_name_is_ltx(const char *key);
void lj_name_snapshot(const char *generation, uint32_t index, char out[LJ_NAME_MAX]);
void lj_name_wal(const lj_position *position, char out[LJ_NAME_MAX]);
/* "generations/<GEN>/" */
void lj_name_generation_prefix(const char *generation, char out[LJ_NAME_MAX]);

#endif
