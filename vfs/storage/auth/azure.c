/*
 * azure.c - see azure.h: the choice of the account and of the credentials.
 *
 * Layer: storage. Thread-safety: a provider is constant after it was made.
 */
#include "vfs/storage/auth/azure.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/log.h"
#include "vfs/base/str.h"
#include "vfs/storage/auth/azure_internal.h"
#include "vfs/storage/auth/crypto.h"

struct lj_azure_provider {
    lj_azure_kind kind;
    const char *origin;
    char *account;
    char *endpoint;
    lj_secret secret;
    lj_token_source *token;
};

/* What is chosen from. Members are NULL when not given. */
typedef struct {
    const lj_azure_options *options;
    lj_azure_connection setting; /* connection-string */
    lj_azure_connection env; /* AZURE_STORAGE_CONNECTION_STRING; empty when for another account */
    const char *env_account;
    const char *account;
    char *told; /* the account that the endpoint names; owned */
} choice;

static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value != NULL && value[0] != 0 ? value : NULL;
}

static bool is_given(const char *text)
{
    return text != NULL && text[0] != 0;
}

/* ---- the account ---- */

static lj_code read_connection(const char *text, const char *origin, lj_azure_connection *ret,
                               lj_error *err)
{
    if (!is_given(text))
        return LJ_OK;
    lj_code code = lj_azure_connection_parse(text, ret, err);
    if (code != LJ_OK)
        (void)lj_error_context(err, "%s", origin);
    return code;
}

static lj_code check_account(const char *account, lj_error *err)
{
    for (const char *c = account; *c != 0; c++)
        if (!isalnum((unsigned char)*c) && *c != '-' && *c != '_') {
            lj_error_set(err, LJ_INVALID,
                         "the name of the storage account has a character that "
                         "none has");
            return lj_error_hint(err, "it is 3 to 24 lower-case letters and digits: the NAME in "
                                      "https://NAME.blob.core.windows.net");
        }
    return LJ_OK;
}

static lj_code choose_account(choice *c, lj_error *err)
{
    const lj_azure_options *o = c->options;
    LJ_TRY(read_connection(o->connection_string, "connection-string", &c->setting, err));
    LJ_TRY(read_connection(variable("AZURE_STORAGE_CONNECTION_STRING"),
                           "AZURE_STORAGE_CONNECTION_STRING", &c->env, err));
    c->env_account = variable("AZURE_STORAGE_ACCOUNT");
    c->told = is_given(o->endpoint) ? lj_azure_account_of_endpoint(o->endpoint) : NULL;
    const char *const order[] = {is_given(o->account_name) ? o->account_name : NULL,
                                 c->setting.account, c->env_account, c->env.account, c->told};
    for (size_t i = 0; i < LJ_ARRAY_LEN(order) && c->account == NULL; i++)
        c->account = order[i];
    if (c->account == NULL)
        return LJ_OK;
    LJ_TRY(check_account(c->account, err));
    if (c->setting.account != NULL && strcmp(c->setting.account, c->account) != 0) {
        lj_error_set(err, LJ_INVALID,
                     "the connection-string is for the storage account \"%s\", the replica is in "
                     "\"%s\"",
                     c->setting.account, c->account);
        return lj_error_hint(err, "name the same account in both, or leave one of them out");
    }
    return LJ_OK;
}

/* What the environment has for another account is somebody else's. */
static void drop_foreign(choice *c)
{
    if (c->env.account == NULL || c->account == NULL || strcmp(c->env.account, c->account) == 0)
        return;
    lj_log(LJ_LOG_INFO,
           "AZURE_STORAGE_CONNECTION_STRING is for the storage account \"%s\" and is not used for "
           "the replica in \"%s\"",
           c->env.account, c->account);
    lj_azure_connection_free(&c->env);
}

/* ---- the credentials ---- */

static lj_code use_key(lj_azure_provider *p, const char *key, const char *origin, lj_error *err)
{
    p->kind = LJ_AZURE_KEY;
    p->origin = origin;
    if (p->account == NULL) {
        lj_error_set(err, LJ_INVALID, "there is an account key (%s), but no name of the account",
                     origin);
        return lj_error_hint(err, "write abs://ACCOUNT@container/prefix, or set account-name or "
                                  "AZURE_STORAGE_ACCOUNT");
    }
    lj_code code = lj_base64_decode(key, &p->secret, err);
    if (code == LJ_INVALID || (code == LJ_OK && !lj_secret_is_set(&p->secret))) {
        lj_error_set(err, LJ_INVALID, "the account key (%s) is not base64", origin);
        return lj_error_hint(err, "copy it again from \"Access keys\" of the storage account");
    }
    return code;
}

