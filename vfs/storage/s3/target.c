/*
 * target.c - see target.h.
 *
 * Layer: storage.
 */
#include "vfs/storage/s3/target.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "vfs/base/str.h"

#define BUCKET_MAX     255u
#define HOST_LABEL_MAX 63u
#define NAME_CHARS     "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."

const lj_setting_spec lj_s3_settings[LJ_S3_SETTING_COUNT] = {
    {"access-key-id", true},
    {"secret-access-key", true},
    {"session-token", true},
    {"profile", false},
    {"region", false},
    {"endpoint", false},
    {"force-path-style", false},
    {"skip-verify", false},
    {"storage-class", false},
    {"sse", false},
    {"sse-kms-key-id", false},
    {"sse-customer-key", true},
    {"conditional", false},
    {"list-page-size", false},
    {"path", false},
};

/*
 * Hosts of providers: BUCKET.[before][LABEL]suffix. The label is the region, or an account where the region is fixed.
 * The first row that fits counts.
 */
typedef struct {
    const char *before; /* "s3." or "" */
    bool label;
    const char *suffix;
    const char *region; /* NULL: the label, or none */
    bool plain_http;
    bool virtual_host;
} provider;

static const provider providers[] = {
    {"", false, "localhost", "us-east-1", true, false},
    {"s3.", true, ".backblazeb2.com", NULL, false, false},
    {"s3.", false, "filebase.com", NULL, false, false},
    {"", true, ".digitaloceanspaces.com", NULL, false, false},
    {"s3.", true, ".scw.cloud", NULL, false, false},
    {"", true, ".linodeobjects.com", NULL, false, false},
    {"", true, ".eu.r2.cloudflarestorage.com", "auto", false, false},
    {"", true, ".fedramp.r2.cloudflarestorage.com", "auto", false, false},
    {"", true, ".r2.cloudflarestorage.com", "auto", false, false},
    {"", true, ".your-objectstorage.com", NULL, false, false},
    {"", false, "fly.storage.tigris.dev", "auto", false, true},
    {"", false, "t3.storage.dev", "auto", false, true},
    {"s3.", true, ".amazonaws.com", NULL, false, true},
    {"s3.", false, "amazonaws.com", NULL, false, true},
    {"s3.", true, ".amazonaws.com.cn", NULL, false, true},
};

static const char *first(const char *a, const char *b)
{
    return a != NULL && a[0] != 0 ? a : b != NULL && b[0] != 0 ? b : NULL;
}

static bool ends_nocase(const char *text, const char *suffix)
{
    size_t len = strlen(text);
    size_t n = strlen(suffix);
    return len >= n && strcasecmp(text + len - n, suffix) == 0;
}

/* ---- checks ---- */

bool lj_s3_region_valid(const char *region)
{
    size_t len = strlen(region);
    return len > 0 && len < LJ_S3_REGION_MAX && strspn(region, NAME_CHARS) == len;
}

bool lj_s3_is_loopback(const char *host)
{
    if (lj_str_starts(host, "["))
        return lj_str_starts(host, "[::1]");
    size_t len = strcspn(host, ":");
    if (host[len] == ':' && strchr(host + len + 1, ':') != NULL)
        return strcmp(host, "::1") == 0;
    static const char name[] = "localhost";
    size_t n = sizeof(name) - 1;
    bool is_name = len >= n && strncasecmp(host + len - n, name, n) == 0 &&
                   (len == n || host[len - n - 1] == '.');
    return is_name || (lj_str_starts(host, "127.") && strspn(host, "0123456789.") == len);
}

static lj_code check_bucket(const char *bucket, lj_error *err)
{
    size_t len = strlen(bucket);
    if (len == 0) {
        lj_error_set(err, LJ_INVALID, "the s3:// URL does not name a bucket");
        return lj_error_hint(err, "write s3://BUCKET/PREFIX; for another store than Amazon's give "
                                  "its address as \"endpoint\"");
    }
    if (len > BUCKET_MAX || strspn(bucket, NAME_CHARS) != len)
        return lj_error_set(err, LJ_INVALID, "\"%.64s\" in the s3:// URL cannot be a bucket",
                            bucket);
    if (lj_str_ends(bucket, "--x-s3")) {
        lj_error_set(err, LJ_UNSUPPORTED, "\"%.64s\" is a directory bucket (S3 Express One Zone)",
                     bucket);
        return lj_error_hint(err, "use a general purpose bucket");
    }
    return LJ_OK;
}

