/*
 * google_internal.h - what the parts of the Google credentials share. Not for others, except their tests.
 *
 *     google.c           where the credentials are, and the token source
 *     google_file.c      the credentials file: pure
 *     google_answer.c    the JWT, what token services answer, the use of the JSON library: pure
 *     google_fetch.c     the requests
 *
 * Layer: storage. Thread-safety: a lj_google_file has one owner.
 */
#ifndef LJ_GOOGLE_INTERNAL_H
#define LJ_GOOGLE_INTERNAL_H

#include <jansson.h>

#include "vfs/storage/auth/google.h"

#define LJ_GOOGLE_FILE_MAX    ((size_t)256 * 1024) /* a credentials file */
#define LJ_GOOGLE_SUBJECT_MAX ((size_t)256 * 1024) /* a token file of an external account */
#define LJ_GOOGLE_ANSWER_MAX  ((size_t)256 * 1024) /* of a token service */
#define LJ_GOOGLE_TOKEN_MAX   ((size_t)64 * 1024)  /* an access token */
#define LJ_GOOGLE_LIFE_MAX_S  UINT64_C(43200) /* what a token service may say of a token's life */
#define LJ_GOOGLE_HEADERS_MAX 8u              /* headers of a credential_source */

#define LJ_GOOGLE_SCOPE_STORAGE  "https://www.googleapis.com/auth/devstorage.read_write"
#define LJ_GOOGLE_SCOPE_PLATFORM "https://www.googleapis.com/auth/cloud-platform"
#define LJ_GOOGLE_TOKEN_URL      "https://oauth2.googleapis.com/token"

typedef enum {
    LJ_GOOGLE_SERVICE_ACCOUNT,
    LJ_GOOGLE_AUTHORIZED_USER,
    LJ_GOOGLE_EXTERNAL_ACCOUNT,
} lj_google_kind;

/* X(field): the texts of a credentials file, each a secret so that all are wiped. */
#define LJ_GOOGLE_FIELD_MAP(X)                                                                     \
    X(client_email)                                                                                \
    X(private_key)                                                                                 \
    X(private_key_id)                                                                              \
    X(token_url) /* token_uri of a service account, token_url of an external one */                \
    X(client_id)                                                                                   \
    X(client_secret)                                                                               \
    X(refresh_token)                                                                               \
    X(audience)                                                                                    \
    X(subject_token_type)                                                                          \
    X(workforce_project)                                                                           \
    X(source_file) /* credential_source: one of the two */                                         \
    X(source_url)                                                                                  \
    X(source_field) /* where the token is in JSON; not set: the whole text */                      \
    X(impersonation_url)                                                                           \
    X(delegates) /* a JSON array, as text */

/* What a credentials file says. Zeroed: nothing. Freed with lj_google_file_free. */
typedef struct {
    lj_google_kind kind;
#define X(field) lj_secret field;
    LJ_GOOGLE_FIELD_MAP(X)
#undef X
    lj_secret source_headers[LJ_GOOGLE_HEADERS_MAX]; /* "Name: value" */
    uint64_t impersonation_life_s;
} lj_google_file;

void lj_google_file_free(lj_google_file *file);
/*
 * Reads a credentials file from its text. LJ_INVALID says which field is wrong, never its value; LJ_UNSUPPORTED another kind or
 * universe, with a hint. *ret_file is overwritten on success only.
 */
LJ_WARN_UNUSED lj_code lj_google_file_parse(const char *text, size_t len, lj_google_file *ret_file,
                                            lj_error *err);
/*
 * May a secret be sent to this URL: https://, or http:// to this machine or a link-local address (metadata services)? Also
 * refuses control characters and a userinfo.
 */
bool lj_google_url_ok(const char *url);

/* The signed JWT a service account asks for a token with, valid for an hour from `now_ns`. */
LJ_WARN_UNUSED lj_code lj_google_jwt(const lj_google_file *file, const char *scope, int64_t now_ns,
                                     lj_secret *ret_jwt, lj_error *err);

/*
 * A token service's answer: access_token and expires_in (OAuth, STS, metadata server), or accessToken and expireTime
 * (impersonation). `now_ns`: when it was asked for. LJ_CORRUPT, retryable, when malformed.
 */
LJ_WARN_UNUSED lj_code lj_google_answer_parse(const char *text, size_t len, int64_t now_ns,
                                              lj_token *ret_token, lj_error *err);
/* What a token service's refusal says: error and error_description, or error.message. "" for nothing. */
void lj_google_refusal_text(const char *text, size_t len, char *out, size_t size);
/* The token of an external account out of what its file or URL gave. */
LJ_WARN_UNUSED lj_code lj_google_subject_parse(const lj_google_file *file, const char *text,
                                               size_t len, lj_secret *ret_subject, lj_error *err);

/* ---- JSON ---- */

/* An object, or NULL. Freed with lj_google_json_free, which wipes its texts; for LJ_CLEANUP too. */
json_t *lj_google_json_parse(const char *text, size_t len);
void lj_google_json_free(json_t **json);
/* A text in it, NULL when there is none. */
const char *lj_google_json_text(const json_t *object, const char *name);
/* For json_dump_callback: appends to the lj_buf. */
int lj_google_json_more(const char *text, size_t len, void *buf);

/* ---- requests ---- */

/* A token by what the file says. */
LJ_WARN_UNUSED lj_code lj_google_fetch(lj_http *http, const lj_google_file *file,
                                       lj_token *ret_token, lj_error *err);
/* A token of the metadata server at `host` (host or host:port). */
LJ_WARN_UNUSED lj_code lj_google_fetch_metadata(lj_http *http, const char *host,
                                                lj_token *ret_token, lj_error *err);

#endif
