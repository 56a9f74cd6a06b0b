/*
 * azure.h - which Azure Storage account, and with what credentials.
 *
 * What the URL and litestream.yml say beats the environment. Within each: an account key, then a connection string, then a
 * SAS token. In whole:
 *   1. account-key; connection-string (its AccountKey, else its SharedAccessSignature); sas-token
 *   2. AZURE_STORAGE_KEY, LITESTREAM_AZURE_ACCOUNT_KEY; AZURE_STORAGE_CONNECTION_STRING; AZURE_STORAGE_SAS_TOKEN
 *   3. a bearer token of Microsoft Entra ID, in the order of the Azure SDKs' DefaultAzureCredential:
 *      client secret (AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET; AZURE_AUTHORITY_HOST),
 *      workload identity (AZURE_FEDERATED_TOKEN_FILE, read at each fetch),
 *      managed identity (App Service's IDENTITY_ENDPOINT, else the machine's metadata service; AZURE_CLIENT_ID names a
 *      user-assigned one)
 * The first that is configured decides: when it fails, that is the error, and no later one is tried in silence.
 *
 * The account is the one of the URL or of account-name, then of the connection-string setting, of AZURE_STORAGE_ACCOUNT,
 * of AZURE_STORAGE_CONNECTION_STRING, of the endpoint's host. The host's program may use Azure for purposes of its own:
 * AZURE_STORAGE_KEY and AZURE_STORAGE_SAS_TOKEN are passed over when AZURE_STORAGE_ACCOUNT names another account, and so is an
 * AZURE_STORAGE_CONNECTION_STRING for another one.
 *
 * Layer: storage. Thread-safety: any thread. The environment is read once, when the provider is made.
 */
#ifndef LJ_AZURE_H
#define LJ_AZURE_H

#include "vfs/storage/auth/token.h"
#include "vfs/storage/http/http.h"

typedef struct lj_azure_provider lj_azure_provider;

/* NULL: not given. Texts are copied. */
typedef struct {
    const char *account_name;
    const char *account_key;
    const char *sas_token;
    const char *connection_string;
    const char *endpoint; /* only to tell the account from, when nothing else does */
    int64_t io_timeout_ns;
} lj_azure_options;

typedef enum { LJ_AZURE_KEY, LJ_AZURE_SAS, LJ_AZURE_BEARER } lj_azure_kind;

/*
 * Makes no request. Errors: LJ_INVALID for what is malformed or half there (a key without an account, a client secret
 * without a tenant), LJ_UNSUPPORTED for a way of authentication that is configured and not known here.
 */
LJ_WARN_UNUSED lj_code lj_azure_provider_new(const lj_azure_options *options,
                                             lj_azure_provider **ret_provider, lj_error *err);
void lj_azure_provider_free(lj_azure_provider *provider);

lj_azure_kind lj_azure_provider_kind(const lj_azure_provider *provider);
/* Where the credentials come from, for messages: "account-key", "AZURE_STORAGE_KEY", "a managed identity", ... */
const char *lj_azure_provider_origin(const lj_azure_provider *provider);
/* NULL when nothing says; never with LJ_AZURE_KEY. */
const char *lj_azure_provider_account(const lj_azure_provider *provider);
/* What the connection string says about it, without a '/' at the end; NULL when there is none. */
const char *lj_azure_provider_endpoint(const lj_azure_provider *provider);
/* LJ_AZURE_KEY: the key's bytes. LJ_AZURE_SAS: the token as it goes into a query, without '?'. */
const lj_secret *lj_azure_provider_secret(const lj_azure_provider *provider);
/* LJ_AZURE_BEARER: the source of tokens (value 0 is the token). Owned by the provider; NULL for the others. */
lj_token_source *lj_azure_provider_token(const lj_azure_provider *provider);

#endif