/* A name that can stand in front of a host: what new buckets are restricted to. */
static bool is_host_label(const char *bucket)
{
    return strlen(bucket) <= HOST_LABEL_MAX &&
           strspn(bucket, "abcdefghijklmnopqrstuvwxyz0123456789-.") == strlen(bucket);
}

/* ---- the host of the URL ---- */

/*
 * Whether `host` is BUCKET.[before][LABEL]suffix, the bucket being absent too. Then *ret_label and *ret_endpoint are offsets
 * into it (the label up to the suffix), *ret_bucket_len is the length of the bucket.
 */
static bool fits(const provider *p, const char *host, size_t *ret_bucket_len, size_t *ret_endpoint,
                 size_t *ret_label)
{
    if (!ends_nocase(host, p->suffix))
        return false;
    size_t at = strlen(host) - strlen(p->suffix);
    size_t end = at;
    if (p->label) {
        while (at > 0 && host[at - 1] != '.')
            at--;
        if (at == end)
            return false;
    }
    size_t before = strlen(p->before);
    *ret_label = at;
    if (at < before || strncasecmp(host + at - before, p->before, before) != 0)
        return false;
    at -= before;
    if (at == 1 || (at > 0 && host[at - 1] != '.'))
        return false;
    *ret_endpoint = at;
    *ret_bucket_len = at > 0 ? at - 1 : 0;
    return true;
}

typedef struct {
    const provider *provider; /* NULL: the whole host is the bucket */
    char *endpoint;           /* scheme://host[:port] */
    char *region;
} host_form;

static void host_form_free(host_form *form)
{
    free(form->endpoint);
    free(form->region);
}

static lj_code read_host(const lj_url *url, lj_s3_target *target, host_form *form, lj_error *err)
{
    size_t bucket = 0;
    size_t endpoint = 0;
    size_t label = 0;
    if (strspn(url->host, NAME_CHARS) != strlen(url->host))
        return lj_error_set(err, LJ_INVALID, "\"%.64s\" in the s3:// URL cannot be a bucket",
                            url->host);
    for (size_t i = 0; i < LJ_ARRAY_LEN(providers) && form->provider == NULL; i++)
        if (fits(&providers[i], url->host, &bucket, &endpoint, &label))
            form->provider = &providers[i];
    const provider *p = form->provider;
    if (p == NULL) {
        target->bucket = lj_str_dup(url->host);
        return target->bucket == NULL ? lj_error_nomem(err) : check_bucket(target->bucket, err);
    }
    char port[8] = "";
    if (url->port != 0)
        (void)snprintf(port, sizeof(port), ":%u", url->port);
    target->bucket = lj_str_printf("%.*s", (int)bucket, url->host);
    form->endpoint =
        lj_str_printf("%s://%s%s", p->plain_http ? "http" : "https", url->host + endpoint, port);
    if (p->region != NULL)
        form->region = lj_str_dup(p->region);
    else if (p->label)
        form->region = lj_str_printf("%.*s", (int)(strlen(url->host) - strlen(p->suffix) - label),
                                     url->host + label);
    bool wants_region = p->region != NULL || p->label;
    if (target->bucket == NULL || form->endpoint == NULL || (wants_region && form->region == NULL))
        return lj_error_nomem(err);
    return check_bucket(target->bucket, err);
}

/* ---- the endpoint ---- */

static lj_code bad_endpoint(lj_error *err, const char *text)
{
    /* what stands before an '@' may be a password */
    if (strchr(text, '@') != NULL)
        lj_error_set(err, LJ_INVALID, "the endpoint has a user or a password in it");
    else
        lj_error_set(err, LJ_INVALID, "the endpoint \"%.128s\" is malformed", text);
    return lj_error_hint(err, "write it as https://HOST, https://HOST:PORT or http://HOST:PORT");
}

