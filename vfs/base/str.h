/*
 * str.h - small string helpers without fixed-size surprises.
 *
 * Layer: base. Thread-safety: pure. Results that are allocated are freed with free().
 */
#ifndef LJ_STR_H
#define LJ_STR_H

#include "vfs/base/error.h"

/* Allocating printf. NULL when out of memory. */
char *lj_str_printf(const char *fmt, ...) LJ_PRINTF(1, 2);
/* Copy of `text`; NULL for NULL or when out of memory. */
char *lj_str_dup(const char *text);
bool lj_str_starts(const char *text, const char *prefix);
bool lj_str_ends(const char *text, const char *suffix);
/* Whole-string equality; NULL equals only NULL. */
bool lj_str_eq(const char *a, const char *b);
/*
 * Parses exactly `digits` lowercase hex digits at `text` (no sign, no prefix) into *ret_value.
 * Returns false, and leaves *ret_value alone, on any other character.
 */
bool lj_str_hex(const char *text, size_t digits, uint64_t *ret_value);
/* Parses a whole string as an unsigned decimal number; false on anything else or overflow. */
bool lj_str_u64(const char *text, uint64_t *ret_value);
/* Last path component: a pointer into `path`. */
const char *lj_str_basename(const char *path);
/* Folder of `path` ("." when it has none), allocated; NULL when out of memory. */
char *lj_str_dirname(const char *path);
/* Cuts the last part off, with its '/'. false, and nothing is cut: it is the only one. */
bool lj_str_cut_part(char *path);
/* The folder with what we keep beside a database, DIR/.NAME-litejoin; allocated, NULL when out of memory. */
char *lj_str_state_dir(const char *db_path);
/*
 * Appends `text` as a JSON string literal, quotes included, to `out` (truncated but always terminated,
 * never in the middle of an escape). Returns the number of bytes written without the NUL.
 */
size_t lj_str_json(char *out, size_t out_size, const char *text);

#endif
