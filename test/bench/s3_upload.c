/* s3_upload.c - multipart uploads: create, part, complete, abort. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test/bench/s3_server.h"
#include "vfs/base/str.h"

#define PARTS_MAX 10000
#define PART_MIN  (5u * 1024 * 1024)
#define XML_MAX   ((size_t)4 * 1024 * 1024)
#define ID_BYTES  20

typedef struct {
    blob *content; /* NULL: not there */
    char etag[ETAG_BYTES];
} upload_part;

typedef struct upload {
    char id[ID_BYTES];
    char name[NAME_MAX_BYTES];
    upload_part parts[PARTS_MAX + 1];
    struct upload *next;
} upload;

static struct {
    pthread_mutex_t mutex;
    upload *first;
    uint64_t count;
} uploads = {.mutex = PTHREAD_MUTEX_INITIALIZER};

uint64_t uploads_open(void)
{
    pthread_mutex_lock(&uploads.mutex);
    uint64_t count = uploads.count;
    pthread_mutex_unlock(&uploads.mutex);
    return count;
}

/* Under the mutex. */
static upload **find(const request *r)
{
    char id[ID_BYTES] = "";
    if (!http_query(r, "uploadId", id, sizeof(id)))
        return NULL;
    for (upload **link = &uploads.first; *link != NULL; link = &(*link)->next)
        if (strcmp((*link)->id, id) == 0 && strcmp((*link)->name, r->name) == 0)
            return link;
    return NULL;
}

/* Takes it out of the list; NULL when it is not there. Under the mutex. */
static upload *take(const request *r)
{
    upload **link = find(r);
    upload *u = link != NULL ? *link : NULL;
    if (u != NULL) {
        *link = u->next;
        uploads.count--;
    }
    return u;
}

static void free_upload(upload *u)
{
    for (size_t i = 0; u != NULL && i <= PARTS_MAX; i++)
        blob_drop(u->parts[i].content);
    free(u);
}

static bool create(connection *c, const request *r)
{
    upload *u = calloc(1, sizeof(*u)); /* most of its pages stay untouched */
    lj_buf xml = LJ_BUF_INIT(XML_MAX);
    atomic_fetch_add(&server.requests[KIND_create_upload], 1);
    if (u == NULL || !http_skip_body(c)) {
        free(u);
        return false;
    }
    (void)snprintf(u->id, sizeof(u->id), "%016llx", (unsigned long long)store_next_id());
    (void)snprintf(u->name, sizeof(u->name), "%s", r->name);
    (void)!lj_buf_printf(&xml, NULL, "<InitiateMultipartUploadResult><Bucket>%s</Bucket><Key>",
                         r->bucket);
    append_text(&xml, r->key, false);
    (void)!lj_buf_printf(&xml, NULL,
                         "</Key><UploadId>%s</UploadId></InitiateMultipartUploadResult>", u->id);
    server_delay();
    pthread_mutex_lock(&uploads.mutex);
    u->next = uploads.first;
    uploads.first = u;
    uploads.count++;
    pthread_mutex_unlock(&uploads.mutex);
    bool go_on = send_xml(c, r, &xml);
    lj_buf_free(&xml);
    return go_on;
}

static bool put_part(connection *c, const request *r)
{
    char text[16] = "";
    uint64_t number = 0;
    bool go_on = false;
    answer a = {.status = 200};
    upload_part fresh = {.content = NULL};
    atomic_fetch_add(&server.requests[KIND_upload_part], 1);
    if (!http_query(r, "partNumber", text, sizeof(text)) || !lj_str_u64(text, &number) ||
        number < 1 || number > PARTS_MAX)
        return http_skip_body(c) && send_error(c, r, 400, "InvalidArgument");
    fresh.content = read_into_blob(c, r, &go_on);
    if (fresh.content == NULL)
        return go_on;
    (void)snprintf(fresh.etag, sizeof(fresh.etag), "%032llx", (unsigned long long)store_next_id());
    server_delay();
    pthread_mutex_lock(&uploads.mutex);
    upload **link = find(r);
    blob *old = fresh.content;
    if (link != NULL) {
        old = (*link)->parts[number].content;
        (*link)->parts[number] = fresh;
    }
    pthread_mutex_unlock(&uploads.mutex);
    blob_drop(old);
    if (link == NULL)
        return send_error(c, r, 404, "NoSuchUpload");
    (void)snprintf(a.headers, sizeof(a.headers), "ETag: \"%s\"\r\n", fresh.etag);
    return http_send(c, &a);
}

/* ---- complete ---- */

/* The next "<name>...</name>" in text..end into `out`; false when there is none. */
static bool element(const char *text, const char *end, const char *name, char *out, size_t size)
{
    char open[32];
    (void)snprintf(open, sizeof(open), "<%s>", name);
    const char *start = strstr(text, open);
    if (start == NULL || start >= end)
        return false;
    start += strlen(open);
    size_t len = strcspn(start, "<");
    if (len >= size)
        return false;
    memcpy(out, start, len);
    out[len] = 0;
    return true;
}

