/* s3_bucket.c - requests without a key: listings (both versions), DeleteObjects, location; every bucket exists. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test/bench/s3_server.h"
#include "vfs/base/clock.h"
#include "vfs/base/str.h"
#include "vfs/storage/url.h"

#define KEYS_MAX 1000
#define XML_MAX  ((size_t)16 * 1024 * 1024)

bool append_text(lj_buf *xml, const char *text, bool encoded)
{
    if (encoded)
        return lj_url_encode(xml, text, true, NULL) == LJ_OK;
    for (; *text != 0; text++) {
        const char *entity = *text == '&'   ? "&amp;"
                             : *text == '<' ? "&lt;"
                             : *text == '>' ? "&gt;"
                                            : NULL;
        lj_code code = entity != NULL ? lj_buf_append(xml, entity, strlen(entity), NULL)
                                      : lj_buf_append(xml, text, 1, NULL);
        if (code != LJ_OK)
            return false;
    }
    return true;
}

/* ---- listings ---- */

typedef struct {
    char start[2 * NAME_MAX_BYTES]; /* "bucket/prefix" */
    size_t bucket_len;              /* of "bucket/" */
    char delimiter[16];
    char after[2 * NAME_MAX_BYTES]; /* "bucket/key": only what is behind it */
    bool encoded;
    uint64_t max_keys;
    uint64_t count;
    bool truncated;
    char last[2 * NAME_MAX_BYTES]; /* key or common prefix listed last */
    char seek[2 * NAME_MAX_BYTES];
    lj_buf keys;
    lj_buf prefixes;
} listing;

static void add_key(listing *l, const char *key, const object *o)
{
    char time[LJ_CLOCK_TEXT_MAX];
    lj_clock_format(o->created_ns, time);
    time[strlen(time) - 1] = 0; /* the Z goes behind the fraction */
    (void)!lj_buf_printf(&l->keys, NULL, "<Contents><Key>");
    append_text(&l->keys, key, l->encoded);
    (void)!lj_buf_printf(&l->keys, NULL,
                         "</Key><LastModified>%s.%03dZ</LastModified><ETag>&quot;%s&quot;</ETag>"
                         "<Size>%llu</Size><StorageClass>STANDARD</StorageClass></Contents>",
                         time, (int)(o->created_ns % LJ_NS_PER_S / LJ_NS_PER_MS), o->etag,
                         (unsigned long long)o->size);
}

/* Is the name below a common prefix? Then adds that, and goes on behind it. */
static bool visit(void *ctx, const char *name, const object *o, const char **seek)
{
    listing *l = ctx;
    size_t start_len = strlen(l->start);
    if (strncmp(name, l->start, start_len) != 0)
        return false;
    const char *end = l->delimiter[0] != 0 ? strstr(name + start_len, l->delimiter) : NULL;
    size_t shown = end != NULL ? (size_t)(end - name) + strlen(l->delimiter) : strlen(name);
    bool seen = strcmp(name, l->after) <= 0 || (end != NULL && strncmp(name, l->after, shown) == 0);
    if (!seen && l->count == l->max_keys) {
        l->truncated = true;
        return false;
    }
    if (end != NULL) {
        (void)snprintf(l->seek, sizeof(l->seek), "%.*s\xff", (int)shown, name);
        *seek = l->seek;
    }
    if (seen)
        return true;
    l->count++;
    (void)snprintf(l->last, sizeof(l->last), "%.*s", (int)(shown - l->bucket_len),
                   name + l->bucket_len);
    if (end == NULL) {
        add_key(l, l->last, o);
    } else {
        (void)!lj_buf_printf(&l->prefixes, NULL, "<CommonPrefixes><Prefix>");
        append_text(&l->prefixes, l->last, l->encoded);
        (void)!lj_buf_printf(&l->prefixes, NULL, "</Prefix></CommonPrefixes>");
    }
    return true;
}

static void read_parameters(const request *r, bool second, listing *l)
{
    char text[NAME_MAX_BYTES] = "";
    char after[NAME_MAX_BYTES] = "";
    (void)http_query(r, "prefix", text, sizeof(text));
    (void)snprintf(l->start, sizeof(l->start), "%s/%s", r->bucket, text);
    l->bucket_len = strlen(r->bucket) + 1;
    (void)http_query(r, "delimiter", l->delimiter, sizeof(l->delimiter));
    if (second && !http_query(r, "continuation-token", after, sizeof(after)))
        (void)http_query(r, "start-after", after, sizeof(after));
    if (!second)
        (void)http_query(r, "marker", after, sizeof(after));
    if (after[0] != 0)
        (void)snprintf(l->after, sizeof(l->after), "%s/%s", r->bucket, after);
    l->encoded = http_query(r, "encoding-type", text, sizeof(text)) && strcmp(text, "url") == 0;
    if (!http_query(r, "max-keys", text, sizeof(text)) || !lj_str_u64(text, &l->max_keys))
        l->max_keys = KEYS_MAX;
    l->max_keys = LJ_MIN(l->max_keys, (uint64_t)KEYS_MAX);
}

