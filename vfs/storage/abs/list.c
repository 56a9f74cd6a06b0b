/*
 * list.c - the Azure Blob driver's list: page after page, each parsed while it comes in and shown when it is complete.
 *
 * Azure has no way to begin behind a key that emulators and older versions know too, so that `after` is left to the
 * caller's check of every entry (storage.c).
 *
 * Layer: storage. Thread-safety: as storage.h. Memory: the names, sizes and times of one page.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/str.h"
#include "vfs/storage/abs/internal.h"

/* What 5,000 entries take, for the total deadline. */
#define PAGE_BYTES ((int64_t)8 * 1024 * 1024)

static lj_code read_page(lj_abs *abs, const char *prefix, const char *marker, lj_abs_page *page,
                         lj_error *err)
{
    char size[16];
    (void)snprintf(size, sizeof(size), "%" PRIu32, abs->list_page);
    lj_abs_list_parser *parser = NULL;
    LJ_TRY(lj_abs_list_parser_new(page, &parser, err));
    lj_sink sink = lj_abs_list_parser_sink(parser);
    LJ_CLEANUP(lj_http_response_free) lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    lj_abs_request request = {
        .method = "GET",
        .query = {{"restype", "container"}, {"comp", "list"}, {"maxresults", size}},
        .query_count = 3,
        .sink = &sink,
        .expected_bytes = PAGE_BYTES,
    };
    if (prefix[0] != 0)
        request.query[request.query_count++] = (lj_abs_pair){"prefix", prefix};
    if (marker[0] != 0)
        request.query[request.query_count++] = (lj_abs_pair){"marker", marker};
    lj_code code = lj_abs_perform(abs, &request, &response, err);
    if (code == LJ_OK)
        code = lj_abs_list_parser_finish(parser, err);
    lj_abs_list_parser_free(parser);
    return code;
}

static lj_code show_page(const lj_abs_page *page, const char *prefix, size_t prefix_len,
                         lj_storage_list_fn fn, void *ctx, lj_error *err)
{
    for (size_t i = 0; i < lj_abs_page_count(page); i++) {
        const char *name = NULL;
        const lj_abs_entry *entry = lj_abs_page_entry(page, i, &name);
        if (strncmp(name, prefix, prefix_len) != 0 || name[prefix_len] == 0)
            continue;
        lj_storage_entry shown = {.key = name + prefix_len,
                                  .size_bytes = entry->size_bytes,
                                  .created_ns = entry->created_ns};
        LJ_TRY(fn(ctx, &shown, err));
    }
    return LJ_OK;
}

lj_code lj_abs_list(void *self, const char *prefix, const char *after, lj_storage_list_fn fn,
                    void *ctx, lj_error *err)
{
    (void)after;
    lj_abs *abs = self;
    LJ_CLEANUP(lj_freep) char *full = lj_abs_blob(abs, prefix);
    LJ_CLEANUP(lj_freep) char *marker = lj_str_dup("");
    if (full == NULL || marker == NULL)
        return lj_error_nomem(err);
    LJ_CLEANUP(lj_abs_page_free) lj_abs_page page = LJ_ABS_PAGE_INIT;
    size_t root_len = strlen(full) - strlen(prefix);
    for (;;) {
        LJ_TRY(read_page(abs, full, marker, &page, err));
        LJ_TRY(show_page(&page, full, root_len, fn, ctx, err));
        const char *next = lj_buf_text(&page.marker);
        if (next[0] == 0)
            return LJ_OK;
        if (strcmp(next, marker) == 0) {
            lj_error_set(err, LJ_CORRUPT, "the listing's next page is the page itself");
            return lj_error_retryable(err, true);
        }
        free(marker);
        marker = lj_str_dup(next);
        if (marker == NULL)
            return lj_error_nomem(err);
    }
}
