/*
 * azure_identity.c - bearer tokens of Microsoft Entra ID: client secret, workload identity, managed identity.
 *
 * Layer: storage. Thread-safety: as token.h; an identity is constant after it was made.
 * Sources: "OAuth 2.0 client credentials flow" and "How to use managed identities for Azure resources to acquire an access
 * token", Microsoft identity platform; "Managed identities for App Service", REST endpoint reference.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "vfs/base/clock.h"
#include "vfs/base/io.h"
#include "vfs/base/str.h"
#include "vfs/storage/auth/azure_internal.h"
#include "vfs/storage/auth/azure_token.h"
#include "vfs/storage/auth/crypto.h"
#include "vfs/storage/http/http.h"
#include "vfs/storage/url.h"

#define SCOPE             "https://storage.azure.com/.default"
#define RESOURCE          "https://storage.azure.com/" /* what managed identities call the same */
#define DEFAULT_AUTHORITY "https://login.microsoftonline.com"
#define DEFAULT_IMDS      "http://169.254.169.254"
#define ASSERTION_TYPE    "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
#define FORM_MAX          ((size_t)256 * 1024)
#define TOKEN_FILE_MAX    ((size_t)64 * 1024)
#define STALL_MAX_NS      (30 * LJ_NS_PER_S)
/* a metadata service is near, or it is not there */
#define METADATA_CONNECT_NS (1 * LJ_NS_PER_S)
#define METADATA_TOTAL_NS   (4 * LJ_NS_PER_S)

typedef enum { CLIENT_SECRET, WORKLOAD, APP_SERVICE, METADATA } identity_kind;

static const char *const origins[] = {
    "a client secret (AZURE_CLIENT_SECRET)", "a workload identity (AZURE_FEDERATED_TOKEN_FILE)",
    "a managed identity (IDENTITY_ENDPOINT)", "a managed identity (metadata service)"};

typedef struct {
    identity_kind kind;
    lj_http *http;
    char *url;        /* of the token endpoint, with the whole query for managed identities */
    char *client;     /* AZURE_CLIENT_ID; may be NULL for managed identities */
    char *token_file; /* WORKLOAD */
    lj_secret secret; /* CLIENT_SECRET: it; APP_SERVICE: the value of X-IDENTITY-HEADER */
} identity;

/* ---- requests ---- */

static lj_code add_field(lj_buf *form, const char *name, const char *value, lj_error *err)
{
    LJ_TRY(lj_buf_printf(form, err, "%s%s=", form->len > 0 ? "&" : "", name));
    return lj_url_encode(form, value, false, err);
}

/* The token file is replaced from time to time: read anew for each token. */
static lj_code add_assertion(const identity *me, lj_buf *form, lj_error *err)
{
    char *text = NULL;
    size_t len = 0;
    lj_code code = lj_io_read_file(me->token_file, TOKEN_FILE_MAX, &text, &len, err);
    if (code != LJ_OK) {
        (void)lj_error_context(err, "AZURE_FEDERATED_TOKEN_FILE");
        (void)lj_error_hint(err, "the file is put there by the workload identity webhook of the "
                                 "cluster; check the pod's label and service account");
        return lj_error_retryable(err, true);
    }
    while (len > 0 && strchr(" \t\r\n", text[len - 1]) != NULL)
        text[--len] = 0;
    LJ_CLEANUP(lj_wipe_freep) char *owned = text;
    if (len == 0) {
        lj_error_set(err, LJ_INVALID, "AZURE_FEDERATED_TOKEN_FILE: %s is empty", me->token_file);
        return lj_error_retryable(err, true);
    }
    LJ_TRY(add_field(form, "client_assertion_type", ASSERTION_TYPE, err));
    return add_field(form, "client_assertion", owned, err);
}

static lj_code make_form(const identity *me, lj_buf *form, lj_error *err)
{
    LJ_TRY(
        lj_buf_reserve(form, 4096 + 3 * me->secret.len, err)); /* so that no copy is left behind */
    LJ_TRY(add_field(form, "client_id", me->client, err));
    LJ_TRY(add_field(form, "scope", SCOPE, err));
    LJ_TRY(add_field(form, "grant_type", "client_credentials", err));
    if (me->kind == WORKLOAD)
        return add_assertion(me, form, err);
    return add_field(form, "client_secret", lj_secret_text(&me->secret), err);
}

static lj_code ask_entra(const identity *me, lj_http_response *response, lj_error *err)
{
    static const char *const headers[] = {"Content-Type: application/x-www-form-urlencoded", NULL};
    lj_buf form = LJ_BUF_INIT(FORM_MAX);
    lj_code code = make_form(me, &form, err);
    if (code == LJ_OK) {
        lj_http_request request = LJ_HTTP_REQUEST("POST", me->url);
        request.headers = headers;
        request.body = form.data;
        request.body_len = form.len;
        code = lj_http_perform(me->http, &request, response, err);
    }
    lj_wipe(form.data, form.len);
    lj_buf_free(&form);
    return code;
}

