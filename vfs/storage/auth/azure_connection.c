/*
 * azure_connection.c - connection strings, and what can be told from an endpoint.
 *
 * Layer: storage. Thread-safety: pure. Source: "Configure Azure Storage connection strings".
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "vfs/base/str.h"
#include "vfs/storage/auth/azure_internal.h"

/* The emulator's account and key are published, the same on every machine. */
#define EMULATOR_ACCOUNT "devstoreaccount1"
#define EMULATOR_KEY                                                                               \
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
#define EMULATOR_PORT "10000"

typedef enum {
    PART_PROTOCOL,
    PART_ACCOUNT,
    PART_KEY,
    PART_SAS,
    PART_ENDPOINT,
    PART_SUFFIX,
    PART_EMULATOR,
    PART_EMULATOR_PROXY,
    PART_COUNT
} part_id;

static const char *const part_names[PART_COUNT] = {"DefaultEndpointsProtocol",
                                                   "AccountName",
                                                   "AccountKey",
                                                   "SharedAccessSignature",
                                                   "BlobEndpoint",
                                                   "EndpointSuffix",
                                                   "UseDevelopmentStorage",
                                                   "DevelopmentStorageProxyUri"};

static lj_code malformed(lj_error *err, const char *what)
{
    lj_error_set(err, LJ_INVALID, "the connection string %s", what);
    return lj_error_hint(err, "it looks like DefaultEndpointsProtocol=https;AccountName=NAME;"
                              "AccountKey=KEY;EndpointSuffix=core.windows.net");
}

/* ---- endpoints ---- */

/* The host of "scheme://host[:port][/path]", without port and brackets; *ret_path is what follows. 0: no URL. */
static size_t host_of(const char *url, const char **ret_host, const char **ret_path)
{
    const char *host = strstr(url, "://");
    if (host == NULL)
        return 0;
    host += 3;
    *ret_path = host + strcspn(host, "/?#");
    if (*host == '[') {
        *ret_host = host + 1;
        return strcspn(host + 1, "]/?#");
    }
    *ret_host = host;
    return strcspn(host, ":/?#");
}

static bool is_address(const char *host, size_t len)
{
    return memchr(host, ':', len) != NULL || strspn(host, "0123456789.") >= len;
}

static bool is_localhost(const char *host, size_t len)
{
    return len == 9 && strncasecmp(host, "localhost", 9) == 0;
}

char *lj_azure_account_of_endpoint(const char *endpoint)
{
    const char *host = NULL;
    const char *path = NULL;
    size_t len = host_of(endpoint, &host, &path);
    if (len == 0)
        return NULL;
    if (is_address(host, len) || is_localhost(host, len)) {
        path += strspn(path, "/");
        size_t n = strcspn(path, "/?#");
        return n > 0 ? lj_str_printf("%.*s", (int)n, path) : NULL;
    }
    size_t label = strcspn(host, ".");
    return label > 0 && label < len && lj_str_starts(host + label, ".blob.")
               ? lj_str_printf("%.*s", (int)label, host)
               : NULL;
}

bool lj_azure_is_exposed(const char *url)
{
    const char *host = NULL;
    const char *path = NULL;
    if (strncasecmp(url, "http://", 7) != 0)
        return false;
    size_t len = host_of(url, &host, &path);
    bool loopback = is_localhost(host, len) || (len == 3 && strncmp(host, "::1", 3) == 0) ||
                    (is_address(host, len) && lj_str_starts(host, "127."));
    return !loopback;
}

/* ---- parsing ---- */

static lj_code take_part(char *part, lj_secret values[PART_COUNT], lj_error *err)
{
    char *value = strchr(part, '=');
    if (value == NULL)
        return malformed(err, "has a part without '='");
    *value++ = 0;
    for (size_t i = 0; i < PART_COUNT; i++) {
        if (strcasecmp(part, part_names[i]) != 0)
            continue;
        if (lj_secret_is_set(&values[i]))
            return malformed(err, "says the same thing twice");
        return lj_secret_set(&values[i], value, err);
    }
    /* QueueEndpoint, BlobSecondaryEndpoint, ...: of services that are not used */
    size_t len = strlen(part);
    if (len > 8 && strcasecmp(part + len - 8, "Endpoint") == 0)
        return LJ_OK;
    return malformed(err, "has a part with an unknown name");
}

static const char *text_of(const lj_secret *secret)
{
    return lj_secret_is_set(secret) ? lj_secret_text(secret) : NULL;
}