static lj_code use_sas(lj_azure_provider *p, const char *sas, const char *origin, lj_error *err)
{
    p->kind = LJ_AZURE_SAS;
    p->origin = origin;
    while (*sas == '?' || isspace((unsigned char)*sas))
        sas++;
    size_t len = strlen(sas);
    while (len > 0 && isspace((unsigned char)sas[len - 1]))
        len--;
    bool signs = strncmp(sas, "sig=", 4) == 0 || strstr(sas, "&sig=") != NULL;
    for (size_t i = 0; i < len && signs; i++)
        signs = isgraph((unsigned char)sas[i]) && sas[i] != '#' && sas[i] != '?';
    if (!signs) {
        lj_error_set(err, LJ_INVALID, "the SAS token (%s) is none", origin);
        return lj_error_hint(err, "it looks like sv=2023-11-03&sr=c&sp=rcwdl&se=...&sig=..., "
                                  "percent-encoded as the portal gives it");
    }
    return lj_secret_set_bytes(&p->secret, sas, len, err);
}

static lj_code use_connection(lj_azure_provider *p, const lj_azure_connection *c,
                              const char *origin, lj_error *err)
{
    if (lj_secret_is_set(&c->key))
        return use_key(p, lj_secret_text(&c->key), origin, err);
    return use_sas(p, lj_secret_text(&c->sas), origin, err);
}

static bool has_credentials(const lj_azure_connection *c)
{
    return lj_secret_is_set(&c->key) || lj_secret_is_set(&c->sas);
}

static lj_code choose_credentials(lj_azure_provider *p, const choice *c, lj_error *err)
{
    const lj_azure_options *o = c->options;
    bool ours =
        c->env_account == NULL || c->account == NULL || strcmp(c->env_account, c->account) == 0;
    const char *env_key = ours ? variable("AZURE_STORAGE_KEY") : NULL;
    const char *litestream_key = variable("LITESTREAM_AZURE_ACCOUNT_KEY");
    const char *env_sas = ours ? variable("AZURE_STORAGE_SAS_TOKEN") : NULL;
    if (is_given(o->account_key))
        return use_key(p, o->account_key, "account-key", err);
    if (has_credentials(&c->setting))
        return use_connection(p, &c->setting, "connection-string", err);
    if (is_given(o->sas_token))
        return use_sas(p, o->sas_token, "sas-token", err);
    if (env_key != NULL)
        return use_key(p, env_key, "AZURE_STORAGE_KEY", err);
    if (litestream_key != NULL)
        return use_key(p, litestream_key, "LITESTREAM_AZURE_ACCOUNT_KEY", err);
    if (has_credentials(&c->env))
        return use_connection(p, &c->env, "AZURE_STORAGE_CONNECTION_STRING", err);
    if (env_sas != NULL)
        return use_sas(p, env_sas, "AZURE_STORAGE_SAS_TOKEN", err);
    p->kind = LJ_AZURE_BEARER;
    return lj_azure_bearer_open(o->io_timeout_ns, &p->token, &p->origin, err);
}

static lj_code make(lj_azure_provider *p, choice *c, lj_error *err)
{
    LJ_TRY(choose_account(c, err));
    drop_foreign(c);
    const char *endpoint = c->setting.endpoint != NULL ? c->setting.endpoint : c->env.endpoint;
    p->account = lj_str_dup(c->account);
    p->endpoint = lj_str_dup(endpoint);
    if ((c->account != NULL && p->account == NULL) || (endpoint != NULL && p->endpoint == NULL))
        return lj_error_nomem(err);
    return choose_credentials(p, c, err);
}

/* ---- the provider ---- */

lj_code lj_azure_provider_new(const lj_azure_options *options, lj_azure_provider **ret_provider,
                              lj_error *err)
{
    choice c = {.options = options};
    lj_azure_provider *p = calloc(1, sizeof(*p));
    lj_code code = p != NULL ? make(p, &c, err) : lj_error_nomem(err);
    lj_azure_connection_free(&c.setting);
    lj_azure_connection_free(&c.env);
    free(c.told);
    if (code != LJ_OK) {
        lj_azure_provider_free(p);
        return code;
    }
    *ret_provider = p;
    return LJ_OK;
}

void lj_azure_provider_free(lj_azure_provider *provider)
{
    if (provider == NULL)
        return;
    lj_token_source_close(provider->token);
    free(provider->account);
    free(provider->endpoint);
    lj_secret_free(&provider->secret);
    free(provider);
}

lj_azure_kind lj_azure_provider_kind(const lj_azure_provider *provider)
{
    return provider->kind;
}

const char *lj_azure_provider_origin(const lj_azure_provider *provider)
{
    return provider->origin;
}

const char *lj_azure_provider_account(const lj_azure_provider *provider)
{
    return provider->account;
}

const char *lj_azure_provider_endpoint(const lj_azure_provider *provider)
{
    return provider->endpoint;
}

const lj_secret *lj_azure_provider_secret(const lj_azure_provider *provider)
{
    return &provider->secret;
}

lj_token_source *lj_azure_provider_token(const lj_azure_provider *provider)
{
    return provider->token;
}
