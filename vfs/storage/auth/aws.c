/*
 * aws.c - see aws.h: the provider, and the one source of credentials that all providers with the same setup share.
 *
 * Layer: storage.
 */
#include "vfs/storage/auth/aws_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/buf.h"
#include "vfs/base/clock.h"
#include "vfs/base/io.h"
#include "vfs/base/str.h"
#include "vfs/storage/auth/crypto.h"

#define KEY_BYTES_MAX ((size_t)256 * 1024)
#define SKEW_MIN_NS   (60 * LJ_NS_PER_S)

struct lj_aws_provider {
    lj_token_source *token;
    char *region;
};

/* ---- sources ---- */

static void free_role(lj_aws_role *role)
{
    free(role->arn);
    free(role->session_name);
    free(role->external_id);
}

void lj_aws_source_free(lj_aws_source *source)
{
    if (source == NULL)
        return;
    free(source->origin);
    for (size_t i = 0; i < LJ_TOKEN_VALUES; i++)
        lj_secret_free(&source->values[i]);
    lj_aws_files_free(&source->files);
    free(source->profile);
    lj_wipe_freep(&source->command); /* some put a secret into it */
    free_role(&source->web_role);
    free(source->token_file);
    free(source->url);
    lj_secret_free(&source->authorization);
    for (size_t i = 0; i < LJ_AWS_ROLES_MAX; i++)
        free_role(&source->roles[i]);
    free(source->region);
    free(source->sts_endpoint);
    free(source->ca_file);
    lj_http_free(source->sts_http);
    lj_http_free(source->near_http);
    free(source);
}

/* A blank, a line break or anything else that cannot be in a header. */
static bool is_clean(const char *text)
{
    for (; *text != 0; text++) {
        if (*text <= ' ' || *text > '~')
            return false;
    }
    return true;
}

lj_code lj_aws_token_make(const char *what, const char *key_id, const char *secret,
                          const char *session, int64_t expires_ns, lj_token *ret_token,
                          lj_error *err)
{
    static const char *const names[] = {"key id", "secret key", "session token"};
    const char *texts[LJ_TOKEN_VALUES] = {key_id, secret, session};
    for (size_t i = 0; i < LJ_TOKEN_VALUES; i++) {
        bool missing = texts[i] == NULL || texts[i][0] == 0;
        if (missing && i != LJ_AWS_SESSION_TOKEN)
            return lj_error_set(err, LJ_INVALID, "AWS credentials of %.200s: no %s", what,
                                names[i]);
        if (!missing && !is_clean(texts[i])) {
            lj_error_set(err, LJ_INVALID, "AWS credentials of %.200s: malformed %s", what,
                         names[i]);
            return lj_error_hint(err,
                                 "it has a blank, a line break or another sign that no key has");
        }
    }
    if (expires_ns != 0 && expires_ns <= lj_clock_wall_ns()) {
        char when[LJ_CLOCK_TEXT_MAX];
        lj_clock_format(expires_ns, when);
        lj_error_set(err, LJ_DENIED, "AWS credentials of %.200s: expired at %s", what, when);
        lj_error_hint(err, "whoever writes them has to renew them (or a clock is wrong)");
        return lj_error_retryable(err, true);
    }
    lj_token token = {.expires_ns = expires_ns};
    for (size_t i = 0; i < LJ_TOKEN_VALUES; i++) {
        bool given = texts[i] != NULL && texts[i][0] != 0;
        lj_code code = lj_secret_set(&token.values[i], given ? texts[i] : NULL, err);
        if (code != LJ_OK) {
            lj_token_free(&token);
            return code;
        }
    }
    *ret_token = token;
    return LJ_OK;
}

int64_t lj_aws_clock_skew_ns(const lj_http_response *response)
{
    char text[64];
    int64_t there_ns = 0;
    if (!lj_http_header(response, "date", text, sizeof(text)) || !lj_http_date(text, &there_ns))
        return 0;
    int64_t skew_ns = there_ns - lj_clock_wall_ns();
    return llabs(skew_ns) < SKEW_MIN_NS ? 0 : skew_ns;
}

