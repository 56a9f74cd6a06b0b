/*
 * azure_internal.h - what the parts of azure.h share. Not for other folders, except their tests.
 *
 * Layer: storage. Thread-safety: pure, but for lj_azure_bearer_open (as token.h).
 */
#ifndef LJ_AZURE_INTERNAL_H
#define LJ_AZURE_INTERNAL_H

#include "vfs/storage/auth/token.h"

/* A parsed connection string. Texts are NULL when it does not say. */
typedef struct {
    char *account;  /* AccountName, else told from BlobEndpoint */
    char *endpoint; /* without a '/' at the end */
    lj_secret key;  /* base64, as it stands there */
    lj_secret sas;  /* as it stands there */
} lj_azure_connection;

/*
 * "Name=value;Name=value". Names are those of the Azure SDKs, in any case: DefaultEndpointsProtocol, AccountName, AccountKey,
 * SharedAccessSignature, BlobEndpoint, EndpointSuffix, UseDevelopmentStorage, DevelopmentStorageProxyUri; those about
 * other services are passed over. Errors: LJ_INVALID, without a word of the text, which may be a secret.
 */
LJ_WARN_UNUSED lj_code lj_azure_connection_parse(const char *text, lj_azure_connection *ret,
                                                 lj_error *err);
void lj_azure_connection_free(lj_azure_connection *connection);

/*
 * The account in "https://ACCOUNT.blob.any.domain", or in "http://127.0.0.1:10000/ACCOUNT" as emulators have it; allocated.
 * NULL when there is none (any other name of a host), or when out of memory.
 */
char *lj_azure_account_of_endpoint(const char *endpoint);

/*
 * True for http:// to another machine, over which a bearer token or a secret must not go. https:// and the loopback are
 * safe.
 */
bool lj_azure_is_exposed(const char *url);

/*
 * The source of bearer tokens for storage that the environment describes. *ret_origin is a text for messages, static.
 * Errors: as lj_azure_provider_new.
 */
LJ_WARN_UNUSED lj_code lj_azure_bearer_open(int64_t io_timeout_ns, lj_token_source **ret_source,
                                            const char **ret_origin, lj_error *err);

#endif
