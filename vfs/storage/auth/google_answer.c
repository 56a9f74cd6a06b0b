/*
 * google_answer.c - see google_internal.h: the JWT that is sent to a token service, and what comes back.
 *
 * The JSON tree of a text with secrets is wiped before it is freed (the parser's own scratch memory cannot be reached).
 *
 * Layer: storage. Thread-safety: pure.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "vfs/base/clock.h"
#include "vfs/base/str.h"
#include "vfs/storage/auth/crypto.h"
#include "vfs/storage/auth/google_internal.h"

#define JWT_LIFE_S     3600
#define CLOCK_SLACK_S  10 /* our clock may be ahead of theirs */
#define DEFAULT_LIFE_S UINT64_C(3600)

/* ---- JSON ---- */

/* Depth is bounded by the parser (2,048). */
static void wipe_strings(json_t *json)
{
    if (json_is_string(json))
        lj_wipe((char *)(uintptr_t)json_string_value(json), json_string_length(json));
    else if (json_is_object(json))
        for (void *i = json_object_iter(json); i != NULL; i = json_object_iter_next(json, i))
            wipe_strings(json_object_iter_value(i));
    else if (json_is_array(json))
        for (size_t i = 0; i < json_array_size(json); i++)
            wipe_strings(json_array_get(json, i));
}

void lj_google_json_free(json_t **json)
{
    if (*json == NULL)
        return;
    wipe_strings(*json);
    json_decref(*json);
    *json = NULL;
}

json_t *lj_google_json_parse(const char *text, size_t len)
{
    json_t *root = json_loadb(text, len, 0, NULL);
    if (root != NULL && !json_is_object(root))
        lj_google_json_free(&root);
    return root;
}

const char *lj_google_json_text(const json_t *object, const char *name)
{
    return json_string_value(json_object_get(object, name));
}

int lj_google_json_more(const char *text, size_t len, void *buf)
{
    return lj_buf_append(buf, text, len, NULL) == LJ_OK ? 0 : -1;
}

/* ---- the JWT ---- */

/* base64url of an object, which is freed; NULL when out of memory. */
static char *encode_object(json_t *object)
{
    LJ_CLEANUP(lj_buf_free) lj_buf text = LJ_BUF_INIT(LJ_GOOGLE_FILE_MAX);
    bool good =
        object != NULL && json_dump_callback(object, lj_google_json_more, &text, JSON_COMPACT) == 0;
    json_decref(object);
    return good ? lj_base64url(text.data, text.len) : NULL;
}

lj_code lj_google_jwt(const lj_google_file *file, const char *scope, int64_t now_ns,
                      lj_secret *ret_jwt, lj_error *err)
{
    int64_t issued = now_ns / LJ_NS_PER_S - CLOCK_SLACK_S;
    int64_t expires = issued + JWT_LIFE_S;
    const char *audience =
        lj_secret_is_set(&file->token_url) ? lj_secret_text(&file->token_url) : LJ_GOOGLE_TOKEN_URL;
    const char *key_id =
        lj_secret_is_set(&file->private_key_id) ? lj_secret_text(&file->private_key_id) : NULL;
    LJ_CLEANUP(lj_freep)
    char *head =
        encode_object(json_pack("{s:s, s:s, s:s*}", "alg", "RS256", "typ", "JWT", "kid", key_id));
    LJ_CLEANUP(lj_freep)
    char *claims = encode_object(
        json_pack("{s:s, s:s, s:s, s:I, s:I}", "iss", lj_secret_text(&file->client_email), "scope",
                  scope, "aud", audience, "iat", (json_int_t)issued, "exp", (json_int_t)expires));
    LJ_CLEANUP(lj_freep)
    char *content = head != NULL && claims != NULL ? lj_str_printf("%s.%s", head, claims) : NULL;
    if (content == NULL)
        return lj_error_nomem(err);
    LJ_CLEANUP(lj_wipe_freep) char *signature = NULL;
    LJ_TRY(lj_rs256(&file->private_key, content, strlen(content), &signature, err));
    LJ_CLEANUP(lj_wipe_freep) char *jwt = lj_str_printf("%s.%s", content, signature);
    return jwt != NULL ? lj_secret_set(ret_jwt, jwt, err) : lj_error_nomem(err);
}

/* ---- answers ---- */

static lj_code malformed(lj_error *err, const char *what)
{
    lj_error_set(err, LJ_CORRUPT, "the token service's answer is malformed: %s", what);
    return lj_error_retryable(err, true);
}

