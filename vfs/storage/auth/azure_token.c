/*
 * azure_token.c - see azure_token.h.
 *
 * Layer: storage.
 */
#include "vfs/storage/auth/azure_token.h"

#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "vfs/base/str.h"

#define TOKEN_MAX       ((size_t)64 * 1024)
#define SECONDS_MAX     INT64_C(9000000000) /* what fits into nanoseconds, with room to add */
#define DESCRIPTION_MAX 300

static void json_freep(json_t **json)
{
    json_decref(*json);
}

static json_t *parse_object(const char *body, size_t len)
{
    json_t *json = json_loadb(body, len, 0, NULL);
    if (json != NULL && !json_is_object(json)) {
        json_decref(json);
        json = NULL;
    }
    return json;
}

/* ---- tokens ---- */

static lj_code useless(lj_error *err, const char *what)
{
    lj_error_set(err, LJ_UNAVAILABLE, "the answer %s", what);
    (void)lj_error_hint(err, "it is not that of a token endpoint; check what answers there");
    return lj_error_retryable(err, true);
}

/* A count of seconds, as a number or a text of one. */
static bool seconds_of(const json_t *value, int64_t *ret_seconds)
{
    uint64_t n = 0;
    if (json_is_integer(value) && json_integer_value(value) >= 0)
        n = (uint64_t)json_integer_value(value);
    else if (!json_is_string(value) || !lj_str_u64(json_string_value(value), &n))
        return false;
    *ret_seconds = (int64_t)LJ_MIN(n, (uint64_t)SECONDS_MAX);
    return true;
}

static lj_code take(const json_t *json, int64_t now_ns, lj_token *token, lj_error *err)
{
    const json_t *text = json_object_get(json, "access_token");
    size_t len = json_is_string(text) ? json_string_length(text) : 0;
    if (len == 0 || len > TOKEN_MAX)
        return useless(err, "has no access_token");
    for (size_t i = 0; i < len; i++) /* it goes into a header */
        if (!isgraph((unsigned char)json_string_value(text)[i]))
            return useless(err, "has an access_token that is none");
    int64_t seconds = 0;
    int64_t expires_ns = 0;
    if (seconds_of(json_object_get(json, "expires_on"), &seconds) && seconds > 0)
        expires_ns = seconds * LJ_NS_PER_S;
    else if (seconds_of(json_object_get(json, "expires_in"), &seconds))
        expires_ns = LJ_MIN(now_ns / LJ_NS_PER_S + seconds, SECONDS_MAX) * LJ_NS_PER_S;
    else
        return useless(err, "does not say when the token expires");
    LJ_TRY(lj_secret_set_bytes(&token->values[0], json_string_value(text), len, err));
    token->expires_ns = expires_ns;
    return LJ_OK;
}

lj_code lj_azure_token_parse(const char *body, size_t len, int64_t now_ns, lj_token *ret_token,
                             lj_error *err)
{
    LJ_CLEANUP(json_freep) json_t *json = parse_object(body, len);
    if (json == NULL)
        return useless(err, "is not a JSON object");
    lj_code code = take(json, now_ns, ret_token, err);
    const json_t *text = json_object_get(json, "access_token");
    if (json_is_string(text))
        lj_wipe((char *)json_string_value(text), json_string_length(text));
    return code;
}

/* ---- refusals ---- */

/* The hints for what Entra ID refuses, by the code its description begins with. */
static const struct {
    const char *code;
    const char *hint;
} entra_hints[] = {
    {"AADSTS7000215", "AZURE_CLIENT_SECRET is wrong: it is the secret's value, not its id"},
    {"AADSTS7000222", "the client secret has expired: make a new one and set AZURE_CLIENT_SECRET"},
    {"AADSTS700016", "there is no application AZURE_CLIENT_ID in the tenant AZURE_TENANT_ID"},
    {"AADSTS90002", "there is no tenant AZURE_TENANT_ID"},
    {"AADSTS900023", "AZURE_TENANT_ID is no id of a tenant"},
    {"AADSTS700024", "the federated token has expired, or this machine's clock is wrong"},
    {"AADSTS70021", "the application has no federated credential for this service account"},
    {"AADSTS700213", "the application has no federated credential for this service account"},
};

/* "error: first line of error_description", of printable characters. */
static void describe(const json_t *json, char *out, size_t size)
{
    const char *error = json_string_value(json_object_get(json, "error"));
    const char *description = json_string_value(json_object_get(json, "error_description"));
    out[0] = 0;
    (void)snprintf(out, size, "%s%s%s", error != NULL ? error : "",
                   error != NULL && description != NULL ? ": " : "",
                   description != NULL ? description : "");
    out[strcspn(out, "\r\n")] = 0;
    for (char *c = out; *c != 0; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = ' ';
}

static void hint_entra(const char *description, lj_error *err)
{
    for (size_t i = 0; i < LJ_ARRAY_LEN(entra_hints); i++) {
        const char *at = strstr(description, entra_hints[i].code);
        if (at != NULL && !isdigit((unsigned char)at[strlen(entra_hints[i].code)])) {
            (void)lj_error_hint(err, "%s", entra_hints[i].hint);
            return;
        }
    }
    (void)lj_error_hint(err, "check AZURE_TENANT_ID, AZURE_CLIENT_ID and the secret or the "
                             "federated token");
}

lj_code lj_azure_token_refused(const lj_http_response *response, bool managed, lj_error *err)
{
    char detail[DESCRIPTION_MAX] = "";
    LJ_CLEANUP(json_freep)
    json_t *json = parse_object(lj_buf_text(&response->body), response->body.len);
    if (json != NULL)
        describe(json, detail, sizeof(detail));
    int status = response->status;
    lj_code code = lj_http_status_error(response, "refused", detail, err);
    /* metadata services say 404, 410 and 429 while they are being updated */
    if (managed && (status == 404 || status == 410))
        code = LJ_UNAVAILABLE;
    else if (status >= 400 && status < 500 && status != 408 && status != 429)
        code = LJ_DENIED;
    if (err == NULL)
        return code;
    err->code = code;
    err->retryable = true;
    if (code == LJ_DENIED && managed)
        (void)lj_error_hint(err, "assign a managed identity to this machine, or set "
                                 "AZURE_CLIENT_ID to the client id of one that is assigned");
    else if (code == LJ_DENIED)
        hint_entra(detail, err);
    return code;
}
