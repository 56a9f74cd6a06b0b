/*
 * google.h - Google credentials, found the way the Google libraries find them ("application default credentials").
 *
 * Order: the file given (credentials-path); the file in GOOGLE_APPLICATION_CREDENTIALS; the file gcloud leaves
 * ($CLOUDSDK_CONFIG, else ~/.config/gcloud: application_default_credentials.json) when it is there; else the metadata server of
 * the machine (GCE_METADATA_HOST, else 169.254.169.254). The first that is configured decides: when it fails, that is
 * the error, and no later one is tried in silence.
 *
 * Kinds of files: service_account (a JWT signed by its key), authorized_user (a refresh token), external_account (workload
 * identity federation: a token from a file or a URL, exchanged at STS; also with service account impersonation),
 * impersonated_service_account over one of the first three. Others are LJ_UNSUPPORTED with a hint. The file is read again at
 * every fetch, so a rotated one needs no restart; so is the token file of an external account. Only the universe
 * googleapis.com.
 *
 * Tokens are asked for with the scope devstorage.read_write, live an hour or less, and are shared by all replicas of the process
 * that use the same file.
 *
 * Layer: storage. Thread-safety: any thread. The environment is read once, when the provider is made.
 * Source: google.aip.dev/auth/4110 to 4117; developers.google.com/identity/protocols/oauth2.
 */
#ifndef LJ_GOOGLE_H
#define LJ_GOOGLE_H

#include "vfs/storage/auth/token.h"
#include "vfs/storage/http/http.h"

typedef struct lj_google_provider lj_google_provider;

/* NULL, 0: not given. Texts are copied. */
typedef struct {
    const char *credentials_path;
    int64_t io_timeout_ns;
} lj_google_options;

/* The value of a lj_token from lj_google_provider_token's source. */
enum { LJ_GOOGLE_BEARER = 0 };

/*
 * Makes no request. Reads the credentials file once, if it can be read, to tell early what is wrong with it: LJ_INVALID
 * (malformed), LJ_UNSUPPORTED (a kind that is not known). A file that is not there is an error of lj_token_get (LJ_DENIED,
 * retryable), because it may come.
 */
LJ_WARN_UNUSED lj_code lj_google_provider_new(const lj_google_options *options,
                                              lj_google_provider **ret_provider, lj_error *err);
void lj_google_provider_free(lj_google_provider *provider);
/* The credentials: lj_token_get, lj_token_expired. Owned by the provider. */
lj_token_source *lj_google_provider_token(lj_google_provider *provider);

#endif
