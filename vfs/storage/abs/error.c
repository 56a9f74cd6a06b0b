/*
 * error.c - what the store's refusals mean, and what to do about them.
 *
 * Layer: storage. Thread-safety: pure. Source: "Common REST API error codes" and "Blob Storage error codes".
 */
#include <stdio.h>
#include <string.h>

#include "vfs/base/clock.h"
#include "vfs/base/str.h"
#include "vfs/storage/abs/internal.h"

typedef struct {
    const char *code; /* x-ms-error-code */
    lj_code means;
    bool retryable;
    const char *hint; /* may be NULL */
} meaning;

static const meaning meanings[] = {
    {"BlobNotFound", LJ_NOTFOUND, false, NULL},
    {"ContainerNotFound", LJ_INVALID, true,
     "create the container, or correct its name in the abs:// URL"},
    {"ContainerBeingDeleted", LJ_UNAVAILABLE, true,
     "the container is being deleted; it can be created again when that is through"},
    {"ContainerDisabled", LJ_DENIED, true, "the container was disabled by an administrator"},
    {"ResourceNotFound", LJ_INVALID, true,
     "check the account and the container; does the endpoint have the account in its path, as an "
     "emulator wants it?"},
    {"InvalidResourceName", LJ_INVALID, false, "check the container's name in the abs:// URL"},
    {"AccountIsDisabled", LJ_DENIED, true,
     "the storage account is disabled; look at the subscription in the portal"},
    {"AccountBeingCreated", LJ_UNAVAILABLE, true, NULL},
    {"AuthorizationProtocolMismatch", LJ_DENIED, true, "the SAS token is for https:// only"},
    {"AuthorizationSourceIPMismatch", LJ_DENIED, true,
     "the SAS token is for other IP addresses than this machine's"},
    {"AuthorizationServiceMismatch", LJ_DENIED, true, "the SAS token is not for blobs (ss=b)"},
    {"AuthorizationResourceTypeMismatch", LJ_DENIED, true,
     "the SAS token is not for containers and objects (srt=co, or sr=c)"},
    {"InsufficientAccountPermissions", LJ_DENIED, true,
     "the account is read-only or lacks permissions; look at it in the portal"},
    {"KeyBasedAuthenticationNotPermitted", LJ_DENIED, true,
     "the account takes no account keys: use a managed identity or a service principal"},
    {"PublicAccessNotPermitted", LJ_DENIED, true, "no credentials reached the store"},
    {"BlobImmutableDueToPolicy", LJ_DENIED, true,
     "an immutability policy or a legal hold keeps the blob as it is"},
    {"BlobArchived", LJ_DENIED, true, "the blob is in the archive tier: rehydrate it first"},
    {"BlobBeingRehydrated", LJ_UNAVAILABLE, true,
     "the blob comes back from the archive tier, which takes hours"},
    {"LeaseIdMissing", LJ_DENIED, true, "somebody holds a lease on it: break the lease"},
    {"InvalidBlobType", LJ_INVALID, false, "a blob of another type than block blob has that name"},
    {"InvalidBlobOrBlock", LJ_INVALID, true,
     "an unfinished upload of another program uses block ids of another length; Azure removes it "
     "after a week, or delete its uncommitted blob"},
    {"InvalidBlockList", LJ_UNAVAILABLE, true,
     "another upload of the same object was finished meanwhile"},
    {"Md5Mismatch", LJ_UNAVAILABLE, true, "the content was damaged on its way"},
    {"OperationTimedOut", LJ_TIMEOUT, true, NULL},
    {"ServerBusy", LJ_UNAVAILABLE, true,
     "the store limits the rate of requests; a longer sync interval makes fewer"},
    {"InternalError", LJ_UNAVAILABLE, true, NULL},
};

static const meaning *meaning_of(const char *code)
{
    for (size_t i = 0; i < LJ_ARRAY_LEN(meanings); i++)
        if (strcmp(meanings[i].code, code) == 0)
            return &meanings[i];
    return NULL;
}

/* ---- hints that depend on the credentials ---- */

/* The SAS token's own end (se=), if it has one that is over. Not a secret. */
static bool is_over(const lj_secret *sas, char *out, size_t size)
{
    const char *text = lj_secret_text(sas);
    const char *at = strncmp(text, "se=", 3) == 0 ? text : strstr(text, "&se=");
    if (at == NULL)
        return false;
    at += strcspn(at, "=") + 1;
    size_t n = 0;
    for (; *at != 0 && *at != '&' && n + 1 < size; at++) {
        bool colon = strncasecmp(at, "%3a", 3) == 0;
        out[n++] = colon ? ':' : *at;
        at += colon ? 2 : 0;
    }
    out[n] = 0;
    int64_t end_ns = 0;
    return lj_clock_parse(out, &end_ns, NULL) == LJ_OK && end_ns <= lj_clock_wall_ns();
}

static lj_code hint_authentication(const lj_abs *abs, lj_error *err)
{
    const lj_azure_provider *provider = abs->target.provider;
    const char *origin = lj_azure_provider_origin(provider);
    char end[LJ_CLOCK_TEXT_MAX];
    switch (lj_azure_provider_kind(provider)) {
    case LJ_AZURE_KEY:
        return lj_error_hint(err,
                             "check the account's name and its key (%s), and this machine's "
                             "clock",
                             origin);
    case LJ_AZURE_SAS:
        if (is_over(lj_azure_provider_secret(provider), end, sizeof(end)))
            return lj_error_hint(err, "the SAS token (%s) ended at %s: make a new one", origin,
                                 end);
        return lj_error_hint(err,
                             "check the SAS token (%s): whether it has ended, was revoked, or "
                             "is for another container",
                             origin);
    case LJ_AZURE_BEARER:
        break;
    }
    return lj_error_hint(err,
                         "the store does not take the token of %s; is the identity of the "
                         "account's tenant?",
                         origin);
}

