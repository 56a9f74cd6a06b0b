/*
 * google_file.c - see google_internal.h: the credentials file, the JWT, and what token services answer.
 *
 * The JSON tree of a text with secrets is wiped before it is freed. Messages name fields, never values, and not what the JSON
 * parser says, because it quotes the text.
 *
 * Layer: storage. Thread-safety: pure.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "vfs/base/clock.h"
#include "vfs/base/str.h"
#include "vfs/storage/auth/crypto.h"
#include "vfs/storage/auth/google_internal.h"

#define JWT_LIFE_S      3600
#define CLOCK_SLACK_S   10 /* our clock may be ahead of theirs */
#define DEFAULT_LIFE_S  UINT64_C(3600)
#define IMPERSONATION_S UINT64_C(3600)
#define UNIVERSE        "googleapis.com"

/* ---- JSON ---- */

/* Depth is bounded by the parser (2,048). */
static void wipe_strings(json_t *json)
{
    const char *name = NULL;
    json_t *value = NULL;
    size_t i = 0;
    if (json_is_string(json))
        lj_wipe((char *)(uintptr_t)json_string_value(json), json_string_length(json));
    else if (json_is_object(json))
        json_object_foreach(json, name, value) wipe_strings(value);
    else if (json_is_array(json))
        json_array_foreach(json, i, value) wipe_strings(value);
}

static void free_json(json_t **json)
{
    if (*json == NULL)
        return;
    wipe_strings(*json);
    json_decref(*json);
    *json = NULL;
}

static json_t *parse_object(const char *text, size_t len)
{
    json_t *root = json_loadb(text, len, 0, NULL);
    if (root != NULL && !json_is_object(root))
        free_json(&root);
    return root;
}

static const char *text_of(const json_t *object, const char *name)
{
    return json_string_value(json_object_get(object, name));
}

/* ---- the file ---- */

void lj_google_file_free(lj_google_file *file)
{
#define X(field) lj_secret_free(&file->field);
    LJ_GOOGLE_FIELD_MAP(X)
#undef X
    for (size_t i = 0; i < LJ_GOOGLE_HEADERS_MAX; i++)
        lj_secret_free(&file->source_headers[i]);
}

bool lj_google_url_ok(const char *url)
{
    static const char *const near[] = {"localhost", "[::1]", "metadata.google.internal"};
    bool tls = strncasecmp(url, "https://", 8) == 0;
    if (!tls && strncasecmp(url, "http://", 7) != 0)
        return false;
    for (const char *c = url; *c != 0; c++)
        if ((unsigned char)*c <= 0x20 || *c == 0x7f)
            return false;
    const char *host = url + (tls ? 8 : 7);
    size_t authority = strcspn(host, "/?#");
    size_t len = host[0] == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":/?#");
    if (authority == 0 || len > authority || memchr(host, '@', authority) != NULL)
        return false;
    if (tls)
        return true;
    for (size_t i = 0; i < LJ_ARRAY_LEN(near); i++)
        if (strlen(near[i]) == len && strncasecmp(host, near[i], len) == 0)
            return true;
    return strspn(host, "0123456789.") == len &&
           (lj_str_starts(host, "127.") || lj_str_starts(host, "169.254."));
}

static lj_code bad_field(lj_error *err, const char *name, const char *what)
{
    lj_error_set(err, LJ_INVALID, "the credentials file: \"%s\" %s", name, what);
    return lj_error_hint(err, "fetch the file anew from Google Cloud, or run gcloud auth "
                              "application-default login");
}

static lj_code unsupported(lj_error *err, const char *what, const char *hint)
{
    lj_error_set(err, LJ_UNSUPPORTED, "the credentials file: %s", what);
    return lj_error_hint(err, "%s", hint);
}

