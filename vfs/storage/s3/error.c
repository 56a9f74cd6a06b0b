/*
 * error.c - what the store's error answers mean, and what to do about them.
 *
 * The code in the answer's XML decides; the HTTP status only where there is none. A missing bucket must never look like a missing
 * object, and a 404 of a server that does not speak S3 neither: both would read as an empty replica.
 *
 * Layer: storage. Thread-safety: pure.
 */
#include <stdio.h>
#include <string.h>

#include "vfs/base/str.h"
#include "vfs/storage/s3/internal.h"
#include "vfs/storage/s3/xml.h"

/* ---- reading ---- */

static void copy_text(char *out, size_t size, const char *text)
{
    size_t n = 0;
    for (; text[n] != 0 && n + 1 < size; n++)
        out[n] = (char)((unsigned char)text[n] < 0x20 || text[n] == 0x7f ? ' ' : text[n]);
    while (n > 0 && ((unsigned char)text[n] & 0xC0) == 0x80)
        n--; /* not cut within a character */
    out[n] = 0;
}

static lj_code on_element(void *ctx, const char *path, const char *text, lj_error *err)
{
    (void)err;
    lj_s3_answer *answer = ctx;
    if (strcmp(path, "Code") == 0)
        copy_text(answer->code, sizeof(answer->code), text);
    else if (strcmp(path, "Message") == 0)
        copy_text(answer->message, sizeof(answer->message), text);
    else if (strcmp(path, "Endpoint") == 0)
        copy_text(answer->endpoint, sizeof(answer->endpoint), text);
    else if (strcmp(path, "Region") == 0 && lj_s3_region_valid(text))
        copy_text(answer->region, sizeof(answer->region), text);
    return LJ_OK;
}

void lj_s3_answer_read(const char *body, size_t len, lj_s3_answer *ret_answer)
{
    static const lj_s3_answer nothing;
    char root[LJ_S3_XML_NAME_MAX];
    *ret_answer = nothing;
    if (lj_s3_xml_read(body, len, on_element, ret_answer, root, NULL) != LJ_OK ||
        strcmp(root, "Error") != 0)
        *ret_answer = nothing;
}

/* ---- meaning ---- */

#define HINT_RIGHTS                                                                                \
    "the credentials need s3:ListBucket on the bucket and s3:GetObject, s3:PutObject, "            \
    "s3:DeleteObject, s3:AbortMultipartUpload on its objects; without s3:ListBucket a missing "    \
    "object gets this answer too"
#define HINT_RENEW  "renew the credentials, or use a source that renews them (a role, SSO)"
#define HINT_SLOWER "the store asks for fewer requests; what waits is sent later"
#define HINT_AGAIN  "nothing to do unless it lasts; then ask who runs the store"
#define HINT_ENDPOINT                                                                              \
    "check that \"endpoint\" is the address of an S3 service and has the right scheme"
#define HINT_REGION "set \"region\" to the region of the bucket, or \"endpoint\" to its address"

static const struct {
    const char *code; /* one that ends in '*' stands for all that start so */
    lj_code means;
    bool retryable;
    const char *hint;
} meanings[] = {
    {"NoSuchKey", LJ_NOTFOUND, false, NULL},
    {"NotFound", LJ_NOTFOUND, false, NULL},
    {"NoSuchBucket", LJ_INVALID, true, "create the bucket, or correct its name in the replica URL"},
    {"InvalidBucketName", LJ_INVALID, false, "correct the bucket in the replica URL"},
    {"AccessDenied", LJ_DENIED, true, HINT_RIGHTS},
    {"AllAccessDisabled", LJ_DENIED, true, "the bucket was blocked by who runs the store"},
    {"AccountProblem", LJ_DENIED, true, "the account was blocked by who runs the store"},
    {"InvalidAccessKeyId", LJ_DENIED, true,
     "the store does not know this access key: check AWS_ACCESS_KEY_ID or access-key-id, and that "
     "it belongs to this store"},
    {"SignatureDoesNotMatch", LJ_DENIED, true,
     "check the secret access key; if it is right, something between changes the requests"},
    {"ExpiredToken*", LJ_DENIED, true, HINT_RENEW},
    {"RequestExpired", LJ_DENIED, true, HINT_RENEW},
    {"TokenRefreshRequired", LJ_DENIED, true, HINT_RENEW},
    {"InvalidToken", LJ_DENIED, true,
     "the session token does not belong to the access key, or is cut short"},
    {"RequestTimeTooSkewed", LJ_DENIED, true, "set the clock of this machine (NTP)"},
    {"InvalidObjectState", LJ_DENIED, true,
     "the object was moved to an archive: restore it there first, and keep lifecycle rules from "
     "archiving replicas"},
    {"SlowDown*", LJ_UNAVAILABLE, true, HINT_SLOWER},
    {"ServiceUnavailable", LJ_UNAVAILABLE, true, HINT_SLOWER},
    {"Throttling*", LJ_UNAVAILABLE, true, HINT_SLOWER},
    {"RequestLimitExceeded", LJ_UNAVAILABLE, true, HINT_SLOWER},
    {"TooManyRequests*", LJ_UNAVAILABLE, true, HINT_SLOWER},
    {"InternalError", LJ_UNAVAILABLE, true, HINT_AGAIN},
    {"RequestTimeout", LJ_TIMEOUT, true, NULL},
    {"IncompleteBody", LJ_UNAVAILABLE, true, NULL},
    {"OperationAborted", LJ_UNAVAILABLE, true, NULL},
    {"ConditionalRequestConflict", LJ_UNAVAILABLE, true,
     "somebody else wrote the same object at the same moment"},
    {"NoSuchUpload", LJ_UNAVAILABLE, true,
     "the unfinished upload was removed; a lifecycle rule that does so must wait a day at least"},
    {"BadDigest", LJ_UNAVAILABLE, true, "bytes changed on their way to the store"},
    {"XAmzContentSHA256Mismatch", LJ_UNAVAILABLE, true, "bytes changed on their way to the store"},
    {"PreconditionFailed", LJ_EXISTS, false, NULL},
    {"PermanentRedirect", LJ_INVALID, true, HINT_REGION},
    {"TemporaryRedirect", LJ_UNAVAILABLE, true, HINT_REGION},
    {"AuthorizationHeaderMalformed", LJ_INVALID, true, HINT_REGION},
    {"IllegalLocationConstraintException", LJ_INVALID, true, HINT_REGION},
    {"EntityTooLarge", LJ_INVALID, false,
     "the store limits the size of objects more than Amazon does"},
    {"EntityTooSmall", LJ_INVALID, false,
     "the store wants larger parts than 8 MiB in a large upload"},
    {"InvalidStorageClass", LJ_INVALID, false, "correct \"storage-class\""},
    {"NotImplemented", LJ_UNSUPPORTED, false,
     "leave out settings that this store may not know (storage-class, sse, conditional)"},
    {"QuotaExceeded", LJ_NOSPACE, true, "free space in the bucket, or raise its quota"},
    {"XMinioStorageFull", LJ_NOSPACE, true, "the disks of the store are full"},
    {"KMS.*", LJ_DENIED, true,
     "check that the KMS key exists and is enabled in the bucket's region, and may be used by "
     "these "
     "credentials"},
};

