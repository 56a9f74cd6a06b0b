/*
 * rsa.c - what a private key file is, and RSA keys: loading, their public half, signatures with SHA-2 (RFC 8332).
 *
 * Ed25519 and ECDSA keys are libssh2's to load; offer.c says why RSA keys are not.
 *
 * Layer: storage. Thread-safety: pure. No passphrase is ever asked for on a terminal.
 */
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/storage/sftp/internal.h"

#define OPENSSH_BEGIN "-----BEGIN OPENSSH PRIVATE KEY-----"
#define OPENSSH_END   "-----END OPENSSH PRIVATE KEY-----"
#define OPENSSH_MAGIC "openssh-key-v1"
#define MPI_MAX       2048u /* bytes: RSA of 16384 bits */

/* ---- OpenSSH's own format (PROTOCOL.key) ---- */

/* The bytes between the two lines. */
static lj_code openssh_decode(const char *text, lj_secret *ret_bytes, lj_error *err)
{
    const char *begin = strstr(text, OPENSSH_BEGIN);
    if (begin != NULL)
        begin += strlen(OPENSSH_BEGIN);
    const char *end = begin != NULL ? strstr(begin, OPENSSH_END) : NULL;
    if (end == NULL)
        return lj_error_set(err, LJ_INVALID, "the key file is cut off");
    LJ_CLEANUP(lj_wipe_freep) char *base64 = calloc(1, (size_t)(end - begin) + 1);
    if (base64 == NULL)
        return lj_error_nomem(err);
    size_t n = 0;
    for (; begin < end; begin++)
        if (strchr(" \t\r\n", *begin) == NULL)
            base64[n++] = *begin;
    lj_code code = lj_base64_decode(base64, ret_bytes, err);
    return code == LJ_INVALID ? lj_error_set(err, code, "the key file is damaged") : code;
}

typedef struct {
    bool encrypted;
    lj_hostkey pub;
    lj_fx_reader secret; /* the private part */
} openssh_key;

static bool openssh_parse(const lj_secret *bytes, openssh_key *ret_key)
{
    if (bytes->len < sizeof(OPENSSH_MAGIC) ||
        memcmp(bytes->bytes, OPENSSH_MAGIC, sizeof(OPENSSH_MAGIC)) != 0)
        return false;
    lj_fx_reader reader =
        lj_fx_reader_new(bytes->bytes + sizeof(OPENSSH_MAGIC), bytes->len - sizeof(OPENSSH_MAGIC));
    size_t cipher_len = 0;
    const uint8_t *cipher = lj_fx_read_string(&reader, &cipher_len);
    size_t n = 0;
    (void)lj_fx_read_string(&reader, &n); /* kdf */
    (void)lj_fx_read_string(&reader, &n); /* its options */
    uint32_t keys = lj_fx_read_u32(&reader);
    ret_key->pub.blob = lj_fx_read_string(&reader, &ret_key->pub.len);
    const uint8_t *secret = lj_fx_read_string(&reader, &n);
    ret_key->secret = lj_fx_reader_new(secret, n);
    ret_key->encrypted = cipher_len != 4 || memcmp(cipher, "none", 4) != 0;
    return !reader.bad && keys == 1;
}

lj_code lj_sftp_key_inspect(const char *text, lj_sftp_key_info *ret_info, lj_error *err)
{
    lj_sftp_key_info info = {.openssh = strstr(text, OPENSSH_BEGIN) != NULL};
    if (!info.openssh) {
        if (strstr(text, "-----BEGIN ") == NULL || strstr(text, "PRIVATE KEY-----") == NULL)
            return lj_error_set(err, LJ_INVALID, "this is no private key file");
        info.encrypted = strstr(text, "ENCRYPTED") != NULL;
        /* PKCS#8 does not say in its first line what is in it: OpenSSL finds out */
        info.rsa = strstr(text, "-----BEGIN RSA PRIVATE KEY-----") != NULL ||
                   strstr(text, "-----BEGIN PRIVATE KEY-----") != NULL ||
                   strstr(text, "-----BEGIN ENCRYPTED PRIVATE KEY-----") != NULL;
        *ret_info = info;
        return LJ_OK;
    }
    LJ_CLEANUP(lj_secret_free) lj_secret bytes = LJ_SECRET_NONE;
    LJ_TRY(openssh_decode(text, &bytes, err));
    openssh_key key;
    if (!openssh_parse(&bytes, &key))
        return lj_error_set(err, LJ_INVALID, "the key file is damaged");
    char type[LJ_HOSTKEY_TYPE_MAX];
    lj_hostkey_type(&key.pub, type);
    info.encrypted = key.encrypted;
    info.rsa = strcmp(type, "ssh-rsa") == 0;
    *ret_info = info;
    return LJ_OK;
}

/* ---- loading ---- */

static const char *const rsa_names[] = {OSSL_PKEY_PARAM_RSA_N, OSSL_PKEY_PARAM_RSA_E,
                                        OSSL_PKEY_PARAM_RSA_D};

/* n, e and d are enough to sign. */
static EVP_PKEY *rsa_build(BIGNUM *const numbers[3])
{
    EVP_PKEY *key = NULL;
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    bool good = build != NULL;
    for (size_t i = 0; i < LJ_ARRAY_LEN(rsa_names) && good; i++)
        good = OSSL_PARAM_BLD_push_BN(build, rsa_names[i], numbers[i]) == 1;
    OSSL_PARAM *params = good ? OSSL_PARAM_BLD_to_param(build) : NULL;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
    if (params != NULL && ctx != NULL && EVP_PKEY_fromdata_init(ctx) == 1)
        (void)EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_KEYPAIR, params);
    EVP_PKEY_CTX_free(ctx);
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(build);
    return key;
}

