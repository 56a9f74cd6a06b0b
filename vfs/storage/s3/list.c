/*
 * list.c - lists a bucket, page by page.
 *
 * ListObjectsV2, and ListObjects for stores that do not know it: those that refuse it, and those that take list-type for
 * nothing and answer as the old way does. No order of the keys is relied on, but for the next page of the old way where the
 * store does not name it. A 404 is always an error here: an absent bucket is no empty one.
 *
 * Layer: storage. Thread-safety: as storage.h; the callback runs without any lock.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/log.h"
#include "vfs/base/str.h"
#include "vfs/storage/s3/internal.h"
#include "vfs/storage/s3/listing.h"

#define PAGE_BODY_MAX ((size_t)16 * 1024 * 1024)
#define QUERY_MAX     ((size_t)32 * 1024)

typedef struct {
    lj_s3 *s3;
    char *prefix; /* as the store knows it */
    char *after;  /* the same; NULL: none */
    lj_storage_list_fn fn;
    void *ctx;
    bool old;         /* by ListObjects */
    bool keep_last;   /* the last key may be what asks for the next page */
    lj_s3_page *page; /* the page before, which said how to ask for this one */
    lj_s3_page *next; /* the page at hand */
    char *last;       /* its last key */
} walk;

static void walk_free(walk *w)
{
    free(w->prefix);
    free(w->after);
    free(w->page);
    free(w->next);
    free(w->last);
}

static lj_code add(lj_buf *query, const char *name, const char *value, lj_error *err)
{
    LJ_TRY(lj_buf_printf(query, err, "%s%s=", query->len > 0 ? "&" : "", name));
    return lj_url_encode(query, value, false, err);
}

/* Names in byte order, as the signature wants them. */
static lj_code make_query(const walk *w, bool first, lj_buf *query, lj_error *err)
{
    char size[16];
    (void)snprintf(size, sizeof(size), "%u", w->s3->page_size);
    const char *marker = first ? w->after : w->page->marker;
    if (!w->old && !first)
        LJ_TRY(add(query, "continuation-token", w->page->token, err));
    LJ_TRY(add(query, "encoding-type", "url", err));
    if (!w->old)
        LJ_TRY(add(query, "list-type", "2", err));
    if (w->old && marker != NULL)
        LJ_TRY(add(query, "marker", marker, err));
    LJ_TRY(add(query, "max-keys", size, err));
    LJ_TRY(add(query, "prefix", w->prefix, err));
    if (!w->old && first && w->after != NULL)
        LJ_TRY(add(query, "start-after", w->after, err));
    return LJ_OK;
}

static lj_code request_page(walk *w, bool first, lj_http_response *response,
                            char store_code[LJ_S3_CODE_MAX], lj_error *err)
{
    LJ_CLEANUP(lj_buf_free) lj_buf query = LJ_BUF_INIT(QUERY_MAX);
    LJ_TRY(make_query(w, first, &query, err));
    lj_s3_request request = {
        .method = "GET", .query = lj_buf_text(&query), .body_max = PAGE_BODY_MAX};
    lj_code code = lj_s3_call(w->s3, &request, response, store_code, err);
    if (code != LJ_NOTFOUND)
        return code;
    /* it looked for an object: the host has the bucket in it, and the path has it again */
    if (err != NULL)
        err->code = LJ_INVALID;
    (void)lj_error_hint(err,
                        "the store took the request for one of an object: \"endpoint\" must be "
                        "the address of the store, without the bucket");
    (void)lj_error_retryable(err, true);
    return LJ_INVALID;
}