/* Fills host, base and tls. Without a scheme it is https, or http for a loopback name. */
static lj_code read_endpoint(const char *text, lj_s3_target *target, lj_error *err)
{
    const char *scheme = strstr(text, "://") != NULL ? ""
                         : lj_s3_is_loopback(text)   ? "http://"
                                                     : "https://";
    LJ_CLEANUP(lj_wipe_freep) char *full = lj_str_printf("%s%s", scheme, text);
    if (full == NULL)
        return lj_error_nomem(err);
    LJ_CLEANUP(lj_url_free) lj_url url = {.scheme = NULL};
    if (lj_url_parse(full, &url, NULL) != LJ_OK || url.host[0] == 0 || url.user != NULL ||
        url.query != NULL || (strcmp(url.scheme, "https") != 0 && strcmp(url.scheme, "http") != 0))
        return bad_endpoint(err, text);
    bool ipv6 = strchr(url.host, ':') != NULL;
    if (strspn(url.host, NAME_CHARS ":") != strlen(url.host))
        return bad_endpoint(err, text);
    target->tls = strcmp(url.scheme, "https") == 0;
    char port[8] = "";
    if (url.port != 0 && url.port != (target->tls ? 443 : 80)) /* as the Host header will be */
        (void)snprintf(port, sizeof(port), ":%u", url.port);
    target->host = lj_str_printf("%s%s%s%s", ipv6 ? "[" : "", url.host, ipv6 ? "]" : "", port);
    LJ_CLEANUP(lj_buf_free) lj_buf base = LJ_BUF_INIT(4096);
    LJ_TRY(lj_url_encode(&base, url.path, true, err));
    target->base = lj_str_dup(lj_buf_text(&base));
    if (target->host == NULL || target->base == NULL)
        return lj_error_nomem(err);
    for (char *c = target->host; *c != 0; c++)
        *c = (char)tolower((unsigned char)*c);
    return LJ_OK;
}

/* Amazon's own hosts, "s3.amazonaws.com" and "s3.REGION.amazonaws.com": they follow the region. */
static bool is_amazon(const char *host)
{
    if (!lj_str_starts(host, "s3."))
        return false;
    size_t label = strcspn(host + 3, ".");
    const char *rest = host + 3 + label;
    return strcmp(host + 3, "amazonaws.com") == 0 || strcmp(rest, ".amazonaws.com") == 0 ||
           strcmp(rest, ".amazonaws.com.cn") == 0;
}

/* ---- addressing ---- */

static bool is_tigris(const char *host)
{
    return host != NULL &&
           (ends_nocase(host, "storage.tigris.dev") || ends_nocase(host, "t3.storage.dev"));
}

static bool is_address(const char *host)
{
    return host[0] == '[' || strspn(host, "0123456789.") == strcspn(host, ":");
}

static lj_code choose_style(const lj_settings *settings, const host_form *form,
                            lj_s3_target *target, lj_error *err)
{
    bool by_default = target->host != NULL && !target->tigris;
    LJ_TRY(lj_settings_bool(settings, "force-path-style", by_default, &target->path_style, err));
    /* as v0.3.13: such a host form wins over force-path-style: false */
    bool form_says = form->provider != NULL && !form->provider->virtual_host;
    /* a certificate for *.HOST does not cover a name with a dot in it */
    bool no_label = (target->tls && strchr(target->bucket, '.') != NULL) ||
                    !is_host_label(target->bucket) ||
                    (target->host != NULL && is_address(target->host));
    target->path_style = target->path_style || form_says || no_label;
    return LJ_OK;
}

static lj_code choose_region(const lj_settings *settings, const lj_s3_environment *environment,
                             const host_form *form, lj_s3_target *target, lj_error *err)
{
    const char *region = first(lj_settings_get(settings, "region"), form->region);
    if (region == NULL && target->tigris)
        region = "auto";
    region = first(region, environment->region);
    target->region = lj_str_dup(region != NULL ? region : "us-east-1");
    if (target->region == NULL)
        return lj_error_nomem(err);
    if (!lj_s3_region_valid(target->region))
        return lj_error_set(err, LJ_INVALID, "\"%.64s\" cannot be a region", target->region);
    return LJ_OK;
}