/* What goes on the next page is told by the last key of this one (a token is opaque to the client: encoded twice). */
static void write_listing(const listing *l, const request *r, bool second, lj_buf *xml)
{
    (void)!lj_buf_printf(
        xml, NULL,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult "
        "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>%s</Name><Prefix>",
        r->bucket);
    append_text(xml, l->start + l->bucket_len, l->encoded);
    (void)!lj_buf_printf(
        xml, NULL, "</Prefix><MaxKeys>%llu</MaxKeys>%s<IsTruncated>%s</IsTruncated>",
        (unsigned long long)l->max_keys, l->encoded ? "<EncodingType>url</EncodingType>" : "",
        l->truncated ? "true" : "false");
    if (second)
        (void)!lj_buf_printf(xml, NULL, "<KeyCount>%llu</KeyCount>", (unsigned long long)l->count);
    if (l->truncated) {
        const char *name = second ? "NextContinuationToken" : "NextMarker";
        (void)!lj_buf_printf(xml, NULL, "<%s>", name);
        append_text(xml, l->last, !second && l->encoded);
        (void)!lj_buf_printf(xml, NULL, "</%s>", name);
    }
    (void)!lj_buf_append(xml, lj_buf_text(&l->keys), l->keys.len, NULL);
    (void)!lj_buf_append(xml, lj_buf_text(&l->prefixes), l->prefixes.len, NULL);
    (void)!lj_buf_printf(xml, NULL, "</ListBucketResult>");
}

static bool list(connection *c, const request *r)
{
    char text[16] = "";
    bool second = http_query(r, "list-type", text, sizeof(text)) && strcmp(text, "2") == 0;
    listing *l = calloc(1, sizeof(*l));
    lj_buf xml = LJ_BUF_INIT(XML_MAX);
    atomic_fetch_add(&server.requests[KIND_list], 1);
    if (l == NULL)
        return false;
    l->keys.max = XML_MAX;
    l->prefixes.max = XML_MAX;
    read_parameters(r, second, l);
    server_delay();
    store_walk(strcmp(l->after, l->start) > 0 ? l->after : l->start, visit, l);
    write_listing(l, r, second, &xml);
    bool go_on = send_xml(c, r, &xml);
    lj_buf_free(&l->keys);
    lj_buf_free(&l->prefixes);
    lj_buf_free(&xml);
    free(l);
    return go_on;
}

/* ---- DeleteObjects ---- */

/* Entities of XML, in place. */
static void decode_entities(char *text)
{
    static const struct {
        const char *entity;
        char c;
    } entities[] = {{"&amp;", '&'},   {"&lt;", '<'},  {"&gt;", '>'},  {"&quot;", '"'},
                    {"&apos;", '\''}, {"&#34;", '"'}, {"&#39;", '\''}};
    char *out = text;
    for (char *in = text; *in != 0; out++) {
        size_t i = 0;
        while (i < LJ_ARRAY_LEN(entities) && !lj_str_starts(in, entities[i].entity))
            i++;
        bool found = i < LJ_ARRAY_LEN(entities);
        *out = found ? entities[i].c : *in;
        in += found ? strlen(entities[i].entity) : 1;
    }
    *out = 0;
}

static bool delete_objects(connection *c, const request *r)
{
    lj_buf body = LJ_BUF_INIT(XML_MAX);
    lj_buf xml = LJ_BUF_INIT(XML_MAX);
    atomic_fetch_add(&server.requests[KIND_delete_objects], 1);
    if (!http_read_text(c, &body)) {
        lj_buf_free(&body);
        return false;
    }
    server_delay();
    bool quiet = strstr(lj_buf_text(&body), "<Quiet>true</Quiet>") != NULL;
    (void)!lj_buf_printf(&xml, NULL, "<DeleteResult>");
    for (char *at = strstr(lj_buf_text(&body), "<Key>"); at != NULL; at = strstr(at, "<Key>")) {
        char name[2 * NAME_MAX_BYTES];
        char *key = at + 5;
        size_t len = strcspn(key, "<");
        at = key + len + (key[len] == '<'); /* behind the '<' of the end, which is overwritten */
        key[len] = 0;
        decode_entities(key);
        (void)snprintf(name, sizeof(name), "%s/%s", r->bucket, key);
        (void)store_delete(name);
        if (quiet)
            continue;
        (void)!lj_buf_printf(&xml, NULL, "<Deleted><Key>");
        append_text(&xml, key, false);
        (void)!lj_buf_printf(&xml, NULL, "</Key></Deleted>");
    }
    (void)!lj_buf_printf(&xml, NULL, "</DeleteResult>");
    bool go_on = send_xml(c, r, &xml);
    lj_buf_free(&body);
    lj_buf_free(&xml);
    return go_on;
}

bool answer_bucket(connection *c, const request *r)
{
    char text[QUERY_MAX];
    answer empty = {.status = 200, .no_body = r->method[0] == 'H'};
    if (strcmp(r->method, "POST") == 0 && http_query(r, "delete", text, sizeof(text)))
        return delete_objects(c, r);
    if (!http_skip_body(c))
        return false;
    if (strcmp(r->method, "GET") == 0 && !http_query(r, "location", text, sizeof(text)))
        return list(c, r);
    atomic_fetch_add(&server.requests[KIND_other], 1);
    server_delay();
    if (strcmp(r->method, "HEAD") == 0 || strcmp(r->method, "PUT") == 0)
        return http_send(c, &empty);
    if (strcmp(r->method, "GET") != 0)
        return send_error(c, r, 405, "MethodNotAllowed");
    static const char location[] =
        "<LocationConstraint xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"/>";
    answer a = {.status = 200, .body = location, .length = sizeof(location) - 1};
    return http_send(c, &a);
}
