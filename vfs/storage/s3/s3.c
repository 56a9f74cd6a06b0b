/*
 * s3.c - see s3.h: opening, and what the settings mean.
 *
 * Layer: storage. Thread-safety: as storage.h.
 */
#include "vfs/storage/s3/s3.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "vfs/base/clock.h"
#include "vfs/base/str.h"
#include "vfs/storage/auth/crypto.h"
#include "vfs/storage/s3/internal.h"

#define CUSTOMER_KEY_BYTES 32u
#define PAGE_KEYS_MAX      1000u
#define LAST_STALL_NS      (10 * LJ_NS_PER_S)

static void s3_close(void *self)
{
    lj_s3 *s3 = self;
    lj_http_free(s3->http);
    lj_http_free(s3->last_http);
    lj_aws_provider_free(s3->aws);
    lj_s3_target_free(&s3->target);
    free(s3->storage_class);
    free(s3->sse);
    free(s3->sse_kms_key_id);
    lj_secret_free(&s3->customer_key);
    free(s3->customer_key_md5);
    pthread_cond_destroy(&s3->unclaimed);
    pthread_mutex_destroy(&s3->mutex);
    free(s3);
}

/* "if absent" is promised in every case; where the store does not help, absent.c says what is weaker. */
static bool s3_overwrites_late(void *self)
{
    /* also of a store that has not told yet: the request that was given up may have been the one to find out by */
    return atomic_load(&((lj_s3 *)self)->condition) != LJ_S3_CONDITION_KEPT;
}

static const lj_storage_ops s3_ops = {
    .name = "s3",
    .features = LJ_STORAGE_IF_ABSENT | LJ_STORAGE_REMOTE,
    .put = lj_s3_put,
    .get = lj_s3_get,
    .head = lj_s3_head,
    .list = lj_s3_list,
    .delete_many = lj_s3_delete_many,
    .close = s3_close,
    .overwrites_late = s3_overwrites_late,
};

/* ---- settings ---- */

static const char *environment_of(const char *name)
{
    const char *value = getenv(name);
    return value != NULL && value[0] != 0 ? value : NULL;
}

static lj_code copy_setting(const lj_settings *settings, const char *name, char **ret,
                            lj_error *err)
{
    const char *value = lj_settings_get(settings, name);
    if (value == NULL)
        return LJ_OK;
    for (const char *c = value; *c != 0; c++)
        if (*c <= 0x20 || *c >= 0x7f)
            return lj_error_set(err, LJ_INVALID, "\"%s\" has a blank or a control character", name);
    *ret = lj_str_dup(value);
    return *ret == NULL ? lj_error_nomem(err) : LJ_OK;
}

static lj_code read_storage_class(lj_s3 *s3, const lj_settings *settings, lj_error *err)
{
    LJ_TRY(copy_setting(settings, "storage-class", &s3->storage_class, err));
    if (s3->storage_class == NULL || (strcmp(s3->storage_class, "GLACIER") != 0 &&
                                      strcmp(s3->storage_class, "DEEP_ARCHIVE") != 0))
        return LJ_OK;
    lj_error_set(err, LJ_INVALID, "objects of the storage class %s cannot be read at once",
                 s3->storage_class);
    return lj_error_hint(err, "a replica must be: use GLACIER_IR, STANDARD_IA or another class");
}

static lj_code read_encryption(lj_s3 *s3, const lj_settings *settings, lj_error *err)
{
    LJ_TRY(copy_setting(settings, "sse", &s3->sse, err));
    LJ_TRY(copy_setting(settings, "sse-kms-key-id", &s3->sse_kms_key_id, err));
    bool kms = s3->sse != NULL &&
               (strcmp(s3->sse, "aws:kms") == 0 || strcmp(s3->sse, "aws:kms:dsse") == 0);
    if (s3->sse != NULL && !kms && strcmp(s3->sse, "AES256") != 0) {
        lj_error_set(err, LJ_INVALID, "\"sse\" is \"%.64s\"", s3->sse);
        return lj_error_hint(err, "allowed: AES256, aws:kms, aws:kms:dsse");
    }
    if (s3->sse_kms_key_id != NULL && !kms) {
        lj_error_set(err, LJ_INVALID, "\"sse-kms-key-id\" is given, but not that KMS is used");
        return lj_error_hint(err, "set sse to aws:kms");
    }
    return LJ_OK;
}

