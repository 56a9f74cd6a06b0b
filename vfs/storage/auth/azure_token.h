/*
 * azure_token.h - the answers of token endpoints (internal to azure*.c, and their tests).
 *
 * Layer: storage. Thread-safety: pure. Source: RFC 6749 sections 5.1 and 5.2, with what Entra ID and the managed identity
 * endpoints make of them.
 */
#ifndef LJ_AZURE_TOKEN_H
#define LJ_AZURE_TOKEN_H

#include "vfs/storage/auth/token.h"
#include "vfs/storage/http/http.h"

/*
 * Reads access_token, and when it expires: expires_on (seconds since 1970) beats expires_in, because managed identities hand
 * out tokens from a cache and count expires_in from when a token was made. Both may be a number or a text of one. `now_ns` is the
 * wall time. Errors: LJ_UNAVAILABLE, retryable (LJ_CORRUPT would be taken for the object's).
 */
LJ_WARN_UNUSED lj_code lj_azure_token_parse(const char *body, size_t len, int64_t now_ns,
                                            lj_token *ret_token, lj_error *err);

/*
 * The error of an answer other than 200, with a hint for what is known of it. `managed`: of a managed identity's endpoint,
 * else of Entra ID. All may pass by themselves or when rights change, and are retryable.
 */
lj_code lj_azure_token_refused(const lj_http_response *response, bool managed, lj_error *err);

#endif