static lj_code make(const lj_url *url, const lj_settings *settings,
                    const lj_s3_environment *environment, host_form *form, lj_s3_target *target,
                    lj_error *err)
{
    if (url->user != NULL) {
        lj_error_set(err, LJ_INVALID, "the s3:// URL has a user or a password in it");
        return lj_error_hint(err, "give the keys in the environment (AWS_ACCESS_KEY_ID, "
                                  "AWS_SECRET_ACCESS_KEY) or in litestream.yml");
    }
    LJ_TRY(read_host(url, target, form, err));
    target->prefix = lj_settings_prefix(settings, url);
    if (target->prefix == NULL)
        return lj_error_nomem(err);
    const char *given = lj_settings_get(settings, "endpoint");
    const char *endpoint = first(given, first(form->endpoint, environment->endpoint));
    if (form->provider == NULL && url->port != 0) {
        lj_error_set(err, LJ_INVALID, "the s3:// URL has a port behind the bucket \"%.64s\"",
                     target->bucket);
        return lj_error_hint(err, "give the address of the store as endpoint=https://HOST:PORT");
    }
    target->tls = true;
    if (endpoint != NULL)
        LJ_TRY(read_endpoint(endpoint, target, err));
    else if ((target->base = lj_str_dup("")) == NULL)
        return lj_error_nomem(err);
    if (target->host != NULL && target->tls && target->base[0] == 0 && is_amazon(target->host)) {
        free(target->host);
        target->host = NULL;
    }
    target->tigris = is_tigris(target->host);
    target->equal_parts =
        target->host != NULL && ends_nocase(target->host, ".r2.cloudflarestorage.com");
    LJ_TRY(choose_style(settings, form, target, err));
    return choose_region(settings, environment, form, target, err);
}

lj_code lj_s3_target_make(const lj_url *url, const lj_settings *settings,
                          const lj_s3_environment *environment, lj_s3_target *ret_target,
                          lj_error *err)
{
    lj_s3_target target = {.bucket = NULL};
    LJ_CLEANUP(host_form_free) host_form form = {.provider = NULL};
    lj_code code = make(url, settings, environment, &form, &target, err);
    if (code != LJ_OK) {
        lj_s3_target_free(&target);
        return code;
    }
    *ret_target = target;
    return LJ_OK;
}

void lj_s3_target_free(lj_s3_target *target)
{
    free(target->bucket);
    free(target->prefix);
    free(target->host);
    free(target->base);
    free(target->region);
    *target = (lj_s3_target){.bucket = NULL};
}

/* ---- hosts and paths of requests ---- */

static const char *amazon_domain(const char *region)
{
    static const struct {
        const char *start;
        const char *domain;
    } partitions[] = {
        {"cn-", "amazonaws.com.cn"},    {"eusc-", "amazonaws.eu"},
        {"us-iso-", "c2s.ic.gov"},      {"us-isob-", "sc2s.sgov.gov"},
        {"eu-isoe-", "cloud.adc-e.uk"}, {"us-isof-", "csp.hci.ic.gov"},
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(partitions); i++)
        if (lj_str_starts(region, partitions[i].start))
            return partitions[i].domain;
    return "amazonaws.com";
}

lj_code lj_s3_target_host(const lj_s3_target *target, const char *region, lj_buf *out,
                          lj_error *err)
{
    if (!target->path_style)
        LJ_TRY(lj_buf_printf(out, err, "%s.", target->bucket));
    if (target->host != NULL)
        return lj_buf_printf(out, err, "%s", target->host);
    return lj_buf_printf(out, err, "s3.%s.%s", region, amazon_domain(region));
}

lj_code lj_s3_target_path(const lj_s3_target *target, const char *key, lj_buf *out, lj_error *err)
{
    LJ_TRY(lj_buf_printf(out, err, "%s", target->base));
    if (target->path_style)
        LJ_TRY(lj_buf_printf(out, err, "/%s", target->bucket));
    if (key == NULL)
        return target->path_style ? LJ_OK : lj_buf_append(out, "/", 1, err);
    LJ_TRY(lj_buf_append(out, "/", 1, err));
    if (target->prefix[0] != 0) {
        LJ_TRY(lj_url_encode(out, target->prefix, true, err));
        LJ_TRY(lj_buf_append(out, "/", 1, err));
    }
    return lj_url_encode(out, key, true, err);
}
