/*
 * gcs.c - see gcs.h: opening, names and URLs, head, delete.
 *
 * Layer: storage. Thread-safety: as storage.h.
 */
#include "vfs/storage/gcs/gcs.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "vfs/base/log.h"
#include "vfs/base/str.h"
#include "vfs/storage/gcs/internal.h"
#include "vfs/storage/setting.h"
#include "vfs/storage/url.h"

static const lj_setting_spec specs[] = {
    {"endpoint", false},       {"credentials-path", false}, {"user-project", false},
    {"list-page-size", false}, {"skip-verify", false},      {"path", false},
};

/* ---- names and URLs ---- */

bool lj_gcs_bucket_ok(const char *bucket)
{
    size_t len = strlen(bucket);
    return len >= 3 && len <= LJ_GCS_BUCKET_MAX &&
           strspn(bucket, "abcdefghijklmnopqrstuvwxyz0123456789-_.") == len && bucket[0] != '.';
}

/* Overlong forms and surrogates are let pass: the store is to refuse them. */
static bool is_utf8(const char *text)
{
    const unsigned char *p = (const unsigned char *)text;
    while (*p != 0) {
        size_t more = *p < 0x80 ? 0 : *p < 0xc2 ? 9 : *p < 0xe0 ? 1 : *p < 0xf0 ? 2 : 3;
        if (more == 9 || *p > 0xf4)
            return false;
        p++;
        for (; more > 0; more--, p++)
            if ((*p & 0xc0) != 0x80)
                return false;
    }
    return true;
}

lj_code lj_gcs_name(const lj_gcs *gcs, const char *key, char **ret_name, lj_error *err)
{
    char *name = lj_url_join(gcs->prefix, key);
    if (name == NULL)
        return lj_error_nomem(err);
    lj_code code = LJ_OK;
    if (strlen(name) > LJ_GCS_NAME_MAX)
        code = lj_error_set(err, LJ_INVALID, "the object's name has %zu bytes, GCS takes %u",
                            strlen(name), LJ_GCS_NAME_MAX);
    else if (!is_utf8(name))
        code = lj_error_set(err, LJ_INVALID, "the object's name is not UTF-8, as GCS wants it");
    if (code != LJ_OK)
        free(name);
    else
        *ret_name = name;
    return code;
}

lj_code lj_gcs_param(lj_buf *url, const char *name, const char *value, lj_error *err)
{
    char join = strchr(lj_buf_text(url), '?') != NULL ? '&' : '?';
    LJ_TRY(lj_buf_printf(url, err, "%c%s=", join, name));
    return lj_url_encode(url, value, false, err);
}

lj_code lj_gcs_url(const lj_gcs *gcs, bool upload, const char *name, lj_buf *out, lj_error *err)
{
    lj_buf_clear(out);
    LJ_TRY(lj_buf_printf(out, err, "%s%s/storage/v1/b/%s/o", gcs->base, upload ? "/upload" : "",
                         gcs->bucket));
    if (name != NULL) {
        LJ_TRY(lj_buf_append(out, "/", 1, err));
        LJ_TRY(lj_url_encode(out, name, false, err));
    }
    return gcs->user_project != NULL ? lj_gcs_param(out, "userProject", gcs->user_project, err)
                                     : LJ_OK;
}

/* ---- head, delete ---- */

lj_code lj_gcs_head(void *self, const char *key, lj_storage_entry *ret_entry, lj_error *err)
{
    lj_gcs *gcs = self;
    LJ_CLEANUP(lj_freep) char *name = NULL;
    LJ_CLEANUP(lj_buf_free) lj_buf url = LJ_GCS_URL_INIT;
    LJ_CLEANUP(lj_http_response_free) lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    LJ_TRY(lj_gcs_name(gcs, key, &name, err));
    LJ_TRY(lj_gcs_url(gcs, false, name, &url, err));
    LJ_TRY(lj_gcs_param(&url, "fields", "size,timeCreated", err));
    lj_http_request request = LJ_HTTP_REQUEST("GET", lj_buf_text(&url));
    request.body_max = LJ_GCS_OBJECT_BODY_MAX;
    LJ_TRY(lj_gcs_send(gcs, &request, &response, err));
    if (response.status == 404)
        return lj_gcs_absent(gcs, &response, err);
    if (response.status / 100 != 2)
        return lj_gcs_refused(gcs, &response, "asking for an object", err);
    lj_gcs_seen(gcs);
    lj_gcs_object object;
    LJ_TRY(lj_gcs_object_parse(lj_buf_text(&response.body), response.body.len, true, &object, err));
    ret_entry->size_bytes = object.size_bytes;
    ret_entry->created_ns = object.created_ns;
    return LJ_OK;
}