/* A quoted ETag, the quotes maybe as entities. */
static bool same_etag(const char *text, const char *etag)
{
    const char *found = strstr(text, etag);
    return found != NULL && strspn(text, "\"&quot;") == (size_t)(found - text);
}

/* Collects the parts in the order of the list. NULL, or the code of the error. */
static const char *choose_parts(upload *u, const char *xml, blob **chosen, size_t *ret_count)
{
    uint64_t last = 0;
    *ret_count = 0;
    for (const char *at = strstr(xml, "<Part>"); at != NULL; at = strstr(at + 6, "<Part>")) {
        const char *end = strstr(at, "</Part>");
        char number_text[16];
        char etag[2 * ETAG_BYTES];
        uint64_t number = 0;
        if (end == NULL || !element(at, end, "PartNumber", number_text, sizeof(number_text)) ||
            !element(at, end, "ETag", etag, sizeof(etag)) || !lj_str_u64(number_text, &number))
            return "MalformedXML";
        if (number <= last)
            return "InvalidPartOrder";
        if (number > PARTS_MAX || u->parts[number].content == NULL ||
            !same_etag(etag, u->parts[number].etag))
            return "InvalidPart";
        if (*ret_count > 0 && chosen[*ret_count - 1]->size < PART_MIN)
            return "EntityTooSmall";
        chosen[(*ret_count)++] = u->parts[number].content;
        last = number;
    }
    return *ret_count > 0 ? NULL : "MalformedXML";
}

/* The object of the parts, which stay the upload's too. */
static object *make_object(blob **chosen, size_t count)
{
    for (size_t i = 0; i < count; i++)
        __atomic_add_fetch(&chosen[i]->references, 1, __ATOMIC_RELAXED);
    return object_new(chosen, count);
}

/* Everything under the mutex, so that an upload is completed once. *ret_error: NULL, or the code of the error. */
static int complete_locked(const request *r, const char *xml, blob **chosen, char *ret_etag,
                           const char **ret_error)
{
    size_t count = 0;
    upload **link = find(r);
    *ret_error = "NoSuchUpload";
    if (link == NULL)
        return 404;
    *ret_error = choose_parts(*link, xml, chosen, &count);
    if (*ret_error != NULL)
        return 400;
    object *o = make_object(chosen, count);
    *ret_error = "InternalError";
    if (o == NULL)
        return 500;
    memcpy(ret_etag, o->etag, ETAG_BYTES);
    store_result result = store_put(r->name, o, r->if_absent);
    if (result == STORE_NOMEM)
        return 500;
    *ret_error = "PreconditionFailed";
    if (result == STORE_EXISTS)
        return 412;
    free_upload(take(r));
    *ret_error = NULL;
    return 200;
}

static bool complete(connection *c, const request *r)
{
    lj_buf xml = LJ_BUF_INIT(XML_MAX);
    char etag[ETAG_BYTES];
    const char *error = NULL;
    blob **chosen = calloc(PARTS_MAX, sizeof(blob *));
    atomic_fetch_add(&server.requests[KIND_complete_upload], 1);
    if (chosen == NULL || !http_read_text(c, &xml)) {
        free(chosen);
        lj_buf_free(&xml);
        return false;
    }
    server_delay();
    pthread_mutex_lock(&uploads.mutex);
    int status = complete_locked(r, lj_buf_text(&xml), chosen, etag, &error);
    pthread_mutex_unlock(&uploads.mutex);
    free(chosen);
    lj_buf_clear(&xml);
    bool go_on;
    if (error != NULL) {
        go_on = send_error(c, r, status, error);
    } else {
        (void)!lj_buf_printf(&xml, NULL,
                             "<CompleteMultipartUploadResult><Bucket>%s</Bucket><ETag>\"%s\"</ETag>"
                             "</CompleteMultipartUploadResult>",
                             r->bucket, etag);
        go_on = send_xml(c, r, &xml);
    }
    lj_buf_free(&xml);
    return go_on;
}

static bool abort_upload(connection *c, const request *r)
{
    answer a = {.status = 204};
    atomic_fetch_add(&server.requests[KIND_abort_upload], 1);
    if (!http_skip_body(c))
        return false;
    server_delay();
    pthread_mutex_lock(&uploads.mutex);
    upload *u = take(r);
    pthread_mutex_unlock(&uploads.mutex);
    if (u == NULL)
        return send_error(c, r, 404, "NoSuchUpload");
    free_upload(u);
    return http_send(c, &a);
}

bool answer_upload(connection *c, const request *r)
{
    char text[QUERY_MAX];
    bool creates = http_query(r, "uploads", text, sizeof(text));
    if (strcmp(r->method, "POST") == 0)
        return creates ? create(c, r) : complete(c, r);
    if (strcmp(r->method, "PUT") == 0 && !creates)
        return put_part(c, r);
    if (strcmp(r->method, "DELETE") == 0 && !creates)
        return abort_upload(c, r);
    return http_skip_body(c) && send_error(c, r, 405, "MethodNotAllowed");
}
