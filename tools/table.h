/*
 * table.h - a listing as space-aligned columns with two spaces between them (as v0.3.13 prints it), or as a JSON array
 * of objects.
 *
 * Layer: tools. Thread-safety: one thread. Memory: the whole table until it is printed.
 */
#ifndef LJ_TOOLS_TABLE_H
#define LJ_TOOLS_TABLE_H

#include <stdio.h>

#include "vfs/base/error.h"

#define TABLE_COLUMNS_MAX 10u

typedef enum {
    COLUMN_TEXT,
    COLUMN_NUMBER,
    COLUMN_BOOL,
    COLUMN_LIST /* text, ','-separated */
} column_kind;

typedef struct {
    const char *name;
    column_kind kind;
    bool json_only;
} column;

typedef struct {
    const column *columns;
    size_t column_count;
    char **cells; /* row by row; NULL = JSON null */
    size_t row_count;
    size_t capacity; /* rows */
    lj_code code;    /* the first failure to add a row; reported by table_print */
} table;

void table_init(table *t, const column *columns, size_t column_count);
/* Adds a row of column_count texts, which are copied. A failure is kept for table_print. */
void table_row(table *t, const char *const *cells);
/* Writes everything to `out`. LJ_IO when out is a full disk or the like; a reader that went away is not an error. */
LJ_WARN_UNUSED lj_code table_print(table *t, FILE *out, bool json, lj_error *err);
/* One row as a JSON object instead of an array. */
LJ_WARN_UNUSED lj_code table_print_object(table *t, FILE *out, lj_error *err);
void table_free(table *t);

#endif