/* A copy without the slashes at its end. */
static lj_code set_endpoint(lj_azure_connection *c, char *text, lj_error *err)
{
    if (text == NULL)
        return lj_error_nomem(err);
    size_t len = strlen(text);
    while (len > 0 && text[len - 1] == '/')
        text[--len] = 0;
    c->endpoint = text;
    return LJ_OK;
}

static lj_code set_emulator(lj_azure_connection *c, const char *proxy, lj_error *err)
{
    LJ_CLEANUP(lj_freep) char *host = lj_str_dup(proxy != NULL ? proxy : "http://127.0.0.1");
    c->account = lj_str_dup(EMULATOR_ACCOUNT);
    if (host == NULL || c->account == NULL)
        return lj_error_nomem(err);
    size_t len = strlen(host);
    while (len > 0 && host[len - 1] == '/')
        host[--len] = 0;
    LJ_TRY(set_endpoint(c, lj_str_printf("%s:" EMULATOR_PORT "/" EMULATOR_ACCOUNT, host), err));
    return lj_secret_set(&c->key, EMULATOR_KEY, err);
}

static lj_code set_account(lj_azure_connection *c, const lj_secret values[PART_COUNT],
                           lj_error *err)
{
    const char *endpoint = text_of(&values[PART_ENDPOINT]);
    const char *account = text_of(&values[PART_ACCOUNT]);
    const char *suffix = text_of(&values[PART_SUFFIX]);
    const char *protocol = text_of(&values[PART_PROTOCOL]);
    if (protocol != NULL && strcasecmp(protocol, "https") != 0 && strcasecmp(protocol, "http") != 0)
        return malformed(err, "has a DefaultEndpointsProtocol other than https and http");
    if (account != NULL) {
        c->account = lj_str_dup(account);
        if (c->account == NULL)
            return lj_error_nomem(err);
    } else if (endpoint != NULL) {
        c->account = lj_azure_account_of_endpoint(endpoint);
    }
    if (endpoint != NULL)
        return set_endpoint(c, lj_str_dup(endpoint), err);
    if (account == NULL)
        return malformed(err, "names neither an AccountName nor a BlobEndpoint");
    if (suffix == NULL && protocol == NULL)
        return LJ_OK; /* says nothing about it */
    return set_endpoint(c,
                        lj_str_printf("%s://%s.blob.%s", protocol != NULL ? protocol : "https",
                                      account, suffix != NULL ? suffix : "core.windows.net"),
                        err);
}

static lj_code parse(char *text, lj_secret values[PART_COUNT], lj_azure_connection *c,
                     lj_error *err)
{
    for (char *part; (part = strsep(&text, ";")) != NULL;) {
        part += strspn(part, " \t\r\n");
        for (size_t len = strlen(part); len > 0 && strchr(" \t\r\n", part[len - 1]) != NULL;)
            part[--len] = 0;
        if (*part != 0)
            LJ_TRY(take_part(part, values, err));
    }
    const char *emulator = text_of(&values[PART_EMULATOR]);
    const char *proxy = text_of(&values[PART_EMULATOR_PROXY]);
    if (emulator != NULL && strcasecmp(emulator, "true") == 0)
        return set_emulator(c, proxy, err);
    if (emulator != NULL || proxy != NULL)
        return malformed(err, "has UseDevelopmentStorage other than true");
    LJ_TRY(lj_secret_copy(&c->key, &values[PART_KEY], err));
    LJ_TRY(lj_secret_copy(&c->sas, &values[PART_SAS], err));
    return set_account(c, values, err);
}

lj_code lj_azure_connection_parse(const char *text, lj_azure_connection *ret, lj_error *err)
{
    lj_azure_connection c = {.account = NULL};
    lj_secret values[PART_COUNT] = {LJ_SECRET_NONE};
    size_t len = strlen(text);
    LJ_CLEANUP(lj_freep)
    char *copy = lj_str_dup(text); /* cut into pieces, so wiped by its length */
    lj_code code = copy != NULL ? parse(copy, values, &c, err) : lj_error_nomem(err);
    if (copy != NULL)
        lj_wipe(copy, len);
    for (size_t i = 0; i < PART_COUNT; i++)
        lj_secret_free(&values[i]);
    if (code != LJ_OK) {
        lj_azure_connection_free(&c);
        return code;
    }
    *ret = c;
    return LJ_OK;
}

void lj_azure_connection_free(lj_azure_connection *connection)
{
    free(connection->account);
    free(connection->endpoint);
    lj_secret_free(&connection->key);
    lj_secret_free(&connection->sas);
    *connection = (lj_azure_connection){.account = NULL};
}