static lj_code ask_managed(const identity *me, lj_http_response *response, lj_error *err)
{
    LJ_CLEANUP(lj_wipe_freep) char *header = NULL;
    if (me->kind == APP_SERVICE) {
        header = lj_str_printf("X-IDENTITY-HEADER: %s", lj_secret_text(&me->secret));
        if (header == NULL)
            return lj_error_nomem(err);
    }
    const char *const headers[] = {header != NULL ? header : "Metadata: true", NULL};
    lj_http_request request = LJ_HTTP_REQUEST("GET", me->url);
    request.headers = headers;
    request.connect_timeout_ns = METADATA_CONNECT_NS;
    request.total_timeout_ns = METADATA_TOTAL_NS;
    request.no_proxy = true;
    lj_code code = lj_http_perform(me->http, &request, response, err);
    if (code == LJ_OK)
        return LJ_OK;
    if (me->kind == METADATA)
        (void)lj_error_hint(err, "no Azure credentials are configured, and this machine has no "
                                 "managed identity: give account-key, sas-token or "
                                 "connection-string, or AZURE_TENANT_ID, AZURE_CLIENT_ID and "
                                 "AZURE_CLIENT_SECRET");
    return code;
}

static lj_code fetch(void *ctx, lj_token *ret_token, lj_error *err)
{
    const identity *me = ctx;
    bool managed = me->kind == APP_SERVICE || me->kind == METADATA;
    LJ_CLEANUP(lj_http_response_free) lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    lj_code code = managed ? ask_managed(me, &response, err) : ask_entra(me, &response, err);
    if (code == LJ_OK && response.status != 200)
        code = lj_azure_token_refused(&response, managed, err);
    else if (code == LJ_OK)
        code = lj_azure_token_parse(lj_buf_text(&response.body), response.body.len,
                                    lj_clock_wall_ns(), ret_token, err);
    if (code == LJ_OK)
        return LJ_OK;
    if (code == LJ_NOTFOUND || code == LJ_EXISTS) {
        code = LJ_DENIED; /* a token file that is missing must not be read as an object that is */
        if (err != NULL)
            err->code = code;
    }
    /* should a server repeat what it was sent */
    if (err != NULL && lj_secret_is_set(&me->secret) &&
        strstr(err->message, lj_secret_text(&me->secret)) != NULL)
        (void)snprintf(err->message, sizeof(err->message), "refused: HTTP %d", response.status);
    (void)lj_error_context(err, "token from %s", origins[me->kind]);
    return code;
}

static void free_identity(void *ctx)
{
    identity *me = ctx;
    lj_http_free(me->http);
    free(me->url);
    free(me->client);
    free(me->token_file);
    lj_secret_free(&me->secret);
    free(me);
}

/* ---- what the environment says ---- */

static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value != NULL && value[0] != 0 ? value : NULL;
}

static lj_code missing(const char *have, const char *lack, lj_error *err)
{
    lj_error_set(err, LJ_INVALID, "%s is set, but %s is not", have, lack);
    return lj_error_hint(err, "set both, or neither");
}

static lj_code copy_text(char **ret, const char *text, lj_error *err)
{
    *ret = lj_str_dup(text);
    return *ret == NULL && text != NULL ? lj_error_nomem(err) : LJ_OK;
}

