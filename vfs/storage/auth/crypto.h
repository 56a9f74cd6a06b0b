/*
 * crypto.h - the few primitives that signing needs, by OpenSSL: SHA-256, HMAC, MD5 (Content-MD5), base64, RS256.
 *
 * Layer: storage. Thread-safety: pure.
 */
#ifndef LJ_CRYPTO_H
#define LJ_CRYPTO_H

#include "vfs/base/secret.h"

#define LJ_SHA256_BYTES 32u
#define LJ_SHA256_HEX   65u /* with the NUL */
#define LJ_MD5_BYTES    16u

LJ_WARN_UNUSED lj_code lj_sha256(const void *data, size_t len, uint8_t out[LJ_SHA256_BYTES],
                                 lj_error *err);
LJ_WARN_UNUSED lj_code lj_sha256_hex(const void *data, size_t len, char out[LJ_SHA256_HEX],
                                     lj_error *err);
/* The same piece by piece. lj_sha256_free also after a failure; NULL is fine. */
typedef struct lj_sha256_state lj_sha256_state;
LJ_WARN_UNUSED lj_code lj_sha256_new(lj_sha256_state **ret_state, lj_error *err);
LJ_WARN_UNUSED lj_code lj_sha256_restart(lj_sha256_state *state, lj_error *err);
LJ_WARN_UNUSED lj_code lj_sha256_add(lj_sha256_state *state, const void *data, size_t len,
                                     lj_error *err);
/* Of what was added so far; to be called once between two restarts. */
LJ_WARN_UNUSED lj_code lj_sha256_end(lj_sha256_state *state, uint8_t out[LJ_SHA256_BYTES],
                                     lj_error *err);
void lj_sha256_free(lj_sha256_state *state);
LJ_WARN_UNUSED lj_code lj_md5(const void *data, size_t len, uint8_t out[LJ_MD5_BYTES],
                              lj_error *err);
LJ_WARN_UNUSED lj_code lj_hmac_sha256(const void *key, size_t key_len, const void *data, size_t len,
                                      uint8_t out[LJ_SHA256_BYTES], lj_error *err);
/* Lower case, with a NUL: `out` has 2 * len + 1 bytes. */
void lj_hex(const uint8_t *data, size_t len, char *out);

/* Standard base64 with padding, allocated; NULL when out of memory. */
char *lj_base64(const void *data, size_t len);
/* base64url without padding (JWT), allocated. */
char *lj_base64url(const void *data, size_t len);
/* Standard base64 with padding back into bytes, into a secret (keys come this way). LJ_INVALID when malformed. */
LJ_WARN_UNUSED lj_code lj_base64_decode(const char *text, lj_secret *ret_bytes, lj_error *err);

/*
 * RSASSA-PKCS1-v1_5 with SHA-256 by the private key in `pem` (PKCS#8 or PKCS#1, not encrypted): "RS256" of a JWT. The
 * signature is base64url, allocated. LJ_INVALID when the key cannot be read; the message does not show it.
 */
LJ_WARN_UNUSED lj_code lj_rs256(const lj_secret *pem, const void *data, size_t len,
                                char **ret_signature, lj_error *err);

#endif