lj_code lj_aws_read_token_file(const char *what, const char *path, size_t max, lj_secret *ret_token,
                               lj_error *err)
{
    char *text = NULL;
    size_t len = 0;
    lj_code code = lj_io_read_file(path, max, &text, &len, err);
    size_t used = len;
    while (used > 0 && strchr(" \t\r\n", text[used - 1]) != NULL)
        used--;
    if (code == LJ_OK && (used == 0 || strlen(text) != len))
        code = lj_error_set(err, LJ_INVALID, "%.200s: no token in it", path);
    if (code == LJ_OK)
        code = lj_secret_set_bytes(ret_token, text, used, err);
    lj_wipe(text, len);
    free(text);
    if (code == LJ_OK)
        return LJ_OK;
    lj_error_context(err, "%s", what);
    return lj_error_retryable(err, true);
}

/* ---- fetching ---- */

static lj_code fetch_static(const lj_aws_source *source, lj_token *ret_token, lj_error *err)
{
    return lj_aws_token_make(source->origin, lj_secret_text(&source->values[LJ_AWS_KEY_ID]),
                             lj_secret_text(&source->values[LJ_AWS_SECRET_KEY]),
                             lj_secret_text(&source->values[LJ_AWS_SESSION_TOKEN]), 0, ret_token,
                             err);
}

/* The files are read again: a tool that logs in writes new keys there. */
static lj_code fetch_files(const lj_aws_source *source, lj_token *ret_token, lj_error *err)
{
    lj_aws_profile profile = {.found = false};
    LJ_TRY(lj_aws_files_read(&source->files, source->profile, &profile, err));
    const char *expiry = lj_aws_profile_get(&profile, LJ_AWS_FIELD_EXPIRATION);
    expiry = expiry != NULL ? expiry : lj_aws_profile_get(&profile, LJ_AWS_FIELD_TOKEN_EXPIRES);
    int64_t expires_ns = 0;
    /* no standard says its form: what cannot be read is as if it were not there, and the store has the last word */
    if (expiry != NULL && lj_clock_parse(expiry, &expires_ns, NULL) != LJ_OK)
        expires_ns = 0;
    lj_code code = lj_aws_token_make(
        source->origin, lj_aws_profile_get(&profile, LJ_AWS_FIELD_ACCESS_KEY_ID),
        lj_aws_profile_get(&profile, LJ_AWS_FIELD_SECRET_ACCESS_KEY),
        lj_aws_profile_get(&profile, LJ_AWS_FIELD_SESSION_TOKEN), expires_ns, ret_token, err);
    if (code == LJ_INVALID) /* caught while it is written */
        lj_error_retryable(err, true);
    lj_aws_profile_free(&profile);
    return code;
}

static lj_code fetch_base(const lj_aws_source *source, lj_token *ret_token, lj_error *err)
{
    switch (source->kind) {
    case LJ_AWS_STATIC:
        return fetch_static(source, ret_token, err);
    case LJ_AWS_FILES:
        return fetch_files(source, ret_token, err);
    case LJ_AWS_PROCESS:
        return lj_aws_process_fetch(source, ret_token, err);
    case LJ_AWS_WEB_IDENTITY:
        return lj_aws_sts_web_identity(source, ret_token, err);
    case LJ_AWS_CONTAINER:
        return lj_aws_container_fetch(source, ret_token, err);
    case LJ_AWS_IMDS:
        return lj_aws_imds_fetch(source, ret_token, err);
    }
    return lj_error_set(err, LJ_INTERNAL, "AWS credentials of no kind");
}

static lj_code fetch(void *ctx, lj_token *ret_token, lj_error *err)
{
    const lj_aws_source *source = ctx;
    lj_token token = LJ_TOKEN_INIT;
    LJ_TRY(fetch_base(source, &token, err));
    for (size_t i = 0; i < source->role_count; i++) {
        lj_token with = token;
        token = (lj_token)LJ_TOKEN_INIT;
        lj_code code = lj_aws_sts_assume_role(source, &source->roles[i], &with, &token, err);
        lj_token_free(&with);
        if (code != LJ_OK)
            return code;
    }
    *ret_token = token;
    return LJ_OK;
}

static void free_source(void *ctx)
{
    lj_aws_source_free(ctx);
}

static const lj_token_ops source_ops = {.fetch = fetch, .free = free_source};

/* ---- the key ---- */