static size_t find_meaning(const char *code)
{
    for (size_t i = 0; i < LJ_ARRAY_LEN(meanings); i++) {
        const char *known = meanings[i].code;
        size_t len = strlen(known);
        if (known[len - 1] == '*' ? strncmp(code, known, len - 1) == 0 : strcmp(code, known) == 0)
            return i;
    }
    return LJ_ARRAY_LEN(meanings);
}

/* Corrects an error by what the code means. */
static lj_code apply(const char *code, lj_error *err)
{
    size_t i = find_meaning(code);
    if (i == LJ_ARRAY_LEN(meanings) && err->code == LJ_NOTFOUND) {
        err->code = LJ_INVALID; /* something is missing, but nobody said that it is the object */
        (void)lj_error_hint(err, HINT_ENDPOINT);
        return lj_error_retryable(err, true);
    }
    if (i == LJ_ARRAY_LEN(meanings))
        return err->code;
    err->code = meanings[i].means;
    if (meanings[i].hint != NULL)
        (void)lj_error_hint(err, "%s", meanings[i].hint);
    return lj_error_retryable(err, meanings[i].retryable);
}

/* An answer without a code: HEAD has no body, and what is not S3 does not know our errors. */
static lj_code apply_status(const lj_http_response *response, lj_error *err)
{
    int status = response->status;
    if (status == 404 || status == 405) {
        err->code = LJ_INVALID;
        (void)lj_error_hint(err, HINT_ENDPOINT);
        return lj_error_retryable(err, true);
    }
    if (status >= 300 && status < 400) {
        err->code = LJ_INVALID;
        (void)lj_error_hint(err, "the server redirects elsewhere; " HINT_ENDPOINT);
        return lj_error_retryable(err, true);
    }
    if (status == 401 || status == 403)
        (void)lj_error_hint(err, HINT_RIGHTS);
    return err->code;
}

lj_code lj_s3_answer_error(const lj_http_response *response, const lj_s3_answer *answer,
                           const char *what, lj_error *err)
{
    lj_error local = LJ_ERROR_INIT;
    lj_error *error = err != NULL ? err : &local;
    char detail[LJ_S3_CODE_MAX + 2 * LJ_S3_MESSAGE_MAX + 32] = "";
    if (answer->code[0] != 0) {
        bool elsewhere = answer->endpoint[0] != 0;
        (void)snprintf(detail, sizeof(detail), "%s%s%s%s%s%s", answer->code,
                       answer->message[0] != 0 ? ": " : "", answer->message, elsewhere ? " (" : "",
                       answer->endpoint, elsewhere ? ")" : "");
    }
    (void)lj_http_status_error(response, what, detail, error);
    return answer->code[0] != 0 ? apply(answer->code, error) : apply_status(response, error);
}

lj_code lj_s3_code_error(const char *code, const char *message, const char *what, lj_error *err)
{
    char shown[LJ_S3_MESSAGE_MAX];
    copy_text(shown, sizeof(shown), message);
    (void)lj_error_set(err, LJ_UNAVAILABLE, "%s: %.64s%s%s", what, code, shown[0] != 0 ? ": " : "",
                       shown);
    (void)lj_error_retryable(err, true);
    return apply(code, err);
}
