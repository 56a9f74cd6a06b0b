/*
 * offer.c - logging in with a public key whose private half is not in libssh2's hands.
 *
 * Layer: storage. Thread-safety: a session has one owner.
 *
 * RSA before libssh2 1.11 (Debian 12, Ubuntu 22.04): it takes the name of the signature algorithm from the first string of
 * the public key, "ssh-rsa", which means SHA-1, which OpenSSH refuses since 8.8. RFC 8332 wants the algorithm rsa-sha2-512
 * with a key that still says ssh-rsa. libssh2 copies the name out of the key into memory it allocates for that, then
 * allocates the request and copies the key into it. Its allocator is ours to give: the key begins with the name of the
 * algorithm until the name is copied, and with its own name from the next allocation on. Should another build of such
 * a libssh2 do it in another order, the server refuses a malformed key, and that is all.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/storage/sftp/internal.h"

#define RSA_NAME       "rsa-sha2-512"
#define RSA_NAME_BYTES (sizeof(RSA_NAME) - 1)
#define BLOB_MAX       ((size_t)16 * 1024)
#define SIGNATURE_MAX  ((size_t)8 * 1024)

typedef struct lj_sftp_offer {
    lj_sftp_sign_fn sign;
    void *ctx;
    lj_error why; /* of `sign` */
    /* the two beginnings of an RSA key, see above */
    uint8_t *blob; /* NULL: not to be changed (any more) */
    const uint8_t *real;
    bool name_copied;
} lj_sftp_offer;

/* ---- libssh2's memory ---- */

static void *ssh_alloc(size_t count, void **abstract)
{
    lj_sftp_offer *offer = ((lj_sftp_session *)*abstract)->offer;
    if (offer != NULL && offer->blob != NULL) {
        if (offer->name_copied) {
            memcpy(offer->blob, offer->real, 4 + RSA_NAME_BYTES);
            offer->blob = NULL;
        }
        offer->name_copied = count == RSA_NAME_BYTES;
    }
    return malloc(count);
}

static void *ssh_realloc(void *ptr, size_t count, void **abstract)
{
    (void)abstract;
    return realloc(ptr, count);
}

static void ssh_free(void *ptr, void **abstract)
{
    (void)abstract;
    free(ptr);
}

LIBSSH2_SESSION *lj_sftp_ssh_new(lj_sftp_session *s)
{
    return libssh2_session_init_ex(ssh_alloc, ssh_free, ssh_realloc, s);
}

/* ---- signing ---- */

void lj_sftp_tried_add(lj_sftp_tried *tried, const char *fmt, ...)
{
    size_t used = strlen(tried->text);
    if (used > 0 && used + 3 < sizeof(tried->text)) {
        memcpy(tried->text + used, "; ", 3);
        used += 2;
    }
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(tried->text + used, sizeof(tried->text) - used, fmt, ap);
    va_end(ap);
}

/* The algorithm in what is to be signed (RFC 4252, section 7). */
static bool algorithm_of(const uint8_t *data, size_t len, char *out, size_t size)
{
    lj_fx_reader reader = lj_fx_reader_new(data, len);
    size_t n = 0;
    (void)lj_fx_read_string(&reader, &n); /* session id */
    (void)lj_fx_read_u8(&reader);         /* SSH_MSG_USERAUTH_REQUEST */
    (void)lj_fx_read_string(&reader, &n); /* user */
    (void)lj_fx_read_string(&reader, &n); /* "ssh-connection" */
    (void)lj_fx_read_string(&reader, &n); /* "publickey" */
    (void)lj_fx_read_u8(&reader);         /* a signature follows */
    const uint8_t *name = lj_fx_read_string(&reader, &n);
    if (reader.bad || n == 0 || n >= size)
        return false;
    memcpy(out, name, n);
    out[n] = 0;
    return true;
}

static int sign_for_libssh2(LIBSSH2_SESSION *ssh, unsigned char **sig, size_t *sig_len,
                            const unsigned char *data, size_t data_len, void **abstract)
{
    (void)ssh;
    lj_sftp_offer *offer = *abstract;
    char algorithm[LJ_HOSTKEY_TYPE_MAX];
    LJ_CLEANUP(lj_buf_free) lj_buf signature = LJ_BUF_INIT(SIGNATURE_MAX);
    if (!algorithm_of(data, data_len, algorithm, sizeof(algorithm))) {
        lj_error_set(&offer->why, LJ_INTERNAL, "libssh2 wants something strange signed");
        return -1;
    }
    if (offer->sign(offer->ctx, algorithm, data, data_len, &signature, &offer->why) != LJ_OK)
        return -1;
    *sig = signature.data; /* freed by ssh_free */
    *sig_len = signature.len;
    signature = (lj_buf)LJ_BUF_INIT(0);
    return 0;
}

/* ---- offering ---- */

static lj_code offer_once(lj_sftp_session *s, lj_sftp_offer *offer, const uint8_t *blob, size_t len,
                          int *ret_rc, lj_error *err)
{
    void *abstract = offer;
    for (;;) {
        *ret_rc = libssh2_userauth_publickey(s->ssh, s->config->user, blob, len, sign_for_libssh2,
                                             &abstract);
        if (*ret_rc != LIBSSH2_ERROR_EAGAIN)
            return LJ_OK;
        LJ_TRY(lj_sftp_wait(s, err));
    }
}

lj_code lj_sftp_offer_key(lj_sftp_session *s, const lj_hostkey *key, lj_sftp_sign_fn sign,
                          void *ctx, const char *what, lj_sftp_tried *tried, bool *ret_accepted,
                          lj_error *err)
{
    char type[LJ_HOSTKEY_TYPE_MAX];
    lj_hostkey_type(key, type);
    bool swap = strcmp(type, "ssh-rsa") == 0 && libssh2_version(0x010b00) == NULL &&
                key->len > 4 + RSA_NAME_BYTES;
    LJ_CLEANUP(lj_buf_free) lj_buf blob = LJ_BUF_INIT(BLOB_MAX);
    LJ_TRY(lj_buf_append(&blob, key->blob, key->len, err));
    lj_sftp_offer offer = {.sign = sign, .ctx = ctx, .why = LJ_ERROR_INIT};
    if (swap) {
        lj_put_be32(blob.data, RSA_NAME_BYTES);
        memcpy(blob.data + 4, RSA_NAME, RSA_NAME_BYTES);
        offer.blob = blob.data;
        offer.real = key->blob;
    }
    int rc = 0;
    s->offer = &offer;
    lj_code code = offer_once(s, &offer, blob.data, blob.len, &rc, err);
    s->offer = NULL;
    LJ_TRY(code);
    *ret_accepted = rc == 0;
    if (rc == LIBSSH2_ERROR_AUTHENTICATION_FAILED)
        lj_sftp_tried_add(tried, "%s (%s): refused", what, type);
    else if (rc == LIBSSH2_ERROR_PUBLICKEY_UNVERIFIED && offer.why.code != LJ_OK)
        lj_sftp_tried_add(tried, "%s (%s): %s", what, type, offer.why.message);
    else if (rc == LIBSSH2_ERROR_PUBLICKEY_UNVERIFIED)
        lj_sftp_tried_add(tried, "%s (%s): signature refused", what, type);
    else if (rc != 0)
        return lj_sftp_ssh_error(s, rc, what, err);
    return LJ_OK;
}