static lj_code delete_one(lj_gcs *gcs, const char *key, lj_http_response *response, lj_error *err)
{
    LJ_CLEANUP(lj_freep) char *name = NULL;
    LJ_CLEANUP(lj_buf_free) lj_buf url = LJ_GCS_URL_INIT;
    LJ_TRY(lj_gcs_name(gcs, key, &name, err));
    LJ_TRY(lj_gcs_url(gcs, false, name, &url, err));
    lj_http_request request = LJ_HTTP_REQUEST("DELETE", lj_buf_text(&url));
    request.body_max = LJ_GCS_OBJECT_BODY_MAX;
    LJ_TRY(lj_gcs_send(gcs, &request, response, err));
    if (response->status == 404) {
        lj_error why = LJ_ERROR_INIT;
        lj_code code = lj_gcs_absent(gcs, response, &why);
        if (code != LJ_NOTFOUND && err != NULL)
            *err = why;
        return code == LJ_NOTFOUND ? LJ_OK : code;
    }
    if (response->status / 100 != 2)
        return lj_gcs_refused(gcs, response, "deleting an object", err);
    lj_gcs_seen(gcs);
    return LJ_OK;
}

lj_code lj_gcs_delete_many(void *self, const char *const *keys, size_t count,
                           lj_storage_delete_fn fn, void *ctx, lj_error *err)
{
    LJ_CLEANUP(lj_http_response_free) lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    lj_error why = LJ_ERROR_INIT;
    lj_code code = LJ_OK;
    size_t i = 0;
    for (; i < count && code == LJ_OK; i++) {
        code = delete_one(self, keys[i], &response, &why);
        fn(ctx, keys[i], code == LJ_OK ? NULL : &why);
    }
    if (code == LJ_OK)
        return LJ_OK;
    lj_error rest = LJ_ERROR_INIT;
    lj_error_set(&rest, LJ_CANCELLED, "not deleted, because an earlier one in order was not");
    (void)lj_error_retryable(&rest, true);
    for (; i < count; i++)
        fn(ctx, keys[i], &rest);
    if (err != NULL)
        *err = why;
    return code;
}

/* ---- opening ---- */

static void gcs_close(void *self)
{
    lj_gcs *gcs = self;
    lj_http_free(gcs->http);
    lj_google_provider_free(gcs->google);
    free(gcs->base);
    free(gcs->bucket);
    free(gcs->prefix);
    free(gcs->user_project);
    free(gcs);
}

static bool is_local(const char *host, size_t len)
{
    static const char *const names[] = {"localhost", "127.0.0.1", "[::1]"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(names); i++)
        if (strlen(names[i]) == len && strncasecmp(host, names[i], len) == 0)
            return true;
    return false;
}

lj_code lj_gcs_base(const char *endpoint, bool emulator, char **ret_base, lj_error *err)
{
    const char *whose = emulator ? "STORAGE_EMULATOR_HOST" : "the endpoint";
    bool tls = strncasecmp(endpoint, "https://", 8) == 0;
    bool plain = strncasecmp(endpoint, "http://", 7) == 0;
    const char *host = endpoint + (tls ? 8 : plain ? 7 : 0);
    size_t len = strlen(host);
    size_t authority = strcspn(host, "/");
    size_t name = host[0] == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":/");
    while (len > 0 && host[len - 1] == '/')
        len--;
    if (authority == 0 || strpbrk(host, "?#@ \t\r\n") != NULL || strstr(host, "://") != NULL) {
        lj_error_set(err, LJ_INVALID, "%s is no address of a server", whose);
        return lj_error_hint(err, "it looks like %s",
                             emulator ? "127.0.0.1:4443" : "https://storage.googleapis.com");
    }
    if (plain && !emulator && !is_local(host, LJ_MIN(name, authority))) {
        lj_error_set(err, LJ_INVALID, "the endpoint is http://, and anyone could read the token");
        return lj_error_hint(err, "use https://, or name an emulator, which gets no token, in "
                                  "STORAGE_EMULATOR_HOST");
    }
    /* without a scheme: what an emulator has, and what a service has */
    char *base =
        lj_str_printf("%s://%.*s", tls || (!plain && !emulator) ? "https" : "http", (int)len, host);
    if (base == NULL)
        return lj_error_nomem(err);
    *ret_base = base;
    return LJ_OK;
}

static lj_code find_endpoint(lj_gcs *gcs, const lj_settings *settings, const char *emulator,
                             lj_error *err)
{
    const char *endpoint = lj_settings_get(settings, "endpoint");
    if (endpoint != NULL)
        return lj_gcs_base(endpoint, false, &gcs->base, err);
    if (emulator != NULL)
        return lj_gcs_base(emulator, true, &gcs->base, err);
    return lj_gcs_base("https://storage.googleapis.com", false, &gcs->base, err);
}