static lj_code hint_permission(const lj_abs *abs, lj_error *err)
{
    const char *origin = lj_azure_provider_origin(abs->target.provider);
    if (lj_azure_provider_kind(abs->target.provider) == LJ_AZURE_SAS)
        return lj_error_hint(err,
                             "the SAS token (%s) must permit reading, creating, writing, "
                             "deleting and listing (sp=rcwdl)",
                             origin);
    return lj_error_hint(err,
                         "give the identity (%s) the role \"Storage Blob Data Contributor\" "
                         "on the container",
                         origin);
}

/* Azure means its network rules or the scope of a SAS token, an emulator also means a wrong signature. */
static lj_code hint_authorization(const lj_abs *abs, lj_error *err)
{
    const lj_azure_provider *provider = abs->target.provider;
    const char *origin = lj_azure_provider_origin(provider);
    char end[LJ_CLOCK_TEXT_MAX];
    if (lj_azure_provider_kind(provider) != LJ_AZURE_SAS)
        return lj_error_hint(err,
                             "the account's firewall may not let this machine in; on an "
                             "emulator, check the credentials (%s)",
                             origin);
    if (is_over(lj_azure_provider_secret(provider), end, sizeof(end)))
        return hint_authentication(abs, err);
    return lj_error_hint(err,
                         "the SAS token (%s) may be for another container or service, or the "
                         "account's firewall does not let this machine in",
                         origin);
}

static void hint_denied(const lj_abs *abs, const char *code, lj_error *err)
{
    if (strcmp(code, "AuthorizationPermissionMismatch") == 0 ||
        strcmp(code, "UnauthorizedBlobOverwrite") == 0)
        (void)hint_permission(abs, err);
    else if (strcmp(code, "AuthorizationFailure") == 0)
        (void)hint_authorization(abs, err);
    else
        (void)hint_authentication(abs, err);
}

/* ---- all of it ---- */

void lj_abs_error_code(const lj_http_response *response, char code[LJ_ABS_CODE_MAX])
{
    char message[LJ_ABS_MESSAGE_MAX];
    if (!lj_http_header(response, "x-ms-error-code", code, LJ_ABS_CODE_MAX))
        lj_abs_parse_error(response->body.data, response->body.len, code, message);
}

/* Never the signature, should a server repeat it. */
static bool has_signature(const lj_abs *abs, const char *text)
{
    if (lj_azure_provider_kind(abs->target.provider) != LJ_AZURE_SAS)
        return false;
    const char *sas = lj_secret_text(lj_azure_provider_secret(abs->target.provider));
    const char *at = strstr(sas, "sig=");
    char start[9] = ""; /* enough of it to know it by, before its first encoded character */
    for (size_t i = 0; at != NULL && i + 1 < sizeof(start) && at[4 + i] != 0; i++) {
        if (at[4 + i] == '%' || at[4 + i] == '&')
            break;
        start[i] = at[4 + i];
    }
    return strstr(text, "sig=") != NULL || (start[0] != 0 && strstr(text, start) != NULL);
}

/* Whether the refusal of an if_absent put means that the blob is there. */
static bool means_exists(const lj_http_response *response, const char *code)
{
    if (strcmp(code, "BlobAlreadyExists") == 0 || strcmp(code, "UnauthorizedBlobOverwrite") == 0)
        return true;
    return response->status == 412 && !lj_str_starts(code, "Lease");
}

static void set_code(lj_error *err, lj_code code, bool retryable, const char *hint)
{
    if (err == NULL)
        return;
    err->code = code;
    err->retryable = retryable;
    if (hint != NULL)
        (void)lj_error_hint(err, "%s", hint);
}

lj_code lj_abs_error(const lj_abs *abs, const lj_abs_request *request,
                     const lj_http_response *response, lj_error *err)
{
    char code[LJ_ABS_CODE_MAX];
    char body_code[LJ_ABS_CODE_MAX];
    char text[LJ_ABS_MESSAGE_MAX];
    char detail[LJ_ABS_CODE_MAX + LJ_ABS_MESSAGE_MAX + 2];
    lj_abs_error_code(response, code);
    lj_abs_parse_error(response->body.data, response->body.len, body_code, text);
    (void)snprintf(detail, sizeof(detail), "%s%s%s", code, code[0] != 0 && text[0] != 0 ? ": " : "",
                   text);
    if (has_signature(abs, detail))
        (void)snprintf(detail, sizeof(detail), "%s", has_signature(abs, code) ? "" : code);
    lj_code result = lj_http_status_error(response, request->method, detail, err);
    const meaning *known = meaning_of(code);
    if (request->if_absent && means_exists(response, code)) {
        set_code(err, LJ_EXISTS, false, NULL);
        return LJ_EXISTS;
    }
    if (known != NULL) {
        set_code(err, known->means, known->retryable, known->hint);
        return known->means;
    }
    if (result == LJ_DENIED)
        hint_denied(abs, code, err);
    if (result == LJ_NOTFOUND) {
        /* not the word of a blob store about a blob: a proxy, a wrong endpoint */
        result = LJ_UNAVAILABLE;
        set_code(err, result, true,
                 "this is no answer about a blob: check the endpoint, and "
                 "whether a proxy stands between");
    } else if (result == LJ_EXISTS || response->status == 409) {
        result =
            LJ_UNAVAILABLE; /* a condition of the store's that is not known here, and may pass */
        set_code(err, result, true, NULL);
    }
    return result;
}