static lj_code take(const json_t *root, const char *name, bool needed, lj_secret *to, lj_error *err)
{
    const json_t *value = json_object_get(root, name);
    const char *text = json_string_value(value);
    if ((value == NULL || json_is_null(value)) && !needed)
        return LJ_OK;
    if (text == NULL || text[0] == 0)
        return needed ? bad_field(err, name, "is missing") : bad_field(err, name, "is no text");
    return lj_secret_set(to, text, err);
}

static lj_code take_url(const json_t *root, const char *name, bool needed, lj_secret *to,
                        lj_error *err)
{
    LJ_TRY(take(root, name, needed, to, err));
    if (lj_secret_is_set(to) && !lj_google_url_ok(lj_secret_text(to)))
        return bad_field(err, name, "is no https:// URL");
    return LJ_OK;
}

static lj_code parse_service_account(const json_t *root, lj_google_file *file, lj_error *err)
{
    file->kind = LJ_GOOGLE_SERVICE_ACCOUNT;
    LJ_TRY(take(root, "client_email", true, &file->client_email, err));
    LJ_TRY(take(root, "private_key", true, &file->private_key, err));
    LJ_TRY(take(root, "private_key_id", false, &file->private_key_id, err));
    LJ_TRY(take_url(root, "token_uri", false, &file->token_url, err));
    char *probe = NULL; /* a key that cannot sign is better told now */
    if (lj_rs256(&file->private_key, "", 0, &probe, NULL) != LJ_OK)
        return bad_field(err, "private_key", "is no RSA key in PEM");
    free(probe);
    return LJ_OK;
}

static lj_code parse_authorized_user(const json_t *root, lj_google_file *file, lj_error *err)
{
    file->kind = LJ_GOOGLE_AUTHORIZED_USER;
    LJ_TRY(take(root, "client_id", true, &file->client_id, err));
    LJ_TRY(take(root, "client_secret", true, &file->client_secret, err));
    LJ_TRY(take(root, "refresh_token", true, &file->refresh_token, err));
    return take_url(root, "token_uri", false, &file->token_url, err);
}

