/*
 * table.c - see table.h.
 *
 * Layer: tools. Thread-safety: one thread.
 */
#include "tools/table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/str.h"

void table_init(table *t, const column *columns, size_t column_count)
{
    *t = (table){.columns = columns, .column_count = column_count};
}

void table_row(table *t, const char *const *cells)
{
    if (t->code != LJ_OK)
        return;
    if (t->row_count == t->capacity) {
        size_t capacity = t->capacity == 0 ? 64 : t->capacity * 2;
        char **bigger = realloc(t->cells, capacity * t->column_count * sizeof(*bigger));
        if (bigger == NULL) {
            t->code = LJ_NOMEM;
            return;
        }
        t->cells = bigger;
        t->capacity = capacity;
    }
    char **row = &t->cells[t->row_count * t->column_count];
    t->row_count++;
    for (size_t i = 0; i < t->column_count; i++) {
        row[i] = lj_str_dup(cells[i]);
        if (row[i] == NULL && cells[i] != NULL)
            t->code = LJ_NOMEM;
    }
}

/* Characters, not bytes: what Go's tabwriter counts. */
static size_t width(const char *text)
{
    size_t n = 0;
    for (; *text != 0; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80 ? 1 : 0;
    return n;
}

static void print_columns(const table *t, FILE *out)
{
    size_t widths[TABLE_COLUMNS_MAX] = {0};
    for (size_t c = 0; c < t->column_count; c++) {
        widths[c] = width(t->columns[c].name);
        for (size_t r = 0; r < t->row_count; r++) {
            const char *cell = t->cells[r * t->column_count + c];
            widths[c] = LJ_MAX(widths[c], cell == NULL ? 0 : width(cell));
        }
    }
    size_t last = t->column_count;
    while (last > 0 && t->columns[last - 1].json_only)
        last--;
    for (size_t r = 0; r < t->row_count + 1; r++) {
        for (size_t c = 0; c < last; c++) {
            const char *cell =
                r == 0 ? t->columns[c].name : t->cells[(r - 1) * t->column_count + c];
            if (t->columns[c].json_only)
                continue;
            cell = cell == NULL ? "" : cell;
            fputs(cell, out);
            for (size_t n = width(cell); c + 1 < last && n < widths[c] + 2; n++)
                fputc(' ', out);
        }
        fputc('\n', out);
    }
}

static void print_json_text(const char *text, FILE *out)
{
    /* worst case: every byte becomes \u00xx */
    size_t size = strlen(text) * 6 + 3;
    LJ_CLEANUP(lj_freep) char *literal = malloc(size);
    if (literal == NULL)
        return;
    lj_str_json(literal, size, text);
    fputs(literal, out);
}

static void print_json_list(const char *text, FILE *out)
{
    LJ_CLEANUP(lj_freep) char *copy = lj_str_dup(text);
    char *rest = copy;
    bool first = true;
    fputc('[', out);
    for (char *item; copy != NULL && (item = strsep(&rest, ",")) != NULL; first = false) {
        if (item[0] == 0)
            continue;
        if (!first)
            fputc(',', out);
        print_json_text(item, out);
    }
    fputc(']', out);
}

static void print_json_row(const table *t, size_t row, FILE *out)
{
    fputc('{', out);
    for (size_t c = 0; c < t->column_count; c++) {
        const char *cell = t->cells[row * t->column_count + c];
        fprintf(out, "%s\"%s\":", c == 0 ? "" : ",", t->columns[c].name);
        if (cell == NULL)
            fputs("null", out);
        else if (t->columns[c].kind == COLUMN_TEXT)
            print_json_text(cell, out);
        else if (t->columns[c].kind == COLUMN_LIST)
            print_json_list(cell, out);
        else
            fputs(cell, out);
    }
    fputc('}', out);
}

static lj_code finish(FILE *out, lj_error *err)
{
    if (fflush(out) == 0 && !ferror(out))
        return LJ_OK;
    if (errno == EPIPE)
        return LJ_OK; /* e.g. `| head`: whoever read has what he wanted */
    return lj_error_errno(err, errno, "cannot write the listing");
}

lj_code table_print(table *t, FILE *out, bool json, lj_error *err)
{
    if (t->code != LJ_OK)
        return lj_error_nomem(err);
    if (!json) {
        print_columns(t, out);
        return finish(out, err);
    }
    fputc('[', out);
    for (size_t r = 0; r < t->row_count; r++) {
        fputs(r == 0 ? "\n  " : ",\n  ", out);
        print_json_row(t, r, out);
    }
    fputs(t->row_count == 0 ? "]\n" : "\n]\n", out);
    return finish(out, err);
}

lj_code table_print_object(table *t, FILE *out, lj_error *err)
{
    if (t->code != LJ_OK)
        return lj_error_nomem(err);
    if (t->row_count > 0)
        print_json_row(t, 0, out);
    fputc('\n', out);
    return finish(out, err);
}

void table_free(table *t)
{
    for (size_t i = 0; i < t->row_count * t->column_count; i++)
        free(t->cells[i]);
    free(t->cells);
    *t = (table){0};
}
