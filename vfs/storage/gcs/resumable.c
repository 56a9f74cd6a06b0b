/*
 * resumable.c - see internal.h: a large upload in a resumable session.
 *
 * One buffer of a part and one byte: the byte more tells whether the part is the last, whose request must name the size
 * of the whole. A part that broke is gone on with at the offset the store names (it may have kept some of it), a few times
 * with a pause. A session that is given up is deleted, so that nothing of it is left in the bucket.
 *
 * Layer: storage. Thread-safety: as storage.h.
 * Invariants: `base` is the offset in the object of the buffer's first byte, and the store has everything before it; a part
 * that is not the last is a multiple of 256 KiB long, also when it is gone on with, because the store keeps multiples.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "vfs/base/str.h"
#include "vfs/base/retry.h"
#include "vfs/storage/gcs/internal.h"
#include "vfs/storage/parts.h"

#define PART_BYTES           LJ_PARTS_SMALL_MAX
#define FAREWELL_TIMEOUT_NS  (5 * LJ_NS_PER_S)
#define STATUS_INCOMPLETE    308
#define STATUS_HAS_FORGOTTEN 410

_Static_assert(PART_BYTES % (256 * 1024) == 0, "what GCS wants of all parts but the last");

typedef struct {
    const lj_gcs_upload *upload;
    char *uri;      /* whoever has it may upload: never shown, wiped */
    lj_buf *buffer; /* PART_BYTES + 1 at most */
    uint64_t base;
    uint32_t crc32c; /* of everything up to the end of the part being sent */
    bool complete;   /* the object is there */
    bool gone;       /* the session cannot be gone on with */
    bool unclear;    /* the last part got no answer: the object may be there */
    lj_http_response response;
} session;

/* ---- begin and end ---- */

/* The session may be at another host, but never without TLS where the endpoint has it. */
static bool is_session_uri(const lj_gcs *gcs, const char *uri)
{
    bool tls = strncasecmp(uri, "https://", 8) == 0;
    bool plain = strncasecmp(uri, "http://", 7) == 0;
    return tls || (plain && strncmp(gcs->base, "http://", 7) == 0);
}

static lj_code begin(session *s, lj_error *err)
{
    static const char *const headers[] = {"Content-Type: application/json; charset=UTF-8",
                                          "X-Upload-Content-Type: application/octet-stream", NULL};
    static const char metadata[] = "{\"contentType\":\"application/octet-stream\"}";
    LJ_CLEANUP(lj_buf_free) lj_buf url = LJ_GCS_URL_INIT;
    LJ_TRY(lj_gcs_upload_url(s->upload, "resumable", &url, err));
    lj_http_request request = LJ_HTTP_REQUEST("POST", lj_buf_text(&url));
    request.headers = headers;
    request.body = metadata;
    request.body_len = strlen(metadata);
    request.body_max = LJ_GCS_OBJECT_BODY_MAX;
    LJ_TRY(lj_gcs_send(s->upload->gcs, &request, &s->response, err));
    if (s->response.status / 100 != 2)
        return lj_gcs_upload_refused(s->upload, &s->response, err);
    lj_gcs_seen(s->upload->gcs);
    s->uri = malloc(LJ_GCS_SESSION_URI_MAX);
    if (s->uri == NULL)
        return lj_error_nomem(err);
    if (lj_http_header(&s->response, "location", s->uri, LJ_GCS_SESSION_URI_MAX) &&
        is_session_uri(s->upload->gcs, s->uri))
        return LJ_OK;
    lj_wipe_freep(&s->uri);
    lj_error_set(err, LJ_CORRUPT, "the store began an upload without a usable address for it");
    return lj_error_retryable(err, true);
}

/* Best effort: a session that stays is forgotten by the store after a week. */
static void abandon(session *s)
{
    static const char *const headers[] = {"Content-Length: 0", NULL};
    lj_http_request request = LJ_HTTP_REQUEST("DELETE", s->uri);
    request.headers = headers;
    request.total_timeout_ns = FAREWELL_TIMEOUT_NS;
    if (lj_gcs_send(s->upload->gcs, &request, &s->response, NULL) != LJ_OK)
        return;
}

static void session_free(session *s)
{
    lj_wipe_freep(&s->uri);
    lj_wipe(s->response.headers.data, s->response.headers.len); /* the URI was in them */
    lj_http_response_free(&s->response);
}

/* ---- one request of the session ---- */

/* What the store has, from a 308. Without a Range it is nothing. */
static lj_code read_persisted(const session *s, size_t len, size_t *ret_have, lj_error *err)
{
    char range[80];
    uint64_t bytes = 0;
    bool told = lj_http_header(&s->response, "range", range, sizeof(range));
    if (told && !lj_gcs_persisted(range, &bytes)) {
        lj_error_set(err, LJ_CORRUPT, "the store's answer to a part is malformed: Range");
        return lj_error_retryable(err, true);
    }
    if (bytes < s->base || bytes - s->base > len) {
        lj_error_set(err, LJ_CORRUPT,
                     "the store says it has %" PRIu64 " bytes of the upload, sent were %" PRIu64
                     " to %" PRIu64,
                     bytes, s->base, s->base + len);
        return lj_error_retryable(err, true);
    }
    *ret_have = (size_t)(bytes - s->base);
    return LJ_OK;
}