/* What may stand in a header: no blank, no line break. */
static bool is_token(const char *text)
{
    size_t len = strlen(text);
    if (len == 0 || len > LJ_GOOGLE_TOKEN_MAX)
        return false;
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)text[i] <= 0x20 || (unsigned char)text[i] >= 0x7f)
            return false;
    return true;
}

static bool read_life(const json_t *root, uint64_t *ret_seconds)
{
    const json_t *value = json_object_get(root, "expires_in");
    if (value == NULL)
        *ret_seconds = DEFAULT_LIFE_S;
    else if (json_is_string(value))
        return lj_str_u64(json_string_value(value), ret_seconds);
    else if (json_is_integer(value) && json_integer_value(value) >= 0)
        *ret_seconds = (uint64_t)json_integer_value(value);
    else
        return false;
    return true;
}

static lj_code read_expiry(const json_t *root, bool camel, int64_t now_ns, int64_t *ret_ns,
                           lj_error *err)
{
    int64_t latest_ns = now_ns + (int64_t)LJ_GOOGLE_LIFE_MAX_S * LJ_NS_PER_S;
    if (camel) {
        const char *time = lj_google_json_text(root, "expireTime");
        if (time == NULL || lj_clock_parse(time, ret_ns, NULL) != LJ_OK)
            return malformed(err, "expireTime");
        *ret_ns = LJ_MIN(*ret_ns, latest_ns);
        return LJ_OK;
    }
    uint64_t seconds = 0;
    if (!read_life(root, &seconds))
        return malformed(err, "expires_in");
    *ret_ns = now_ns + (int64_t)LJ_MIN(seconds, LJ_GOOGLE_LIFE_MAX_S) * LJ_NS_PER_S;
    return LJ_OK;
}

lj_code lj_google_answer_parse(const char *text, size_t len, int64_t now_ns, lj_token *ret_token,
                               lj_error *err)
{
    LJ_CLEANUP(lj_google_json_free) json_t *root = lj_google_json_parse(text, len);
    if (root == NULL)
        return malformed(err, "not a JSON object");
    bool camel = json_object_get(root, "accessToken") != NULL;
    const char *token = lj_google_json_text(root, camel ? "accessToken" : "access_token");
    const char *type = lj_google_json_text(root, "token_type");
    int64_t expires_ns = 0;
    if (token == NULL || !is_token(token))
        return malformed(err, "no access token");
    if (type != NULL && strcasecmp(type, "Bearer") != 0)
        return malformed(err, "a token that is no bearer token");
    LJ_TRY(read_expiry(root, camel, now_ns, &expires_ns, err));
    LJ_TRY(lj_secret_set(&ret_token->values[LJ_GOOGLE_BEARER], token, err));
    ret_token->expires_ns = expires_ns;
    return LJ_OK;
}

void lj_google_refusal_text(const char *text, size_t len, char *out, size_t size)
{
    LJ_CLEANUP(lj_google_json_free) json_t *root = lj_google_json_parse(text, len);
    const json_t *error = json_object_get(root, "error");
    const char *code =
        json_is_object(error) ? lj_google_json_text(error, "status") : json_string_value(error);
    const char *more = json_is_object(error) ? lj_google_json_text(error, "message")
                                             : lj_google_json_text(root, "error_description");
    (void)snprintf(out, size, "%.60s%s%.140s", code != NULL ? code : "",
                   code != NULL && more != NULL ? ": " : "", more != NULL ? more : "");
    for (char *c = out; *c != 0; c++)
        if ((unsigned char)*c < 0x20 || (unsigned char)*c >= 0x7f)
            *c = ' ';
}

lj_code lj_google_subject_parse(const lj_google_file *file, const char *text, size_t len,
                                lj_secret *ret_subject, lj_error *err)
{
    LJ_CLEANUP(lj_google_json_free) json_t *root = NULL;
    const char *subject = text;
    if (lj_secret_is_set(&file->source_field)) {
        root = lj_google_json_parse(text, len);
        subject = lj_google_json_text(root, lj_secret_text(&file->source_field));
        len = subject != NULL ? strlen(subject) : 0;
    }
    while (len > 0 && strchr(" \t\r\n", subject[len - 1]) != NULL)
        len--;
    if (subject == NULL || len == 0 || memchr(subject, 0, len) != NULL) {
        lj_error_set(err, LJ_DENIED, "the external account's token is not where its file says");
        (void)lj_error_hint(err, "look at credential_source in the credentials file, and at what "
                                 "writes the token");
        return lj_error_retryable(err, true);
    }
    return lj_secret_set_bytes(ret_subject, subject, len, err);
}