/* Requests cross a network as they are. */
static lj_code is_in_the_open(const lj_s3 *s3, bool *ret_open, lj_error *err)
{
    LJ_CLEANUP(lj_buf_free) lj_buf host = LJ_BUF_INIT(1024);
    LJ_TRY(lj_s3_target_host(&s3->target, s3->target.region, &host, err));
    *ret_open = !s3->target.tls && !lj_s3_is_loopback(lj_buf_text(&host));
    return LJ_OK;
}

static lj_code read_customer_key(lj_s3 *s3, const lj_settings *settings, lj_error *err)
{
    const char *text = lj_settings_get(settings, "sse-customer-key");
    if (text == NULL)
        text = environment_of(LJ_S3_CUSTOMER_KEY_VARIABLE);
    if (text == NULL)
        return LJ_OK;
    LJ_CLEANUP(lj_secret_free) lj_secret key = LJ_SECRET_NONE;
    uint8_t md5[LJ_MD5_BYTES];
    if (lj_base64_decode(text, &key, NULL) != LJ_OK || key.len != CUSTOMER_KEY_BYTES) {
        lj_error_set(err, LJ_INVALID, "\"sse-customer-key\" is not the base64 of %u bytes",
                     CUSTOMER_KEY_BYTES);
        return lj_error_hint(err, "make one with: openssl rand -base64 32");
    }
    if (s3->sse != NULL)
        return lj_error_set(err, LJ_INVALID, "\"sse\" and \"sse-customer-key\" exclude each other");
    bool open = false;
    LJ_TRY(is_in_the_open(s3, &open, err));
    if (open) {
        lj_error_set(err, LJ_INVALID, "\"sse-customer-key\" would be sent unencrypted");
        return lj_error_hint(err, "use an https:// endpoint");
    }
    /* encoded anew: without what white space may stand behind it */
    LJ_CLEANUP(lj_wipe_freep) char *encoded = lj_base64(lj_secret_text(&key), key.len);
    if (encoded == NULL)
        return lj_error_nomem(err);
    LJ_TRY(lj_secret_set(&s3->customer_key, encoded, err));
    LJ_TRY(lj_md5(lj_secret_text(&key), key.len, md5, err));
    s3->customer_key_md5 = lj_base64(md5, sizeof(md5));
    return s3->customer_key_md5 == NULL ? lj_error_nomem(err) : LJ_OK;
}

static lj_code read_conditional(lj_s3 *s3, const lj_settings *settings, lj_error *err)
{
    const char *text = lj_settings_get(settings, "conditional");
    bool on = false;
    int condition = s3->target.host == NULL ? LJ_S3_CONDITION_KEPT
                                            : LJ_S3_CONDITION_UNKNOWN; /* Amazon keeps it */
    s3->condition_fixed = text != NULL && strcasecmp(text, "auto") != 0;
    if (s3->condition_fixed) {
        if (lj_settings_bool(settings, "conditional", false, &on, err) != LJ_OK)
            return lj_error_hint(err, "allowed: auto, on or off");
        condition = on ? LJ_S3_CONDITION_KEPT : LJ_S3_CONDITION_NONE;
    }
    atomic_init(&s3->condition, condition);
    return LJ_OK;
}

static lj_code read_page_size(lj_s3 *s3, const lj_settings *settings, lj_error *err)
{
    const char *text = lj_settings_get(settings, "list-page-size");
    uint64_t n = PAGE_KEYS_MAX;
    if (text != NULL && (!lj_str_u64(text, &n) || n == 0 || n > PAGE_KEYS_MAX))
        return lj_error_set(err, LJ_INVALID, "\"list-page-size\" is no number from 1 to %u",
                            PAGE_KEYS_MAX);
    s3->page_size = (unsigned)n;
    return LJ_OK;
}

/* ---- opening ---- */

static lj_code open_provider(lj_s3 *s3, const lj_settings *settings,
                             const lj_storage_options *options, lj_error *err)
{
    const lj_aws_options aws = {.access_key_id = lj_settings_get(settings, "access-key-id"),
                                .secret_access_key = lj_settings_get(settings, "secret-access-key"),
                                .session_token = lj_settings_get(settings, "session-token"),
                                .profile = lj_settings_get(settings, "profile"),
                                .region = lj_settings_get(settings, "region"),
                                .io_timeout_ns = options->io_timeout_ns};
    return lj_aws_provider_new(&aws, &s3->aws, err);
}

