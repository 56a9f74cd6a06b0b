/*
 * request.c - see internal.h: a request with its token, and what refusals mean.
 *
 * Layer: storage. Thread-safety: as internal.h.
 * Invariant: the token goes only to the endpoint's own origin, never over a connection that anyone can read (gcs.c sees to
 * the endpoint), and its copies are wiped.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/clock.h"
#include "vfs/base/str.h"
#include "vfs/storage/gcs/internal.h"

#define HEADERS_MAX   4u
#define SEEN_FRESH_NS (10 * LJ_NS_PER_S)

/* ---- sending ---- */

/* The session of a resumable upload may be at another host; it lets in whoever knows its URI. */
static bool same_origin(const lj_gcs *gcs, const char *url)
{
    const char *host = strstr(gcs->base, "://") + 3;
    size_t len = (size_t)(host - gcs->base) + strcspn(host, "/");
    return strncmp(url, gcs->base, len) == 0 && url[len] == '/';
}

static lj_code perform(lj_gcs *gcs, const lj_http_request *request, const lj_token *token,
                       lj_http_response *response, lj_error *err)
{
    const char *headers[HEADERS_MAX + 2] = {NULL};
    size_t n = 0;
    for (; request->headers != NULL && request->headers[n] != NULL && n < HEADERS_MAX; n++)
        headers[n] = request->headers[n];
    LJ_CLEANUP(lj_wipe_freep) char *authorization = NULL;
    if (token != NULL) {
        authorization =
            lj_str_printf("Authorization: Bearer %s", lj_secret_text(&token->values[0]));
        if (authorization == NULL)
            return lj_error_nomem(err);
        headers[n] = authorization;
    }
    lj_http_request full = *request;
    full.headers = headers;
    return lj_http_perform(gcs->http, &full, response, err);
}

lj_code lj_gcs_send(lj_gcs *gcs, const lj_http_request *request, lj_http_response *response,
                    lj_error *err)
{
    if (gcs->google == NULL || !same_origin(gcs, request->url))
        return perform(gcs, request, NULL, response, err);
    lj_token_source *source = lj_google_provider_token(gcs->google);
    for (int attempt = 0;; attempt++) {
        LJ_CLEANUP(lj_token_free) lj_token token = LJ_TOKEN_INIT;
        LJ_TRY(lj_token_get_until(source, gcs->cancel, &token, err));
        LJ_TRY(perform(gcs, request, &token, response, err));
        if (response->status != 401 || attempt > 0)
            return LJ_OK;
        lj_token_expired(source, &token);
        if (request->source != NULL)
            LJ_TRY(request->source->rewind(request->source->ctx, err));
    }
}

/* ---- refusals ---- */

void lj_gcs_seen(lj_gcs *gcs)
{
    atomic_store_explicit(&gcs->seen_ns, lj_clock_mono_ns(), memory_order_relaxed);
}

static bool is_one_of(const char *text, const char *const *list)
{
    for (; *list != NULL; list++)
        if (strcmp(text, *list) == 0)
            return true;
    return false;
}

static lj_code recode(lj_error *err, lj_code code)
{
    if (err != NULL)
        err->code = code;
    (void)lj_error_retryable(err, true);
    return code;
}

static lj_code no_bucket(const lj_gcs *gcs, const lj_http_response *response, lj_error *err)
{
    lj_error_set(err, LJ_INVALID, "the bucket \"%s\" does not exist (HTTP %d)", gcs->bucket,
                 response->status);
    if (err != NULL)
        err->http_status = response->status;
    (void)lj_error_hint(err,
                        "create it (gcloud storage buckets create gs://%.64s), or correct the "
                        "replica's URL; buckets are not created here",
                        gcs->bucket);
    return lj_error_retryable(err, true);
}

/* 403: too many requests or too much traffic also come this way. */
static lj_code forbidden(const lj_gcs *gcs, const lj_gcs_refusal *refusal, lj_error *err)
{
    static const char *const throttled[] = {"rateLimitExceeded",
                                            "userRateLimitExceeded",
                                            "quotaExceeded",
                                            "dailyLimitExceeded",
                                            "limitExceeded",
                                            "concurrentLimitExceeded",
                                            NULL};
    static const char *const held[] = {"retentionPolicyNotMet", "objectUnderActiveHold", NULL};
    if (is_one_of(refusal->reason, throttled)) {
        (void)lj_error_hint(err,
                            "requests or traffic are above the quota of the project; raise it, "
                            "or replicate less often");
        return recode(err, LJ_UNAVAILABLE);
    }
    if (is_one_of(refusal->reason, held))
        return lj_error_hint(err, "a retention policy or a hold of the bucket keeps the object; "
                                  "retention here must keep it at least as long");
    return lj_error_hint(err,
                         "the credentials need the role Storage Object User "
                         "(roles/storage.objectUser) on gs://%.64s",
                         gcs->bucket);
}

