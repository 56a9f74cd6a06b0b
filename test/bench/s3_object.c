/* s3_object.c - PUT, GET, HEAD and DELETE of one object. */
#include <stdio.h>
#include <string.h>

#include "test/bench/s3_server.h"
#include "vfs/base/str.h"
#include "vfs/storage/http/http.h"

blob *read_into_blob(connection *c, const request *r, bool *ret_go_on)
{
    bool discarded = server.discard_prefix != NULL && lj_str_starts(r->key, server.discard_prefix);
    blob *b = blob_new(discarded ? BODY_DISCARDED : store_body_kind(), r->length);
    if (b == NULL) {
        *ret_go_on = send_error(c, r, 507, "InsufficientStorage");
        return NULL;
    }
    if (!http_read_blob(c, b)) {
        blob_drop(b);
        *ret_go_on = false;
        return NULL;
    }
    return b;
}

static bool put(connection *c, const request *r)
{
    bool go_on = false;
    answer a = {.status = 200};
    atomic_fetch_add(&server.requests[KIND_put], 1);
    blob *b = read_into_blob(c, r, &go_on);
    if (b == NULL)
        return go_on;
    object *o = object_new(&b, 1);
    if (o == NULL)
        return send_error(c, r, 500, "InternalError");
    (void)snprintf(a.headers, sizeof(a.headers), "ETag: \"%s\"\r\n", o->etag);
    server_delay();
    switch (store_put(r->name, o, r->if_absent)) {
    case STORE_EXISTS:
        return send_error(c, r, 412, "PreconditionFailed");
    case STORE_NOMEM:
        return send_error(c, r, 500, "InternalError");
    case STORE_OK:
        break;
    }
    return http_send(c, &a);
}

/* The bytes that are asked for; false: none of them is there. */
static bool choose_range(const request *r, uint64_t size, uint64_t *ret_first, uint64_t *ret_length)
{
    uint64_t first = (uint64_t)r->range_first;
    uint64_t last = r->range_last < 0 ? UINT64_MAX : (uint64_t)r->range_last;
    if (r->range_first < 0) { /* the last bytes */
        first = last < size ? size - last : 0;
        last = UINT64_MAX;
    }
    if (first >= size || last < first)
        return false;
    *ret_first = first;
    *ret_length = LJ_MIN(last, size - 1) - first + 1;
    return true;
}

static bool send_found(connection *c, const request *r, const object *o, bool head)
{
    char date[32];
    char range[96] = "";
    uint64_t first = 0;
    uint64_t length = o->size;
    answer a = {.status = 200, .no_body = head};
    if (r->has_range && !choose_range(r, o->size, &first, &length))
        return send_error(c, r, 416, "InvalidRange");
    for (size_t i = 0; !head && length > 0 && i < o->blob_count; i++)
        if (o->blobs[i]->kind == BODY_DISCARDED)
            return send_error(c, r, 403, "InvalidObjectState");
    if (r->has_range) {
        a.status = 206;
        (void)snprintf(range, sizeof(range), "Content-Range: bytes %llu-%llu/%llu\r\n",
                       (unsigned long long)first, (unsigned long long)(first + length - 1),
                       (unsigned long long)o->size);
    }
    lj_http_date_format(o->created_ns, date);
    (void)snprintf(a.headers, sizeof(a.headers),
                   "ETag: \"%s\"\r\nLast-Modified: %s\r\nAccept-Ranges: bytes\r\n"
                   "Content-Type: binary/octet-stream\r\n%s",
                   o->etag, date, range);
    a.length = length;
    return http_send(c, &a) && (head || http_send_object(c, o, first, length));
}

static bool get(connection *c, const request *r, bool head)
{
    atomic_fetch_add(&server.requests[head ? KIND_head : KIND_get], 1);
    server_delay();
    object *o = store_get(r->name);
    bool go_on = o != NULL ? send_found(c, r, o, head) : send_error(c, r, 404, "NoSuchKey");
    object_drop(o);
    return go_on;
}

static bool delete (connection *c, const request *r)
{
    answer a = {.status = 204};
    atomic_fetch_add(&server.requests[KIND_delete], 1);
    server_delay();
    (void)store_delete(r->name);
    return http_send(c, &a);
}

bool answer_object(connection *c, const request *r)
{
    if (strcmp(r->method, "PUT") == 0)
        return put(c, r);
    if (!http_skip_body(c))
        return false;
    if (strcmp(r->method, "GET") == 0 || strcmp(r->method, "HEAD") == 0)
        return get(c, r, r->method[0] == 'H');
    if (strcmp(r->method, "DELETE") == 0)
        return delete (c, r);
    return send_error(c, r, 405, "MethodNotAllowed");
}
