/* rsa_test.c - private key files of all forms, and signatures that OpenSSL verifies. Keys are made as they are needed. */
#include "test/unit/unit.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

#include "vfs/base/str.h"
#include "vfs/storage/sftp/internal.h"

#define PASSPHRASE "open sesame"
#define BITS       2048

/* The PEM form of a key; encrypted when there is a passphrase. Freed with free(). */
static char *pem_of(const EVP_PKEY *key, const char *passphrase, bool pkcs8)
{
    BIO *bio = BIO_new(BIO_s_mem());
    const EVP_CIPHER *cipher = passphrase != NULL ? EVP_aes_128_cbc() : NULL;
    int len = passphrase != NULL ? (int)strlen(passphrase) : 0;
    const uint8_t *bytes = (const uint8_t *)passphrase;
    int rc = pkcs8 ? PEM_write_bio_PKCS8PrivateKey(bio, key, cipher, passphrase, len, NULL, NULL)
                   : PEM_write_bio_PrivateKey_traditional(bio, key, cipher, bytes, len, NULL, NULL);
    assert_int_equal(rc, 1);
    char *data = NULL;
    long n = BIO_get_mem_data(bio, &data);
    char *text = calloc(1, (size_t)n + 1); /* what OpenSSL has there does not end with a NUL */
    assert_non_null(text);
    memcpy(text, data, (size_t)n);
    BIO_free(bio);
    return text;
}

static void add_number(lj_fx_writer *w, const EVP_PKEY *key, const char *name)
{
    BIGNUM *number = NULL;
    uint8_t bytes[BITS / 8 + 1] = {0};
    assert_int_equal(EVP_PKEY_get_bn_param(key, name, &number), 1);
    int n = BN_bn2bin(number, bytes + 1);
    BN_free(number);
    lj_fx_string(w, bytes, (size_t)n + 1);
}

/* The key in OpenSSH's own form (PROTOCOL.key), with `cipher` as its cipher's name. */
static char *openssh_of(const EVP_PKEY *key, const char *cipher)
{
    lj_error err = LJ_ERROR_INIT;
    LJ_CLEANUP(lj_buf_free) lj_buf pub = LJ_BUF_INIT(10000);
    LJ_CLEANUP(lj_buf_free) lj_buf secret = LJ_BUF_INIT(10000);
    LJ_CLEANUP(lj_buf_free) lj_buf all = LJ_BUF_INIT(20000);
    assert_ok(lj_sftp_rsa_public(key, &pub, &err), &err);
    lj_fx_writer w = {.buf = &secret};
    lj_fx_u64(&w, UINT64_C(0x0102030401020304));
    lj_fx_text(&w, "ssh-rsa");
    add_number(&w, key, OSSL_PKEY_PARAM_RSA_N);
    add_number(&w, key, OSSL_PKEY_PARAM_RSA_E);
    add_number(&w, key, OSSL_PKEY_PARAM_RSA_D);
    assert_ok(lj_buf_append(&all, "openssh-key-v1", 15, &err), &err);
    w = (lj_fx_writer){.buf = &all};
    lj_fx_text(&w, cipher);
    lj_fx_text(&w, strcmp(cipher, "none") == 0 ? "none" : "bcrypt");
    lj_fx_text(&w, "");
    lj_fx_u32(&w, 1);
    lj_fx_string(&w, pub.data, pub.len);
    lj_fx_string(&w, secret.data, secret.len);
    LJ_CLEANUP(lj_freep) char *base64 = lj_base64(all.data, all.len);
    char *text = lj_str_printf("-----BEGIN OPENSSH PRIVATE KEY-----\n%.70s\n%s\n"
                               "-----END OPENSSH PRIVATE KEY-----\n",
                               base64, base64 + 70);
    assert_non_null(text);
    return text;
}

/* The file is an RSA key that signs for `key`. */
static void expect_signs(const char *text, const char *passphrase, EVP_PKEY *key)
{
    lj_error err = LJ_ERROR_INIT;
    LJ_CLEANUP(lj_secret_free) lj_secret secret = LJ_SECRET_NONE;
    EVP_PKEY *loaded = NULL;
    assert_ok(lj_secret_set(&secret, passphrase, &err), &err);
    assert_ok(lj_sftp_rsa_load(text, &secret, &loaded, &err), &err);
    LJ_CLEANUP(lj_buf_free) lj_buf pub = LJ_BUF_INIT(10000);
    LJ_CLEANUP(lj_buf_free) lj_buf wanted = LJ_BUF_INIT(10000);
    assert_ok(lj_sftp_rsa_public(loaded, &pub, &err), &err);
    assert_ok(lj_sftp_rsa_public(key, &wanted, &err), &err);
    assert_int_equal(pub.len, wanted.len);
    assert_memory_equal(pub.data, wanted.data, pub.len);
    const struct {
        const char *algorithm;
        const EVP_MD *hash;
    } rows[] = {
        {"rsa-sha2-512", EVP_sha512()}, {"rsa-sha2-256", EVP_sha256()}, {"ssh-rsa", EVP_sha1()}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        LJ_CLEANUP(lj_buf_free) lj_buf signature = LJ_BUF_INIT(10000);
        assert_ok(lj_sftp_rsa_sign(loaded, rows[i].algorithm, "hello", 5, &signature, &err), &err);
        assert_int_equal(signature.len, BITS / 8);
        EVP_MD_CTX *ctx = EVP_MD_CTX_new();
        assert_int_equal(EVP_DigestVerifyInit(ctx, NULL, rows[i].hash, NULL, key), 1);
        assert_int_equal(
            EVP_DigestVerify(ctx, signature.data, signature.len, (const uint8_t *)"hello", 5), 1);
        EVP_MD_CTX_free(ctx);
    }
    LJ_CLEANUP(lj_buf_free) lj_buf none = LJ_BUF_INIT(10000);
    assert_int_equal(lj_sftp_rsa_sign(loaded, "ssh-ed25519", "x", 1, &none, &err), LJ_UNSUPPORTED);
    EVP_PKEY_free(loaded);
}

