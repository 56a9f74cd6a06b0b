/*
 * crypto.c - see crypto.h.
 *
 * OpenSSL keeps errors per thread, and on the host's threads that queue is the host's: whoever reads an old error of ours there
 * takes it for his own. So every call here leaves the queue as it was.
 *
 * Layer: storage.
 */
#include "vfs/storage/auth/crypto.h"

#include <limits.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <stdlib.h>
#include <string.h>

static lj_code failed(lj_error *err, const char *what)
{
    return lj_error_set(err, LJ_INTERNAL, "OpenSSL failed at %s", what);
}

static bool digest(const EVP_MD *kind, const void *data, size_t len, uint8_t *out)
{
    ERR_set_mark();
    bool good = EVP_Digest(data, len, out, NULL, kind, NULL) == 1;
    ERR_pop_to_mark();
    return good;
}

lj_code lj_sha256(const void *data, size_t len, uint8_t out[LJ_SHA256_BYTES], lj_error *err)
{
    return digest(EVP_sha256(), data, len, out) ? LJ_OK : failed(err, "SHA-256");
}

struct lj_sha256_state {
    EVP_MD_CTX *ctx;
};

lj_code lj_sha256_new(lj_sha256_state **ret_state, lj_error *err)
{
    lj_sha256_state *state = calloc(1, sizeof(*state));
    if (state == NULL)
        return lj_error_nomem(err);
    state->ctx = EVP_MD_CTX_new();
    lj_code code = state->ctx == NULL ? lj_error_nomem(err) : lj_sha256_restart(state, err);
    if (code != LJ_OK) {
        lj_sha256_free(state);
        return code;
    }
    *ret_state = state;
    return LJ_OK;
}

lj_code lj_sha256_restart(lj_sha256_state *state, lj_error *err)
{
    ERR_set_mark();
    bool good = EVP_DigestInit_ex(state->ctx, EVP_sha256(), NULL) == 1;
    ERR_pop_to_mark();
    return good ? LJ_OK : failed(err, "SHA-256");
}

lj_code lj_sha256_add(lj_sha256_state *state, const void *data, size_t len, lj_error *err)
{
    ERR_set_mark();
    bool good = EVP_DigestUpdate(state->ctx, data, len) == 1;
    ERR_pop_to_mark();
    return good ? LJ_OK : failed(err, "SHA-256");
}

lj_code lj_sha256_end(lj_sha256_state *state, uint8_t out[LJ_SHA256_BYTES], lj_error *err)
{
    ERR_set_mark();
    bool good = EVP_DigestFinal_ex(state->ctx, out, NULL) == 1;
    ERR_pop_to_mark();
    return good ? LJ_OK : failed(err, "SHA-256");
}

void lj_sha256_free(lj_sha256_state *state)
{
    if (state == NULL)
        return;
    EVP_MD_CTX_free(state->ctx);
    free(state);
}

lj_code lj_sha256_hex(const void *data, size_t len, char out[LJ_SHA256_HEX], lj_error *err)
{
    uint8_t digest[LJ_SHA256_BYTES];
    LJ_TRY(lj_sha256(data, len, digest, err));
    lj_hex(digest, sizeof(digest), out);
    return LJ_OK;
}

lj_code lj_md5(const void *data, size_t len, uint8_t out[LJ_MD5_BYTES], lj_error *err)
{
    if (!digest(EVP_md5(), data, len, out)) {
        lj_error_set(err, LJ_UNSUPPORTED, "this OpenSSL does not offer MD5");
        return lj_error_hint(err, "a FIPS configuration forbids it; Content-MD5 needs it");
    }
    return LJ_OK;
}

lj_code lj_hmac_sha256(const void *key, size_t key_len, const void *data, size_t len,
                       uint8_t out[LJ_SHA256_BYTES], lj_error *err)
{
    unsigned n = 0;
    ERR_set_mark();
    bool good = key_len <= INT_MAX &&
                HMAC(EVP_sha256(), key, (int)key_len, data, len, out, &n) != NULL &&
                n == LJ_SHA256_BYTES;
    ERR_pop_to_mark();
    return good ? LJ_OK : failed(err, "HMAC-SHA-256");
}