static lj_code rsa_from_openssh(const char *text, EVP_PKEY **ret_key, lj_error *err)
{
    LJ_CLEANUP(lj_secret_free) lj_secret bytes = LJ_SECRET_NONE;
    LJ_TRY(openssh_decode(text, &bytes, err));
    openssh_key key;
    if (!openssh_parse(&bytes, &key))
        return lj_error_set(err, LJ_INVALID, "the key file is damaged");
    if (key.encrypted)
        return lj_error_set(
            err, LJ_UNSUPPORTED,
            "libssh2 before 1.11 and an encrypted RSA key in OpenSSH's format do "
            "not go together: make it PEM with \"ssh-keygen -p -m PEM -f FILE\", or "
            "use an ed25519 key or an agent");
    (void)lj_fx_read_u64(&key.secret); /* two equal numbers, to tell a wrong passphrase */
    size_t len = 0;
    (void)lj_fx_read_string(&key.secret, &len); /* "ssh-rsa" */
    BIGNUM *numbers[3] = {NULL, NULL, NULL};
    for (size_t i = 0; i < 3; i++) {
        const uint8_t *number = lj_fx_read_string(&key.secret, &len);
        if (len > 0 && len <= MPI_MAX)
            numbers[i] = BN_bin2bn(number, (int)len, NULL);
    }
    if (numbers[0] != NULL && numbers[1] != NULL && numbers[2] != NULL)
        *ret_key = rsa_build(numbers);
    for (size_t i = 0; i < 3; i++)
        BN_clear_free(numbers[i]);
    return *ret_key != NULL ? LJ_OK
                            : lj_error_set(err, LJ_INVALID, "the RSA key in the file is damaged");
}

static int give_passphrase(char *out, int size, int writing, void *ctx)
{
    (void)writing;
    const lj_secret *passphrase = ctx;
    if (passphrase->len > (size_t)size)
        return -1;
    if (passphrase->len > 0)
        memcpy(out, passphrase->bytes, passphrase->len);
    return (int)passphrase->len;
}

lj_code lj_sftp_rsa_load(const char *text, const lj_secret *passphrase, EVP_PKEY **ret_key,
                         lj_error *err)
{
    *ret_key = NULL;
    if (strstr(text, OPENSSH_BEGIN) != NULL)
        return rsa_from_openssh(text, ret_key, err);
    BIO *bio = BIO_new_mem_buf(text, -1);
    if (bio == NULL)
        return lj_error_nomem(err);
    *ret_key = PEM_read_bio_PrivateKey(bio, NULL, give_passphrase, (void *)(uintptr_t)passphrase);
    BIO_free(bio);
    ERR_clear_error(); /* the thread's list of OpenSSL errors is the host program's */
    if (*ret_key == NULL)
        return lj_error_set(err, LJ_DENIED, "it cannot be read: wrong key-passphrase, or damaged");
    return LJ_OK;
}

/* ---- public half, signatures ---- */

static lj_code append_number(lj_fx_writer *w, const EVP_PKEY *key, const char *name, lj_error *err)
{
    BIGNUM *number = NULL;
    if (EVP_PKEY_get_bn_param(key, name, &number) != 1)
        return lj_error_set(err, LJ_INVALID, "it is no RSA key");
    uint8_t bytes[MPI_MAX + 1] = {0};
    int len = BN_num_bytes(number);
    bool fits = len > 0 && len <= (int)MPI_MAX;
    if (fits)
        (void)BN_bn2bin(number, bytes + 1);
    BN_free(number);
    if (!fits)
        return lj_error_set(err, LJ_INVALID, "an RSA key of impossible size");
    /* a first bit that is set would make it negative */
    size_t skip = (bytes[1] & 0x80) != 0 ? 0 : 1;
    lj_fx_string(w, bytes + skip, (size_t)len + 1 - skip);
    return LJ_OK;
}

lj_code lj_sftp_rsa_public(const EVP_PKEY *key, lj_buf *blob, lj_error *err)
{
    if (EVP_PKEY_get_base_id(key) != EVP_PKEY_RSA)
        return lj_error_set(err, LJ_UNSUPPORTED, "it is no RSA key");
    lj_fx_writer w = {.buf = blob, .start = blob->len, .failed = false};
    lj_fx_text(&w, "ssh-rsa");
    LJ_TRY(append_number(&w, key, OSSL_PKEY_PARAM_RSA_E, err));
    LJ_TRY(append_number(&w, key, OSSL_PKEY_PARAM_RSA_N, err));
    return w.failed ? lj_error_nomem(err) : LJ_OK;
}

lj_code lj_sftp_rsa_sign(void *key, const char *algorithm, const void *data, size_t len,
                         lj_buf *ret_signature, lj_error *err)
{
    const EVP_MD *hash = strcmp(algorithm, "rsa-sha2-512") == 0   ? EVP_sha512()
                         : strcmp(algorithm, "rsa-sha2-256") == 0 ? EVP_sha256()
                         : strcmp(algorithm, "ssh-rsa") == 0      ? EVP_sha1()
                                                                  : NULL;
    if (hash == NULL)
        return lj_error_set(err, LJ_UNSUPPORTED, "cannot sign with %s", algorithm);
    size_t n = (size_t)EVP_PKEY_get_size(key);
    LJ_TRY(lj_buf_reserve(ret_signature, n, err));
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool good = ctx != NULL && EVP_DigestSignInit(ctx, NULL, hash, NULL, key) == 1 &&
                EVP_DigestSign(ctx, ret_signature->data, &n, data, len) == 1;
    EVP_MD_CTX_free(ctx);
    ERR_clear_error();
    if (!good)
        return lj_error_set(err, LJ_INTERNAL, "OpenSSL cannot sign with the RSA key");
    ret_signature->len = n;
    return LJ_OK;
}