static lj_code read_page_size(lj_gcs *gcs, const lj_settings *settings, lj_error *err)
{
    const char *text = lj_settings_get(settings, "list-page-size");
    uint64_t size = LJ_GCS_PAGE_MAX;
    if (text != NULL && (!lj_str_u64(text, &size) || size == 0 || size > LJ_GCS_PAGE_MAX))
        return lj_error_set(err, LJ_INVALID, "list-page-size is no number from 1 to %u",
                            LJ_GCS_PAGE_MAX);
    gcs->page_size = (unsigned)size;
    return LJ_OK;
}

static lj_code configure(lj_gcs *gcs, const lj_settings *settings,
                         const lj_storage_options *options, lj_error *err)
{
    const char *emulator = getenv("STORAGE_EMULATOR_HOST");
    if (emulator != NULL && emulator[0] == 0)
        emulator = NULL;
    bool has_endpoint = lj_settings_get(settings, "endpoint") != NULL;
    lj_http_options http = {.stall_timeout_ns = options->io_timeout_ns, .cancel = options->cancel};
    LJ_TRY(find_endpoint(gcs, settings, emulator, err));
    LJ_TRY(read_page_size(gcs, settings, err));
    LJ_TRY(lj_settings_bool(settings, "skip-verify", false, &http.skip_verify, err));
    const char *user_project = lj_settings_get(settings, "user-project");
    if (user_project != NULL) {
        gcs->user_project = lj_str_dup(user_project);
        if (gcs->user_project == NULL)
            return lj_error_nomem(err);
    }
    gcs->io_timeout_ns = options->io_timeout_ns;
    gcs->cancel = options->cancel;
    LJ_TRY(lj_http_new(&http, &gcs->http, err));
    const char *path = lj_settings_get(settings, "credentials-path");
    if (emulator != NULL && !has_endpoint) {
        if (path != NULL)
            lj_log(LJ_LOG_WARN,
                   "gcs://%s: STORAGE_EMULATOR_HOST is set, so credentials-path is "
                   "not used",
                   gcs->bucket);
        return LJ_OK;
    }
    lj_google_options google = {.credentials_path = path, .io_timeout_ns = options->io_timeout_ns};
    return lj_google_provider_new(&google, &gcs->google, err);
}

static lj_code check_url(const lj_url *url, lj_error *err)
{
    if (url->user != NULL || url->port != 0)
        return lj_error_set(err, LJ_INVALID, "a %s:// URL has no user and no port", url->scheme);
    if (lj_gcs_bucket_ok(url->host))
        return LJ_OK;
    lj_error_set(err, LJ_INVALID, "the %s:// URL does not name a bucket", url->scheme);
    return lj_error_hint(err,
                         "write gcs://BUCKET/PREFIX; a bucket has 3 to %u of the characters "
                         "a-z, 0-9, '-', '_' and '.'",
                         LJ_GCS_BUCKET_MAX);
}

static const lj_storage_ops gcs_ops = {
    .name = "gcs",
    .features = LJ_STORAGE_IF_ABSENT | LJ_STORAGE_REMOTE,
    .put = lj_gcs_put,
    .get = lj_gcs_get,
    .head = lj_gcs_head,
    .list = lj_gcs_list,
    .delete_many = lj_gcs_delete_many,
    .close = gcs_close,
};

static lj_code open_parsed(const lj_url *url, const lj_storage_options *options,
                           lj_storage **ret_storage, lj_error *err)
{
    LJ_TRY(check_url(url, err));
    lj_settings settings;
    LJ_TRY(lj_settings_make(&settings, specs, LJ_ARRAY_LEN(specs), url->query, options, err));
    LJ_CLEANUP(lj_freep) char *prefix = lj_settings_prefix(&settings, url);
    LJ_CLEANUP(lj_freep)
    char *display = prefix == NULL ? NULL
                                   : lj_str_printf("%s://%s%s%s", url->scheme, url->host,
                                                   prefix[0] != 0 ? "/" : "", prefix);
    lj_gcs *gcs = calloc(1, sizeof(*gcs));
    lj_code code = LJ_OK;
    if (gcs != NULL) {
        gcs->bucket = lj_str_dup(url->host);
        gcs->prefix = prefix != NULL ? lj_str_dup(prefix) : NULL;
    }
    if (display == NULL || gcs == NULL || gcs->bucket == NULL || gcs->prefix == NULL)
        code = lj_error_nomem(err);
    if (code == LJ_OK)
        code = configure(gcs, &settings, options, err);
    if (code == LJ_OK)
        code = lj_storage_wrap(&gcs_ops, gcs, display, ret_storage, err);
    if (code != LJ_OK && gcs != NULL)
        gcs_close(gcs);
    lj_settings_free(&settings);
    return code;
}

lj_code lj_gcs_open(const char *url, const lj_storage_options *options, lj_storage **ret_storage,
                    lj_error *err)
{
    lj_url parsed;
    LJ_TRY(lj_url_parse(url, &parsed, err));
    lj_code code = open_parsed(&parsed, options, ret_storage, err);
    lj_url_free(&parsed);
    return code;
}