static lj_code show(void *ctx, const lj_s3_listed *listed, lj_error *err)
{
    walk *w = ctx;
    const char *prefix = w->s3->target.prefix;
    size_t len = strlen(prefix);
    if (w->keep_last) {
        free(w->last);
        w->last = lj_str_dup(listed->key);
        if (w->last == NULL)
            return lj_error_nomem(err);
    }
    if (len > 0 && (strncmp(listed->key, prefix, len) != 0 || listed->key[len] != '/'))
        return LJ_OK;
    lj_storage_entry entry = {.key = listed->key + len + (len > 0),
                              .size_bytes = listed->size_bytes,
                              .created_ns = listed->created_ns};
    if (listed->has_size && listed->has_time)
        return w->fn(w->ctx, &entry, err);
    /* a store that leaves that out is asked for each key, but only for what can be one */
    size_t key_len = strlen(entry.key);
    if (key_len == 0 || key_len > LJ_STORAGE_KEY_MAX || entry.key[key_len - 1] == '/')
        return LJ_OK;
    lj_storage_entry asked;
    lj_code code = lj_s3_head(w->s3, entry.key, &asked, err);
    if (code == LJ_NOTFOUND) { /* deleted since */
        lj_error_clear(err);
        return LJ_OK;
    }
    LJ_TRY(code);
    return w->fn(w->ctx, &asked, err);
}

/* What asks for the next page must be there, and another than before: no listing goes round in circles. */
static lj_code check_progress(walk *w, bool first, lj_error *err)
{
    lj_s3_page *next = w->next;
    bool stuck = false;
    if (!w->old && next->token[0] == 0)
        w->old = true; /* the store answered as ListObjects does */
    if (w->old && next->marker[0] == 0) {
        size_t len = w->last != NULL ? strlen(w->last) : 0;
        stuck = len == 0 || len >= LJ_S3_TOKEN_MAX;
        if (!stuck)
            memcpy(next->marker, w->last, len + 1);
    }
    if (!first)
        stuck = stuck || strcmp(w->old ? next->marker : next->token,
                                w->old ? w->page->marker : w->page->token) == 0;
    if (!stuck)
        return LJ_OK;
    lj_error_set(err, LJ_CORRUPT, "the store's listing has more pages, but does not say which");
    return lj_error_retryable(err, true);
}

static lj_code read_pages(walk *w, lj_http_response *response, lj_error *err)
{
    for (bool first = true;; first = false) {
        const char *xml = lj_buf_text(&response->body);
        LJ_TRY(lj_s3_page_read(xml, response->body.len, w->next, err));
        w->keep_last = w->next->truncated && w->next->token[0] == 0;
        LJ_TRY(lj_s3_page_keys(xml, response->body.len, w->next, show, w, err));
        if (!w->next->truncated)
            return LJ_OK;
        LJ_TRY(check_progress(w, first, err));
        lj_s3_page *page = w->page;
        w->page = w->next;
        w->next = page;
        LJ_TRY(request_page(w, false, response, NULL, err));
    }
}

static bool does_not_know_v2(int status, const char *store_code)
{
    return status == 501 || strcmp(store_code, "NotImplemented") == 0 ||
           (status == 400 && strcmp(store_code, "InvalidArgument") == 0);
}

lj_code lj_s3_list(void *self, const char *prefix, const char *after, lj_storage_list_fn fn,
                   void *ctx, lj_error *err)
{
    lj_s3 *s3 = self;
    LJ_CLEANUP(lj_http_response_free) lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    LJ_CLEANUP(walk_free)
    walk w = {.s3 = s3,
              .prefix = lj_url_join(s3->target.prefix, prefix),
              .after = after != NULL ? lj_url_join(s3->target.prefix, after) : NULL,
              .fn = fn,
              .ctx = ctx,
              .old = atomic_load(&s3->old_list),
              .page = calloc(1, sizeof(lj_s3_page)),
              .next = calloc(1, sizeof(lj_s3_page))};
    if (w.prefix == NULL || (after != NULL && w.after == NULL) || w.page == NULL || w.next == NULL)
        return lj_error_nomem(err);
    char store_code[LJ_S3_CODE_MAX];
    lj_code code = request_page(&w, true, &response, store_code, err);
    if (code != LJ_OK && !w.old && does_not_know_v2(response.status, store_code)) {
        w.old = true;
        code = request_page(&w, true, &response, NULL, err);
        if (code == LJ_OK)
            atomic_store(&s3->old_list, true);
    }
    LJ_TRY(code);
    return read_pages(&w, &response, err);
}
