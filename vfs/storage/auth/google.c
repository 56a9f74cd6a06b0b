/*
 * google.c - see google.h: where the credentials are, and the token source over them.
 *
 * Layer: storage. Thread-safety: a provider is constant after it was made; a `finder` belongs to its token source, which
 * fetches in one thread at a time.
 */
#include "vfs/storage/auth/google.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vfs/base/io.h"
#include "vfs/base/str.h"
#include "vfs/storage/auth/google_internal.h"

#define METADATA_HOST    "169.254.169.254"
#define STALL_NS         (30 * LJ_NS_PER_S)
#define PATH_IN_MESSAGES 200

struct lj_google_provider {
    lj_token_source *source;
};

typedef struct {
    lj_http *http;
    char *path;    /* the credentials file; NULL: the metadata server */
    char *host;    /* of the metadata server */
    bool answered; /* the metadata server has given a token before */
} finder;

/* ---- fetching ---- */

static lj_code read_file(const char *path, lj_google_file *ret_file, bool *ret_readable,
                         lj_error *err)
{
    char *text = NULL;
    size_t len = 0;
    lj_error why = LJ_ERROR_INIT;
    *ret_readable = lj_io_read_file(path, LJ_GOOGLE_FILE_MAX, &text, &len, &why) == LJ_OK;
    if (!*ret_readable) {
        lj_error_set(err, LJ_DENIED, "cannot read the Google credentials file: %.300s",
                     why.message);
        (void)lj_error_hint(err, "name a file that this process may read in credentials-path or "
                                 "GOOGLE_APPLICATION_CREDENTIALS");
        return lj_error_retryable(err, true);
    }
    lj_code code = lj_google_file_parse(text, len, ret_file, err);
    lj_wipe(text, len);
    free(text);
    if (code != LJ_OK)
        (void)lj_error_context(err, "%.*s", PATH_IN_MESSAGES, path);
    return code;
}

static lj_code fetch_by_file(const finder *f, lj_token *ret_token, lj_error *err)
{
    lj_google_file file;
    bool readable = false;
    lj_code code = read_file(f->path, &file, &readable, err);
    if (code != LJ_OK) {
        /* it was good when the replica was opened: it may be just being written */
        (void)lj_error_retryable(err, true);
        return code;
    }
    code = lj_google_fetch(f->http, &file, ret_token, err);
    lj_google_file_free(&file);
    return code;
}

static lj_code fetch_by_metadata(finder *f, lj_token *ret_token, lj_error *err)
{
    lj_error why = LJ_ERROR_INIT;
    lj_code code = lj_google_fetch_metadata(f->http, f->host, ret_token, &why);
    if (code == LJ_OK) {
        f->answered = true;
        return LJ_OK;
    }
    bool absent = !f->answered && why.http_status == 0 && code != LJ_NOMEM && code != LJ_CORRUPT;
    if (absent) {
        lj_error cause = why;
        code =
            lj_error_set(&why, LJ_DENIED, "no Google credentials, and no metadata server (%.300s)",
                         cause.message);
        (void)lj_error_hint(&why, "name a JSON key file in credentials-path or "
                                  "GOOGLE_APPLICATION_CREDENTIALS, run gcloud auth "
                                  "application-default login, or run on Google Cloud with a "
                                  "service account");
        (void)lj_error_retryable(&why, true);
    }
    if (err != NULL)
        *err = why;
    return code;
}

static lj_code finder_fetch(void *ctx, lj_token *ret_token, lj_error *err)
{
    finder *f = ctx;
    return f->path != NULL ? fetch_by_file(f, ret_token, err)
                           : fetch_by_metadata(f, ret_token, err);
}

static void finder_free(void *ctx)
{
    finder *f = ctx;
    lj_http_free(f->http);
    free(f->path);
    free(f->host);
    free(f);
}

/* ---- finding ---- */

static const char *from_environment(const char *name)
{
    const char *value = getenv(name);
    return value != NULL && value[0] != 0 ? value : NULL;
}