/* The URL of the token endpoint of the tenant. */
static lj_code set_authority(identity *me, const char *tenant, lj_error *err)
{
    const char *authority = variable("AZURE_AUTHORITY_HOST");
    if (authority == NULL)
        authority = DEFAULT_AUTHORITY;
    if (tenant[strspn(tenant,
                      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.")] != 0)
        return lj_error_set(err, LJ_INVALID, "AZURE_TENANT_ID is no id and no domain name");
    if (lj_azure_is_exposed(authority) || authority[strcspn(authority, "?# \t\r\n")] != 0 ||
        (strncasecmp(authority, "https://", 8) != 0 && strncasecmp(authority, "http://", 7) != 0)) {
        lj_error_set(err, LJ_INVALID, "AZURE_AUTHORITY_HOST is no https:// URL");
        return lj_error_hint(err, "it looks like %s/", DEFAULT_AUTHORITY);
    }
    size_t len = strlen(authority);
    while (len > 0 && authority[len - 1] == '/')
        len--;
    me->url = lj_str_printf("%.*s/%s/oauth2/v2.0/token", (int)len, authority, tenant);
    return me->url == NULL ? lj_error_nomem(err) : LJ_OK;
}

static lj_code set_entra(identity *me, lj_error *err)
{
    const char *secret = variable("AZURE_CLIENT_SECRET");
    const char *file = variable("AZURE_FEDERATED_TOKEN_FILE");
    const char *tenant = variable("AZURE_TENANT_ID");
    const char *client = variable("AZURE_CLIENT_ID");
    const char *have = secret != NULL ? "AZURE_CLIENT_SECRET" : "AZURE_FEDERATED_TOKEN_FILE";
    if (tenant == NULL)
        return missing(have, "AZURE_TENANT_ID", err);
    if (client == NULL)
        return missing(have, "AZURE_CLIENT_ID", err);
    me->kind = secret != NULL ? CLIENT_SECRET : WORKLOAD;
    LJ_TRY(set_authority(me, tenant, err));
    LJ_TRY(copy_text(&me->client, client, err));
    if (secret != NULL)
        return lj_secret_set(&me->secret, secret, err);
    return copy_text(&me->token_file, file, err);
}

/* Tells of the ways of managed identities that are not known here, before the metadata service is asked in vain. */
static lj_code check_managed(lj_error *err)
{
    const char *what = NULL;
    if (variable("IDENTITY_ENDPOINT") != NULL) {
        if (variable("IDENTITY_SERVER_THUMBPRINT") != NULL)
            what = "Service Fabric (IDENTITY_SERVER_THUMBPRINT)";
        else if (variable("IDENTITY_HEADER") == NULL)
            what = "Azure Arc (IDENTITY_ENDPOINT without IDENTITY_HEADER)";
    } else if (variable("MSI_ENDPOINT") != NULL) {
        what = "Cloud Shell or Azure ML (MSI_ENDPOINT)";
    }
    if (what == NULL)
        return LJ_OK;
    lj_error_set(err, LJ_UNSUPPORTED, "the managed identity of %s is not supported", what);
    return lj_error_hint(err, "set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET of a "
                              "service principal, or give sas-token or account-key");
}

static lj_code set_managed(identity *me, lj_error *err)
{
    LJ_TRY(check_managed(err));
    const char *endpoint = variable("IDENTITY_ENDPOINT");
    const char *host = variable("AZURE_POD_IDENTITY_AUTHORITY_HOST");
    const char *client = variable("AZURE_CLIENT_ID");
    LJ_CLEANUP(lj_buf_free) lj_buf url = LJ_BUF_INIT(8192);
    me->kind = endpoint != NULL ? APP_SERVICE : METADATA;
    if (endpoint != NULL) {
        LJ_TRY(lj_secret_set(&me->secret, variable("IDENTITY_HEADER"), err));
        LJ_TRY(lj_buf_printf(&url, err, "%s?api-version=2019-08-01&resource=", endpoint));
    } else {
        if (host == NULL)
            host = DEFAULT_IMDS;
        size_t len = strlen(host);
        while (len > 0 && host[len - 1] == '/')
            len--;
        LJ_TRY(lj_buf_printf(&url, err,
                             "%.*s/metadata/identity/oauth2/token?api-version=2018-02-01&resource=",
                             (int)len, host));
    }
    LJ_TRY(lj_url_encode(&url, RESOURCE, false, err));
    if (client != NULL) {
        LJ_TRY(lj_buf_printf(&url, err, "&client_id="));
        LJ_TRY(lj_url_encode(&url, client, false, err));
    }
    LJ_TRY(copy_text(&me->client, client, err));
    return copy_text(&me->url, lj_buf_text(&url), err);
}

static lj_code set_up(identity *me, int64_t io_timeout_ns, lj_error *err)
{
    lj_http_options options = {.stall_timeout_ns = STALL_MAX_NS};
    if (io_timeout_ns > 0)
        options.stall_timeout_ns = LJ_MIN(io_timeout_ns, STALL_MAX_NS);
    if (variable("AZURE_CLIENT_SECRET") != NULL || variable("AZURE_FEDERATED_TOKEN_FILE") != NULL) {
        LJ_TRY(set_entra(me, err));
    } else if (variable("AZURE_CLIENT_CERTIFICATE_PATH") != NULL) {
        lj_error_set(err, LJ_UNSUPPORTED,
                     "authentication by a certificate (AZURE_CLIENT_CERTIFICATE_PATH) is not "
                     "supported");
        return lj_error_hint(err, "give the service principal a client secret and set "
                                  "AZURE_CLIENT_SECRET, or use a workload identity");
    } else {
        LJ_TRY(set_managed(me, err));
    }
    return lj_http_new(&options, &me->http, err);
}

lj_code lj_azure_bearer_open(int64_t io_timeout_ns, lj_token_source **ret_source,
                             const char **ret_origin, lj_error *err)
{
    static const lj_token_ops ops = {.fetch = fetch, .free = free_identity};
    identity *me = calloc(1, sizeof(*me));
    if (me == NULL)
        return lj_error_nomem(err);
    lj_code code = set_up(me, io_timeout_ns, err);
    char hash[LJ_SHA256_HEX] = "";
    if (code == LJ_OK)
        code = lj_sha256_hex(lj_secret_text(&me->secret), me->secret.len, hash, err);
    LJ_CLEANUP(lj_freep) char *key = NULL;
    if (code == LJ_OK) {
        key = lj_str_printf("azure|%d|%s|%s|%s|%s", (int)me->kind, me->url,
                            me->client != NULL ? me->client : "",
                            me->token_file != NULL ? me->token_file : "", hash);
        if (key == NULL)
            code = lj_error_nomem(err);
    }
    if (code != LJ_OK) {
        free_identity(me);
        return code;
    }
    *ret_origin = origins[me->kind];
    return lj_token_source_open(key, &ops, me, ret_source, err);
}