lj_code lj_gcs_refused(lj_gcs *gcs, const lj_http_response *response, const char *what,
                       lj_error *err)
{
    lj_gcs_refusal refusal;
    lj_gcs_refusal_parse(lj_buf_text(&response->body), response->body.len, &refusal);
    if (response->status == 404)
        return no_bucket(gcs, response, err);
    char detail[sizeof(refusal.reason) + sizeof(refusal.message) + 4];
    (void)snprintf(detail, sizeof(detail), "%s%s%s%s", refusal.message,
                   refusal.reason[0] != 0 ? " (" : "", refusal.reason,
                   refusal.reason[0] != 0 ? ")" : "");
    lj_code code = lj_http_status_error(response, what, detail, err);
    switch (response->status) {
    case 400:
        if (strstr(refusal.message, "match") != NULL &&
            (strstr(refusal.message, "CRC32C") != NULL ||
             strstr(refusal.message, "crc32c") != NULL))
            return recode(err, LJ_IO); /* damaged on the way: the store kept nothing */
        if (strcmp(refusal.reason, "userProjectMissing") == 0)
            return lj_error_hint(err, "the requester pays for this bucket: name the project that "
                                      "does in the setting user-project");
        return code;
    case 401:
        return lj_error_hint(err, "the token was refused, a fresh one too; check that the "
                                  "credentials are still enabled");
    case 403:
        return forbidden(gcs, &refusal, err);
    case 409: /* another request on the same object is under way */
        return recode(err, LJ_UNAVAILABLE);
    default:
        return code;
    }
}

/* ---- absent object or absent bucket ---- */

static lj_code pass_over(void *ctx, const char *name, const lj_gcs_object *object, lj_error *err)
{
    (void)ctx, (void)name, (void)object, (void)err;
    return LJ_OK;
}

static lj_code look_at_bucket(lj_gcs *gcs, lj_error *err)
{
    LJ_CLEANUP(lj_freep) char *token = NULL;
    LJ_CLEANUP(lj_buf_free) lj_buf url = LJ_GCS_URL_INIT;
    LJ_CLEANUP(lj_http_response_free) lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    LJ_TRY(lj_gcs_url(gcs, false, NULL, &url, err));
    LJ_TRY(lj_gcs_param(&url, "maxResults", "1", err));
    LJ_TRY(lj_gcs_param(&url, "fields", "kind", err));
    /* an emulator may not know maxResults and answer with everything */
    lj_http_request request = LJ_HTTP_REQUEST("GET", lj_buf_text(&url));
    request.body_max = LJ_GCS_PAGE_BODY_MAX;
    LJ_TRY(lj_gcs_send(gcs, &request, &response, err));
    if (response.status / 100 != 2)
        return lj_gcs_refused(gcs, &response, "looking whether the bucket is there", err);
    /* a page of something between says 200, too */
    LJ_TRY(lj_gcs_page_parse(lj_buf_text(&response.body), response.body.len, pass_over, NULL,
                             &token, err));
    lj_gcs_seen(gcs);
    return LJ_OK;
}

lj_code lj_gcs_absent(lj_gcs *gcs, const lj_http_response *response, lj_error *err)
{
    lj_gcs_refusal refusal;
    lj_gcs_refusal_parse(lj_buf_text(&response->body), response->body.len, &refusal);
    if (strstr(refusal.message, "bucket does not exist") != NULL)
        return no_bucket(gcs, response, err);
    int64_t seen_ns = atomic_load_explicit(&gcs->seen_ns, memory_order_relaxed);
    if (seen_ns == 0 || lj_clock_mono_ns() - seen_ns > SEEN_FRESH_NS)
        LJ_TRY(look_at_bucket(gcs, err));
    lj_error_set(err, LJ_NOTFOUND, "there is no such object");
    if (err != NULL)
        err->http_status = response->status;
    return LJ_NOTFOUND;
}