static void expect_info(const char *text, bool openssh, bool encrypted, bool rsa)
{
    lj_error err = LJ_ERROR_INIT;
    lj_sftp_key_info info;
    assert_ok(lj_sftp_key_inspect(text, &info, &err), &err);
    assert_int_equal(info.openssh, openssh);
    assert_int_equal(info.encrypted, encrypted);
    assert_int_equal(info.rsa, rsa);
}

static void all_forms_of_an_rsa_key(void **state)
{
    (void)state;
    EVP_PKEY *key = EVP_RSA_gen(BITS);
    assert_non_null(key);
    for (int pkcs8 = 0; pkcs8 < 2; pkcs8++) {
        LJ_CLEANUP(lj_freep) char *plain = pem_of(key, NULL, pkcs8 == 1);
        expect_info(plain, false, false, true);
        expect_signs(plain, NULL, key);
        LJ_CLEANUP(lj_freep) char *encrypted = pem_of(key, PASSPHRASE, pkcs8 == 1);
        expect_info(encrypted, false, true, true);
        expect_signs(encrypted, PASSPHRASE, key);
    }
    LJ_CLEANUP(lj_freep) char *openssh = openssh_of(key, "none");
    expect_info(openssh, true, false, true);
    expect_signs(openssh, NULL, key);
    EVP_PKEY_free(key);
}

static void what_does_not_work_says_why(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    EVP_PKEY *key = EVP_RSA_gen(BITS);
    EVP_PKEY *loaded = NULL;
    LJ_CLEANUP(lj_secret_free) lj_secret wrong = LJ_SECRET_NONE;
    assert_ok(lj_secret_set(&wrong, "wrong", &err), &err);
    LJ_CLEANUP(lj_freep) char *encrypted = pem_of(key, PASSPHRASE, false);
    assert_int_equal(lj_sftp_rsa_load(encrypted, &wrong, &loaded, &err), LJ_DENIED);
    assert_non_null(strstr(err.message, "key-passphrase"));
    LJ_CLEANUP(lj_freep) char *openssh = openssh_of(key, "aes256-ctr");
    expect_info(openssh, true, true, true);
    assert_int_equal(lj_sftp_rsa_load(openssh, &wrong, &loaded, &err), LJ_UNSUPPORTED);
    assert_non_null(strstr(err.message, "ssh-keygen -p -m PEM"));
    assert_null(loaded);
    EVP_PKEY_free(key);

    /* another kind of key in PKCS#8 */
    EVP_PKEY *other = EVP_EC_gen("P-256");
    LJ_CLEANUP(lj_freep) char *ec = pem_of(other, NULL, true);
    LJ_CLEANUP(lj_buf_free) lj_buf pub = LJ_BUF_INIT(1000);
    assert_ok(lj_sftp_rsa_load(ec, &wrong, &loaded, &err), &err);
    assert_int_equal(lj_sftp_rsa_public(loaded, &pub, &err), LJ_UNSUPPORTED);
    EVP_PKEY_free(loaded);
    EVP_PKEY_free(other);
}

static void damaged_files(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    EVP_PKEY *key = EVP_RSA_gen(BITS);
    LJ_CLEANUP(lj_freep) char *openssh = openssh_of(key, "none");
    EVP_PKEY_free(key);
    lj_sftp_key_info info;
    static const char *const none[] = {"", "hello", "ssh-ed25519 AAAA root@x\n",
                                       "-----BEGIN CERTIFICATE-----\n"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(none); i++)
        assert_int_equal(lj_sftp_key_inspect(none[i], &info, &err), LJ_INVALID);
    /* cut off at any place: an error, or no key */
    LJ_CLEANUP(lj_secret_free) lj_secret no_passphrase = LJ_SECRET_NONE;
    const char *end = strstr(openssh, "-----END");
    for (size_t keep = 36; openssh + keep < end; keep += 4) {
        LJ_CLEANUP(lj_freep) char *cut = lj_str_printf("%.*s\n%s", (int)keep, openssh, end);
        EVP_PKEY *loaded = NULL;
        assert_int_not_equal(lj_sftp_rsa_load(cut, &no_passphrase, &loaded, &err), LJ_OK);
        assert_null(loaded);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_forms_of_an_rsa_key),
        cmocka_unit_test(what_does_not_work_says_why),
        cmocka_unit_test(damaged_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