static lj_code forgotten(session *s, lj_error *err)
{
    s->gone = true;
    lj_error_set(err, LJ_UNAVAILABLE, "the store has forgotten the upload that was under way");
    (void)lj_error_hint(err, "it is begun anew");
    return lj_error_retryable(err, true);
}

/*
 * Sends buffer[from..len), or only asks what the store has (from == len). `last`: the object ends with it. *ret_have: so many
 * bytes of the buffer the store has now.
 */
static lj_code exchange(session *s, size_t from, size_t len, bool last, size_t *ret_have,
                        lj_error *err)
{
    char range[96];
    char hash[64] = "";
    char total[24] = "*";
    const char *headers[] = {range, NULL, NULL};
    if (last)
        (void)snprintf(total, sizeof(total), "%" PRIu64, s->base + len);
    if (from < len)
        (void)snprintf(range, sizeof(range), "Content-Range: bytes %" PRIu64 "-%" PRIu64 "/%s",
                       s->base + from, s->base + len - 1, total);
    else
        (void)snprintf(range, sizeof(range), "Content-Range: bytes */%s", total);
    if (last) {
        LJ_CLEANUP(lj_freep) char *sum = lj_gcs_crc32c_text(s->crc32c);
        if (sum == NULL)
            return lj_error_nomem(err);
        (void)snprintf(hash, sizeof(hash), "X-Goog-Hash: crc32c=%s", sum);
        headers[1] = hash;
    }
    lj_http_request request = LJ_HTTP_REQUEST("PUT", s->uri);
    request.headers = headers;
    request.body = s->buffer->data + from;
    request.body_len = len - from;
    request.body_max = LJ_GCS_OBJECT_BODY_MAX;
    LJ_TRY(lj_gcs_send(s->upload->gcs, &request, &s->response, err));
    int status = s->response.status;
    if (status == STATUS_INCOMPLETE)
        return read_persisted(s, len, ret_have, err);
    if (status == 404 || status == STATUS_HAS_FORGOTTEN)
        return forgotten(s, err);
    if (status / 100 != 2)
        return lj_gcs_upload_refused(s->upload, &s->response, err);
    s->complete = true;
    *ret_have = len;
    return LJ_OK;
}

/* ---- parts ---- */

static lj_code send_part(session *s, size_t len, bool last, lj_error *err)
{
    const bool *cancel = s->upload->gcs->cancel;
    size_t from = 0;
    bool ask = false; /* what became of the last request is not known */
    for (unsigned attempt = 0;;) {
        size_t have = 0;
        lj_error why = LJ_ERROR_INIT;
        lj_code code = exchange(s, ask ? len : from, len, last, &have, &why);
        if (last && code != LJ_OK && !lj_error_is_refusal(&why))
            s->unclear = true;
        if (code == LJ_OK && (s->complete || (have == len && !last)))
            return LJ_OK;
        bool moved = code == LJ_OK && have > from;
        if (moved)
            attempt = 0;
        else if (code == LJ_OK && !ask) {
            code = lj_error_set(&why, LJ_UNAVAILABLE, "the store took nothing of a part");
            (void)lj_error_retryable(&why, true);
        }
        if (code != LJ_OK &&
            (s->gone || !lj_retry_may_pass(&why) || ++attempt >= LJ_PARTS_ATTEMPTS)) {
            if (err != NULL)
                *err = why;
            return code;
        }
        if (code != LJ_OK && !lj_parts_pause(cancel, attempt - 1, why.retry_after_ns))
            return lj_error_set(err, LJ_CANCELLED, "the upload was cancelled");
        if (code == LJ_OK)
            from = have;
        ask = code != LJ_OK;
    }
}

/* Fills the buffer up, behind what is in it. */
static lj_code fill(session *s, lj_source *source, lj_error *err)
{
    lj_buf *b = s->buffer;
    while (b->len < PART_BYTES + 1) {
        size_t n = 0;
        LJ_TRY(source->read(source->ctx, b->data + b->len, PART_BYTES + 1 - b->len, &n, err));
        if (n == 0)
            break;
        b->len += n;
    }
    return LJ_OK;
}

static lj_code send_all(session *s, lj_source *source, lj_error *err)
{
    for (;;) {
        lj_buf *b = s->buffer;
        bool last = b->len <= PART_BYTES;
        size_t len = LJ_MIN(b->len, PART_BYTES);
        s->crc32c = lj_gcs_crc32c(s->crc32c, b->data, len);
        LJ_TRY(send_part(s, len, last, err));
        s->base += len;
        if (last)
            return LJ_OK;
        if (s->complete) {
            (void)lj_gcs_upload_discard(s->upload, &s->response);
            lj_error_set(err, LJ_CORRUPT, "the store ended the upload before its end");
            return lj_error_retryable(err, true);
        }
        b->data[0] = b->data[len];
        b->len = 1;
        LJ_TRY(fill(s, source, err));
    }
}

lj_code lj_gcs_resumable(const lj_gcs_upload *upload, lj_source *source, lj_buf *head,
                         lj_error *err)
{
    session s = {.upload = upload, .buffer = head, .response = LJ_HTTP_RESPONSE_INIT};
    lj_code code = begin(&s, err);
    if (code == LJ_OK) {
        code = send_all(&s, source, err);
        if (code == LJ_OK)
            code = lj_gcs_upload_check(upload, &s.response, s.base, s.crc32c, err);
        else if (!s.complete && !s.gone)
            abandon(&s);
        if (code != LJ_OK && s.unclear)
            code = lj_parts_unclear(err);
    }
    session_free(&s);
    return code;
}
