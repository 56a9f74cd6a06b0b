/*
 * google_file.c - see google_internal.h: reads a credentials file.
 *
 * Messages name fields, never values, and not what the JSON parser says, because it quotes the text.
 *
 * Layer: storage. Thread-safety: pure.
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "vfs/base/str.h"
#include "vfs/storage/auth/crypto.h"
#include "vfs/storage/auth/google_internal.h"

#define IMPERSONATION_S UINT64_C(3600)
#define UNIVERSE        "googleapis.com"

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
    size_t n = 0;
    if (headers == NULL || json_is_null(headers))
        return LJ_OK;
    if (!json_is_object(headers) || json_object_size(headers) > LJ_GOOGLE_HEADERS_MAX)
        return bad_field(err, "headers", "is no short list of headers");
    for (void *i = json_object_iter(headers); i != NULL; i = json_object_iter_next(headers, i)) {
        const char *name = json_object_iter_key(i);
        const char *text = json_string_value(json_object_iter_value(i));
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
    const char *type = lj_google_json_text(format, "type");
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
        if (json_dump_callback(delegates, lj_google_json_more, &text, JSON_COMPACT) != 0)
            return lj_error_nomem(err);
        LJ_TRY(lj_secret_set(&file->delegates, lj_buf_text(&text), err));
    }
    return take_url(root, "service_account_impersonation_url", true, &file->impersonation_url, err);
}

static lj_code parse_kind(const json_t *root, bool nested, lj_google_file *file, lj_error *err)
{
    const char *type = lj_google_json_text(root, "type");
    const char *universe = lj_google_json_text(root, "universe_domain");
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
    LJ_CLEANUP(lj_google_json_free) json_t *root = lj_google_json_parse(text, len);
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