/* Everything that decides what is fetched, each text with its length in front. */
static lj_code describe(const lj_aws_source *s, lj_buf *out, lj_error *err)
{
    const char *texts[] = {s->origin,
                           s->files.config_path,
                           s->files.credentials_path,
                           s->profile,
                           s->command,
                           s->web_role.arn,
                           s->web_role.session_name,
                           s->token_file,
                           s->url,
                           s->region,
                           s->sts_endpoint,
                           s->ca_file,
                           lj_secret_text(&s->authorization),
                           lj_secret_text(&s->values[LJ_AWS_KEY_ID]),
                           lj_secret_text(&s->values[LJ_AWS_SECRET_KEY]),
                           lj_secret_text(&s->values[LJ_AWS_SESSION_TOKEN])};
    LJ_TRY(lj_buf_printf(out, err, "%d %d %d %d %zu\n", (int)s->kind, s->imds_disabled,
                         s->imds_v1_disabled, (int)(s->io_timeout_ns / LJ_NS_PER_S),
                         s->role_count));
    for (size_t i = 0; i < LJ_ARRAY_LEN(texts); i++) {
        const char *text = texts[i] != NULL ? texts[i] : "";
        LJ_TRY(lj_buf_printf(out, err, "%d %zu:%s\n", texts[i] != NULL, strlen(text), text));
    }
    for (size_t i = 0; i < s->role_count; i++) {
        const lj_aws_role *r = &s->roles[i];
        const char *parts[] = {r->arn, r->session_name, r->external_id};
        LJ_TRY(lj_buf_printf(out, err, "%llu\n", (unsigned long long)r->duration_s));
        for (size_t j = 0; j < LJ_ARRAY_LEN(parts); j++) {
            const char *text = parts[j] != NULL ? parts[j] : "";
            LJ_TRY(lj_buf_printf(out, err, "%zu:%s\n", strlen(text), text));
        }
    }
    return LJ_OK;
}

static lj_code make_key(const lj_aws_source *source, char out[LJ_SHA256_HEX], lj_error *err)
{
    lj_buf text = LJ_BUF_INIT(KEY_BYTES_MAX);
    lj_code code = lj_buf_reserve(&text, KEY_BYTES_MAX, err); /* never moves: no copies to wipe */
    if (code == LJ_OK)
        code = describe(source, &text, err);
    if (code == LJ_OK)
        code = lj_sha256_hex(lj_buf_text(&text), text.len, out, err);
    lj_wipe(text.data, text.len);
    lj_buf_free(&text);
    return code;
}

/* ---- the provider ---- */

/* Takes over `source`. */
static lj_code open_token(lj_aws_source *source, lj_token_source **ret_token, lj_error *err)
{
    char digest[LJ_SHA256_HEX];
    char key[LJ_SHA256_HEX + 8];
    lj_code code = make_key(source, digest, err);
    if (code != LJ_OK) {
        lj_aws_source_free(source);
        return code;
    }
    snprintf(key, sizeof(key), "aws:%s", digest);
    return lj_token_source_open(key, &source_ops, source, ret_token, err);
}

lj_code lj_aws_provider_new(const lj_aws_options *options, lj_aws_provider **ret_provider,
                            lj_error *err)
{
    lj_aws_provider *provider = calloc(1, sizeof(*provider));
    lj_aws_source *source = calloc(1, sizeof(*source));
    lj_code code = provider == NULL || source == NULL ? lj_error_nomem(err) : LJ_OK;
    if (code == LJ_OK)
        code = lj_aws_chain_decide(options, source, &provider->region, err);
    if (code == LJ_OK) {
        lj_aws_source *owned = source;
        source = NULL;
        code = open_token(owned, &provider->token, err);
    }
    lj_aws_source_free(source);
    if (code != LJ_OK) {
        lj_aws_provider_free(provider);
        return code;
    }
    *ret_provider = provider;
    return LJ_OK;
}

void lj_aws_provider_free(lj_aws_provider *provider)
{
    if (provider == NULL)
        return;
    lj_token_source_close(provider->token);
    free(provider->region);
    free(provider);
}

lj_token_source *lj_aws_provider_token(lj_aws_provider *provider)
{
    return provider->token;
}

const char *lj_aws_provider_region(const lj_aws_provider *provider)
{
    return provider->region;
}