/* The working folder may change later. */
static lj_code make_absolute(const char *path, char **ret_path, lj_error *err)
{
    char here[PATH_MAX] = "";
    bool relative = path[0] != '/';
    if (relative && getcwd(here, sizeof(here)) == NULL)
        return lj_error_errno(err, errno, "cannot tell the current folder for %.*s",
                              PATH_IN_MESSAGES, path);
    char *absolute = lj_str_printf("%s%s%s", here, relative ? "/" : "", path);
    if (absolute == NULL)
        return lj_error_nomem(err);
    *ret_path = absolute;
    return LJ_OK;
}

/* What gcloud auth application-default login leaves, when it is there. */
static lj_code find_gcloud_file(char **ret_path, lj_error *err)
{
    static const char name[] = "application_default_credentials.json";
    const char *config = from_environment("CLOUDSDK_CONFIG");
    const char *home = from_environment("HOME");
    if (config == NULL && home == NULL)
        return LJ_OK;
    LJ_CLEANUP(lj_freep)
    char *path = config != NULL ? lj_str_printf("%s/%s", config, name)
                                : lj_str_printf("%s/.config/gcloud/%s", home, name);
    if (path == NULL)
        return lj_error_nomem(err);
    return access(path, F_OK) == 0 ? make_absolute(path, ret_path, err) : LJ_OK;
}

static lj_code find_metadata(char **ret_host, lj_error *err)
{
    const char *host = from_environment("GCE_METADATA_HOST");
    if (host == NULL)
        host = METADATA_HOST;
    for (const char *c = host; *c != 0; c++)
        if ((unsigned char)*c <= 0x20 || *c == 0x7f || strchr("/?#@", *c) != NULL)
            return lj_error_set(err, LJ_INVALID, "GCE_METADATA_HOST is not HOST or HOST:PORT");
    *ret_host = lj_str_dup(host);
    return *ret_host != NULL ? LJ_OK : lj_error_nomem(err);
}

static lj_code find(finder *f, const lj_google_options *options, lj_error *err)
{
    const char *path = options->credentials_path;
    if (path == NULL || path[0] == 0)
        path = from_environment("GOOGLE_APPLICATION_CREDENTIALS");
    if (path != NULL)
        LJ_TRY(make_absolute(path, &f->path, err));
    else
        LJ_TRY(find_gcloud_file(&f->path, err));
    if (f->path == NULL)
        return find_metadata(&f->host, err);
    lj_google_file file;
    bool readable = false;
    lj_code code = read_file(f->path, &file, &readable, err);
    if (code == LJ_OK)
        lj_google_file_free(&file);
    return readable ? code : LJ_OK;
}

static lj_code make_finder(const lj_google_options *options, finder **ret_finder, lj_error *err)
{
    finder *f = calloc(1, sizeof(*f));
    if (f == NULL)
        return lj_error_nomem(err);
    int64_t stall_ns = options->io_timeout_ns > 0 ? options->io_timeout_ns : STALL_NS;
    /* no `cancel`: the source outlives the replica that made it, when others share it */
    lj_http_options http = {.stall_timeout_ns = LJ_MIN(stall_ns, STALL_NS)};
    lj_code code = lj_http_new(&http, &f->http, err);
    if (code == LJ_OK)
        code = find(f, options, err);
    if (code != LJ_OK)
        finder_free(f);
    else
        *ret_finder = f;
    return code;
}

/* ---- the provider ---- */

lj_code lj_google_provider_new(const lj_google_options *options, lj_google_provider **ret_provider,
                               lj_error *err)
{
    static const lj_token_ops ops = {.fetch = finder_fetch, .free = finder_free};
    finder *f = NULL;
    LJ_TRY(make_finder(options, &f, err));
    LJ_CLEANUP(lj_freep)
    char *key = lj_str_printf("google %s %s", f->path != NULL ? "file" : "metadata",
                              f->path != NULL ? f->path : f->host);
    lj_google_provider *provider = calloc(1, sizeof(*provider));
    if (key == NULL || provider == NULL) {
        finder_free(f);
        free(provider);
        return lj_error_nomem(err);
    }
    lj_code code = lj_token_source_open(key, &ops, f, &provider->source, err);
    if (code != LJ_OK)
        free(provider);
    else
        *ret_provider = provider;
    return code;
}

void lj_google_provider_free(lj_google_provider *provider)
{
    if (provider == NULL)
        return;
    lj_token_source_close(provider->source);
    free(provider);
}

lj_token_source *lj_google_provider_token(lj_google_provider *provider)
{
    return provider->source;
}