static bool clean_header(const char *text)
{
    for (; *text != 0; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            return false;
    return true;
}

static lj_code take_headers(json_t *headers, lj_google_file *file, lj_error *err)
{
    const char *name = NULL;
    json_t *value = NULL;
    size_t n = 0;
    if (headers == NULL || json_is_null(headers))
        return LJ_OK;
    if (!json_is_object(headers) || json_object_size(headers) > LJ_GOOGLE_HEADERS_MAX)
        return bad_field(err, "headers", "is no short list of headers");
    json_object_foreach(headers, name, value)
    {
        const char *text = json_string_value(value);
        if (text == NULL || !clean_header(text) || !clean_header(name) || strchr(name, ':') != NULL)
            return bad_field(err, "headers", "has one that is no header");
        LJ_CLEANUP(lj_wipe_freep) char *line = lj_str_printf("%s: %s", name, text);
        if (line == NULL)
            return lj_error_nomem(err);
        LJ_TRY(lj_secret_set(&file->source_headers[n++], line, err));
    }
    return LJ_OK;
}

static lj_code parse_source(const json_t *root, lj_google_file *file, lj_error *err)
{
    const json_t *source = json_object_get(root, "credential_source");
    const json_t *format = json_object_get(source, "format");
    const char *type = text_of(format, "type");
    if (!json_is_object(source))
        return bad_field(err, "credential_source", "is missing");
    if (json_object_get(source, "environment_id") != NULL)
        return unsupported(err, "an external account of AWS",
                           "use one whose token comes from a file or a URL (OIDC)");
    if (json_object_get(source, "executable") != NULL || json_object_get(source, "certificate"))
        return unsupported(err,
                           "an external account whose token comes from a program or certificate",
                           "use one whose token comes from a file or a URL");
    LJ_TRY(take(source, "file", false, &file->source_file, err));
    LJ_TRY(take_url(source, "url", false, &file->source_url, err));
    if (lj_secret_is_set(&file->source_file) == lj_secret_is_set(&file->source_url))
        return bad_field(err, "credential_source", "needs one of file and url");
    LJ_TRY(take_headers(json_object_get(source, "headers"), file, err));
    if (type == NULL || strcmp(type, "text") == 0)
        return LJ_OK;
    if (strcmp(type, "json") != 0)
        return bad_field(err, "format", "is neither text nor json");
    return take(format, "subject_token_field_name", true, &file->source_field, err);
}

static lj_code parse_external_account(const json_t *root, lj_google_file *file, lj_error *err)
{
    file->kind = LJ_GOOGLE_EXTERNAL_ACCOUNT;
    file->impersonation_life_s = IMPERSONATION_S;
    LJ_TRY(take(root, "audience", true, &file->audience, err));
    LJ_TRY(take(root, "subject_token_type", true, &file->subject_token_type, err));
    LJ_TRY(take_url(root, "token_url", true, &file->token_url, err));
    LJ_TRY(take(root, "client_id", false, &file->client_id, err));
    LJ_TRY(take(root, "client_secret", false, &file->client_secret, err));
    LJ_TRY(take(root, "workforce_pool_user_project", false, &file->workforce_project, err));
    LJ_TRY(
        take_url(root, "service_account_impersonation_url", false, &file->impersonation_url, err));
    const json_t *life = json_object_get(json_object_get(root, "service_account_impersonation"),
                                         "token_lifetime_seconds");
    if (life != NULL) {
        if (!json_is_integer(life) || json_integer_value(life) < 600 ||
            json_integer_value(life) > (json_int_t)LJ_GOOGLE_LIFE_MAX_S)
            return bad_field(err, "token_lifetime_seconds", "is no number from 600 to 43200");
        file->impersonation_life_s = (uint64_t)json_integer_value(life);
    }
    return parse_source(root, file, err);
}

static lj_code append(const char *text, size_t len, void *buf)
{
    return lj_buf_append(buf, text, len, NULL);
}

static int dump_more(const char *text, size_t len, void *buf)
{
    return append(text, len, buf) == LJ_OK ? 0 : -1;
}

static lj_code parse_kind(const json_t *root, bool nested, lj_google_file *file, lj_error *err);

static lj_code parse_impersonated(const json_t *root, lj_google_file *file, lj_error *err)
{
    const json_t *source = json_object_get(root, "source_credentials");
    const json_t *delegates = json_object_get(root, "delegates");
    if (!json_is_object(source))
        return bad_field(err, "source_credentials", "is missing");
    LJ_TRY(parse_kind(source, true, file, err));
    if (lj_secret_is_set(&file->impersonation_url))
        return unsupported(err, "an impersonation over another",
                           "name the accounts between in \"delegates\"");
    file->impersonation_life_s = IMPERSONATION_S;
    if (json_is_array(delegates) && json_array_size(delegates) > 0) {
        LJ_CLEANUP(lj_buf_free) lj_buf text = LJ_BUF_INIT(LJ_GOOGLE_FILE_MAX);
        if (json_dump_callback(delegates, dump_more, &text, JSON_COMPACT) != 0)
            return lj_error_nomem(err);
        LJ_TRY(lj_secret_set(&file->delegates, lj_buf_text(&text), err));
    }
    return take_url(root, "service_account_impersonation_url", true, &file->impersonation_url, err);
}

static lj_code parse_kind(const json_t *root, bool nested, lj_google_file *file, lj_error *err)
{
    const char *type = text_of(root, "type");
    const char *universe = text_of(root, "universe_domain");
    if (universe != NULL && strcmp(universe, UNIVERSE) != 0)
        return unsupported(err, "its universe_domain is not " UNIVERSE,
                           "only Google's public cloud is supported");
    if (type == NULL)
        return bad_field(err, "type", "is missing");
    if (strcmp(type, "service_account") == 0)
        return parse_service_account(root, file, err);
    if (strcmp(type, "authorized_user") == 0)
        return parse_authorized_user(root, file, err);
    if (strcmp(type, "external_account") == 0)
        return parse_external_account(root, file, err);
    if (strcmp(type, "impersonated_service_account") == 0 && !nested)
        return parse_impersonated(root, file, err);
    return unsupported(err, "its type is not known here",
                       "known: service_account, authorized_user, external_account, "
                       "impersonated_service_account");
}

lj_code lj_google_file_parse(const char *text, size_t len, lj_google_file *ret_file, lj_error *err)
{
    LJ_CLEANUP(free_json) json_t *root = parse_object(text, len);
    if (root == NULL) {
        lj_error_set(err, LJ_INVALID, "the credentials file is not JSON");
        return lj_error_hint(err, "it must be the JSON file that Google Cloud or gcloud wrote");
    }
    lj_google_file file = {.kind = LJ_GOOGLE_SERVICE_ACCOUNT};
    lj_code code = parse_kind(root, false, &file, err);
    if (code != LJ_OK) {
        lj_google_file_free(&file);
        return code;
    }
    *ret_file = file;
    return LJ_OK;
}

/* ---- the JWT ---- */

/* base64url of an object, which is freed; NULL when out of memory. */
static char *encode_object(json_t *object)
{
    LJ_CLEANUP(lj_buf_free) lj_buf text = LJ_BUF_INIT(LJ_GOOGLE_FILE_MAX);
    bool good = object != NULL && json_dump_callback(object, dump_more, &text, JSON_COMPACT) == 0;
    json_decref(object);
    return good ? lj_base64url(text.data, text.len) : NULL;
}

lj_code lj_google_jwt(const lj_google_file *file, const char *scope, int64_t now_ns,
                      lj_secret *ret_jwt, lj_error *err)
{
    int64_t issued = now_ns / LJ_NS_PER_S - CLOCK_SLACK_S;
    const char *audience =
        lj_secret_is_set(&file->token_url) ? lj_secret_text(&file->token_url) : LJ_GOOGLE_TOKEN_URL;
    const char *key_id =
        lj_secret_is_set(&file->private_key_id) ? lj_secret_text(&file->private_key_id) : NULL;
    LJ_CLEANUP(lj_freep)
    char *head =
        encode_object(json_pack("{s:s, s:s, s:s*}", "alg", "RS256", "typ", "JWT", "kid", key_id));
    LJ_CLEANUP(lj_freep)
    char *claims = encode_object(json_pack(
        "{s:s, s:s, s:s, s:I, s:I}", "iss", lj_secret_text(&file->client_email), "scope", scope,
        "aud", audience, "iat", (json_int_t)issued, "exp", (json_int_t)(issued + JWT_LIFE_S)));
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
        const char *time = text_of(root, "expireTime");
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
    LJ_CLEANUP(free_json) json_t *root = parse_object(text, len);
    if (root == NULL)
        return malformed(err, "not a JSON object");
    bool camel = json_object_get(root, "accessToken") != NULL;
    const char *token = text_of(root, camel ? "accessToken" : "access_token");
    const char *type = text_of(root, "token_type");
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
    LJ_CLEANUP(free_json) json_t *root = parse_object(text, len);
    const json_t *error = json_object_get(root, "error");
    const char *code = json_is_object(error) ? text_of(error, "status") : json_string_value(error);
    const char *more =
        json_is_object(error) ? text_of(error, "message") : text_of(root, "error_description");
    (void)snprintf(out, size, "%.60s%s%.140s", code != NULL ? code : "",
                   code != NULL && more != NULL ? ": " : "", more != NULL ? more : "");
    for (char *c = out; *c != 0; c++)
        if ((unsigned char)*c < 0x20 || (unsigned char)*c >= 0x7f)
            *c = ' ';
}

lj_code lj_google_subject_parse(const lj_google_file *file, const char *text, size_t len,
                                lj_secret *ret_subject, lj_error *err)
{
    LJ_CLEANUP(free_json) json_t *root = NULL;
    const char *subject = text;
    if (lj_secret_is_set(&file->source_field)) {
        root = parse_object(text, len);
        subject = text_of(root, lj_secret_text(&file->source_field));
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