void lj_hex(const uint8_t *data, size_t len, char *out)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < len; i++) {
        out[2 * i] = digits[data[i] >> 4];
        out[2 * i + 1] = digits[data[i] & 15];
    }
    out[2 * len] = 0;
}

/* ---- base64 ---- */

char *lj_base64(const void *data, size_t len)
{
    if (len > INT_MAX / 2)
        return NULL;
    char *out = malloc(4 * ((len + 2) / 3) + 1);
    if (out != NULL)
        EVP_EncodeBlock((unsigned char *)out, data, (int)len);
    return out;
}

char *lj_base64url(const void *data, size_t len)
{
    char *out = lj_base64(data, len);
    if (out == NULL)
        return NULL;
    for (char *c = out; *c != 0; c++)
        *c = *c == '+' ? '-' : *c == '/' ? '_' : *c;
    out[strcspn(out, "=")] = 0;
    return out;
}

lj_code lj_base64_decode(const char *text, lj_secret *ret_bytes, lj_error *err)
{
    size_t len = strcspn(text, " \t\r\n");
    bool clean = text[len + strspn(text + len, " \t\r\n")] == 0;
    size_t padding = 0;
    while (padding < 2 && padding < len && text[len - 1 - padding] == '=')
        padding++;
    /* EVP_DecodeBlock takes some malformed texts: the alphabet is checked here */
    size_t plain = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
    if (!clean || len % 4 != 0 || plain + padding != len || len > INT_MAX)
        return lj_error_set(err, LJ_INVALID, "not base64");
    unsigned char *bytes = malloc(len + 1);
    if (bytes == NULL)
        return lj_error_nomem(err);
    int n = EVP_DecodeBlock(bytes, (const unsigned char *)text, (int)len);
    lj_code code = n < 0 ? lj_error_set(err, LJ_INVALID, "not base64")
                         : lj_secret_set_bytes(ret_bytes, (char *)bytes, (size_t)n - padding, err);
    lj_wipe(bytes, len);
    free(bytes);
    return code;
}

/* ---- RS256 ---- */

/* No passphrase is ever asked for on a terminal. */
static int no_passphrase(char *out, int size, int writing, void *ctx)
{
    (void)out, (void)size, (void)writing, (void)ctx;
    return -1;
}

static lj_code sign(EVP_PKEY *key, const void *data, size_t len, char **ret, lj_error *err)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    size_t n = 0;
    uint8_t *signature = NULL;
    bool good = ctx != NULL && EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, key) == 1 &&
                EVP_DigestSign(ctx, NULL, &n, data, len) == 1 && (signature = malloc(n)) != NULL &&
                EVP_DigestSign(ctx, signature, &n, data, len) == 1;
    EVP_MD_CTX_free(ctx);
    char *text = good ? lj_base64url(signature, n) : NULL;
    free(signature);
    if (!good)
        return failed(err, "RS256");
    if (text == NULL)
        return lj_error_nomem(err);
    *ret = text;
    return LJ_OK;
}

lj_code lj_rs256(const lj_secret *pem, const void *data, size_t len, char **ret_signature,
                 lj_error *err)
{
    ERR_set_mark();
    BIO *bio = pem->len <= INT_MAX ? BIO_new_mem_buf(lj_secret_text(pem), (int)pem->len) : NULL;
    EVP_PKEY *key = bio != NULL ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL) : NULL;
    BIO_free(bio);
    lj_code code = LJ_OK;
    if (key == NULL || EVP_PKEY_base_id(key) != EVP_PKEY_RSA)
        code = lj_error_set(err, LJ_INVALID, "the private key is not an RSA key in PEM");
    else
        code = sign(key, data, len, ret_signature, err);
    EVP_PKEY_free(key);
    ERR_pop_to_mark();
    return code;
}