static lj_code open_target(lj_s3 *s3, const lj_url *url, const lj_settings *settings, lj_error *err)
{
    const char *ignore = environment_of("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS");
    lj_s3_environment environment = {.region = lj_aws_provider_region(s3->aws)};
    if (ignore == NULL || strcasecmp(ignore, "true") != 0) {
        environment.endpoint = environment_of("AWS_ENDPOINT_URL_S3");
        if (environment.endpoint == NULL)
            environment.endpoint = environment_of("AWS_ENDPOINT_URL");
    }
    LJ_TRY(lj_s3_target_make(url, settings, &environment, &s3->target, err));
    (void)strncpy(s3->region, s3->target.region, sizeof(s3->region) - 1);
    return LJ_OK;
}

static lj_code open_http(lj_s3 *s3, const lj_settings *settings, const lj_storage_options *options,
                         lj_error *err)
{
    lj_http_options http = {.stall_timeout_ns = options->io_timeout_ns,
                            .ca_file = environment_of("AWS_CA_BUNDLE"),
                            .cancel = options->cancel};
    LJ_TRY(lj_settings_bool(settings, "skip-verify", false, &http.skip_verify, err));
    LJ_TRY(lj_http_new(&http, &s3->http, err));
    http.cancel = NULL;
    http.stall_timeout_ns =
        options->io_timeout_ns > 0 ? LJ_MIN(options->io_timeout_ns, LAST_STALL_NS) : LAST_STALL_NS;
    s3->cancel = options->cancel;
    return lj_http_new(&http, &s3->last_http, err);
}

static lj_code fill(lj_s3 *s3, const lj_url *url, const lj_settings *settings,
                    const lj_storage_options *options, lj_error *err)
{
    LJ_TRY(open_provider(s3, settings, options, err));
    LJ_TRY(open_target(s3, url, settings, err));
    LJ_TRY(read_storage_class(s3, settings, err));
    LJ_TRY(read_encryption(s3, settings, err));
    LJ_TRY(read_customer_key(s3, settings, err));
    LJ_TRY(read_conditional(s3, settings, err));
    LJ_TRY(read_page_size(s3, settings, err));
    bool open = false;
    LJ_TRY(is_in_the_open(s3, &open, err));
    atomic_store(&s3->part_md5, open);
    return open_http(s3, settings, options, err);
}

static lj_code make(const lj_url *url, const lj_storage_options *options, lj_s3 **ret_s3,
                    lj_error *err)
{
    LJ_CLEANUP(lj_settings_free) lj_settings settings = {.count = 0};
    LJ_TRY(
        lj_settings_make(&settings, lj_s3_settings, LJ_S3_SETTING_COUNT, url->query, options, err));
    lj_s3 *s3 = calloc(1, sizeof(*s3));
    if (s3 == NULL)
        return lj_error_nomem(err);
    pthread_mutex_init(&s3->mutex, NULL);
    pthread_cond_init(&s3->unclaimed, NULL);
    lj_code code = fill(s3, url, &settings, options, err);
    if (code != LJ_OK) {
        s3_close(s3);
        return code;
    }
    *ret_s3 = s3;
    return LJ_OK;
}

static lj_code check_arn(const char *url, lj_error *err)
{
    if (strncasecmp(url, "s3://", 5) != 0)
        return lj_error_set(err, LJ_INVALID, "not a s3:// URL");
    if (strncasecmp(url + 5, "arn:", 4) != 0)
        return LJ_OK;
    lj_error_set(err, LJ_UNSUPPORTED, "the s3:// URL names an access point by its ARN");
    return lj_error_hint(err, "use the access point's alias (...-s3alias) as the bucket");
}

lj_code lj_s3_open(const char *url, const lj_storage_options *options, lj_storage **ret_storage,
                   lj_error *err)
{
    LJ_CLEANUP(lj_url_free) lj_url parts = {.scheme = NULL};
    LJ_TRY(check_arn(url, err));
    LJ_TRY(lj_url_parse(url, &parts, err));
    char port[8] = "";
    if (parts.port != 0)
        (void)snprintf(port, sizeof(port), ":%u", parts.port);
    LJ_CLEANUP(lj_freep)
    char *display = lj_str_printf("s3://%s%s%s", parts.host, port, parts.path);
    if (display == NULL)
        return lj_error_nomem(err);
    lj_s3 *s3 = NULL;
    LJ_TRY(make(&parts, options, &s3, err));
    lj_code code = lj_storage_wrap(&s3_ops, s3, display, ret_storage, err);
    if (code != LJ_OK)
        s3_close(s3);
    return code;
}
