/* crypto_test.c - published vectors (FIPS 180-4, RFC 4231, RFC 1321, RFC 4648), and RS256 checked by OpenSSL itself. */
#include "test/unit/unit.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include "vfs/storage/auth/crypto.h"

static void digests(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *sha256;
        const char *md5;
    } vectors[] = {{"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                    "d41d8cd98f00b204e9800998ecf8427e"},
                   {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
                    "900150983cd24fb0d6963f7d28e17f72"},
                   {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                    "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
                    "8215ef0796a20bcaaae116d3876c664a"}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(vectors); i++) {
        lj_error err = LJ_ERROR_INIT;
        char hex[LJ_SHA256_HEX];
        uint8_t md5[LJ_MD5_BYTES];
        char md5_hex[2 * LJ_MD5_BYTES + 1];
        assert_ok(lj_sha256_hex(vectors[i].text, strlen(vectors[i].text), hex, &err), &err);
        assert_string_equal(hex, vectors[i].sha256);
        assert_ok(lj_md5(vectors[i].text, strlen(vectors[i].text), md5, &err), &err);
        lj_hex(md5, sizeof(md5), md5_hex);
        assert_string_equal(md5_hex, vectors[i].md5);
    }
    lj_error err = LJ_ERROR_INIT;
    char hex[LJ_SHA256_HEX];
    assert_ok(lj_sha256_hex(NULL, 0, hex, &err), &err);
    assert_string_equal(hex, vectors[0].sha256);
}

static void hmacs(void **state)
{
    (void)state;
    char key[131];
    memset(key, 0xaa, sizeof(key));
    static const char what[] = "what do ya want for nothing?";
    static const char larger[] = "Test Using Larger Than Block-Size Key - Hash Key First";
    const struct {
        const char *key;
        size_t key_len;
        const char *text;
        const char *hex;
    } vectors[] = {
        {"Jefe", 4, what, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
        {key, sizeof(key), larger,
         "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"},
        {NULL, 0, "", "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad"}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(vectors); i++) {
        lj_error err = LJ_ERROR_INIT;
        uint8_t out[LJ_SHA256_BYTES];
        char hex[LJ_SHA256_HEX];
        assert_ok(lj_hmac_sha256(vectors[i].key, vectors[i].key_len, vectors[i].text,
                                 strlen(vectors[i].text), out, &err),
                  &err);
        lj_hex(out, sizeof(out), hex);
        assert_string_equal(hex, vectors[i].hex);
    }
}

static void base64(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *coded;
    } vectors[] = {{"", ""},
                   {"f", "Zg=="},
                   {"fo", "Zm8="},
                   {"foo", "Zm9v"},
                   {"foob", "Zm9vYg=="},
                   {"fooba", "Zm9vYmE="},
                   {"foobar", "Zm9vYmFy"},
                   {"\xfb\xff\xfe", "+//+"}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(vectors); i++) {
        lj_error err = LJ_ERROR_INIT;
        lj_secret back = LJ_SECRET_NONE;
        char *coded = lj_base64(vectors[i].text, strlen(vectors[i].text));
        assert_string_equal(coded, vectors[i].coded);
        assert_ok(lj_base64_decode(coded, &back, &err), &err);
        assert_string_equal(lj_secret_text(&back), vectors[i].text);
        assert_int_equal(back.len, strlen(vectors[i].text));
        free(coded);
        lj_secret_free(&back);
    }
    char *url = lj_base64url("\xfb\xff\xfe\x01", 4);
    assert_string_equal(url, "-__-AQ");
    free(url);
    lj_error err = LJ_ERROR_INIT;
    lj_secret bytes = LJ_SECRET_NONE;
    assert_ok(lj_base64_decode("AAECAw==\r\n", &bytes, &err), &err); /* as a file has it */
    assert_int_equal(bytes.len, 4);
    assert_memory_equal(bytes.bytes, "\0\1\2\3", 4);
    static const char *const bad[] = {"A",     "AA",         "AAA",   "AA=A",
                                      "A===",  "====",       "AAAA=", " AAAA",
                                      "AA AA", "AAAA\nAAAA", "AA-_",  "AA\xc3\xa4"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(bad); i++) {
        if (lj_base64_decode(bad[i], &bytes, &err) != LJ_INVALID)
            fail_msg("\"%s\" was taken", bad[i]);
        assert_string_equal(err.message, "not base64");
        assert_int_equal(bytes.len, 4); /* untouched */
    }
    lj_secret_free(&bytes);
}

/* ---- RS256 ---- */

static void pem_of(EVP_PKEY *key, bool traditional, lj_secret *out)
{
    lj_error err = LJ_ERROR_INIT;
    BIO *bio = BIO_new(BIO_s_mem());
    char *data = NULL;
    assert_non_null(bio);
    if (traditional)
        assert_int_equal(PEM_write_bio_PrivateKey_traditional(bio, key, NULL, NULL, 0, NULL, NULL),
                         1);
    else
        assert_int_equal(PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL), 1);
    long len = BIO_get_mem_data(bio, &data);
    assert_ok(lj_secret_set_bytes(out, data, (size_t)len, &err), &err);
    BIO_free(bio);
}

/* base64url to bytes; returns their number. */
static size_t from_base64url(const char *text, uint8_t *out)
{
    char padded[1024];
    size_t len = strlen(text);
    assert_true(len + 4 < sizeof(padded));
    for (size_t i = 0; i < len; i++)
        padded[i] = text[i] == '-' ? '+' : text[i] == '_' ? '/' : text[i];
    size_t padding = (4 - len % 4) % 4;
    memset(padded + len, '=', padding);
    padded[len + padding] = 0;
    int n = EVP_DecodeBlock(out, (unsigned char *)padded, (int)(len + padding));
    assert_true(n > 0);
    return (size_t)n - padding;
}

static void rs256(void **state)
{
    (void)state;
    static const char text[] = "eyJhbGciOiJSUzI1NiJ9.e30";
    EVP_PKEY *key = EVP_RSA_gen(2048);
    assert_non_null(key);
    for (int traditional = 0; traditional < 2; traditional++) {
        lj_error err = LJ_ERROR_INIT;
        lj_secret pem = LJ_SECRET_NONE;
        char *signature = NULL;
        uint8_t bytes[1024];
        pem_of(key, traditional, &pem);
        assert_ok(lj_rs256(&pem, text, strlen(text), &signature, &err), &err);
        assert_null(strpbrk(signature, "+/="));
        size_t n = from_base64url(signature, bytes);
        EVP_MD_CTX *ctx = EVP_MD_CTX_new();
        assert_int_equal(EVP_DigestVerifyInit(ctx, NULL, EVP_sha256(), NULL, key), 1);
        assert_int_equal(EVP_DigestVerify(ctx, bytes, n, (const uint8_t *)text, strlen(text)), 1);
        EVP_MD_CTX_free(ctx);
        free(signature);
        lj_secret_free(&pem);
    }
    EVP_PKEY_free(key);
}

static void keys_that_are_none(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_secret pem = LJ_SECRET_NONE;
    lj_secret encrypted = LJ_SECRET_NONE;
    lj_secret curve = LJ_SECRET_NONE;
    char *signature = NULL;
    EVP_PKEY *ec = EVP_EC_gen("P-256");
    pem_of(ec, false, &curve);
    EVP_PKEY_free(ec);
    EVP_PKEY *rsa = EVP_RSA_gen(1024);
    BIO *bio = BIO_new(BIO_s_mem());
    char *data = NULL;
    assert_int_equal(
        PEM_write_bio_PKCS8PrivateKey(bio, rsa, EVP_aes_128_cbc(), "hidden", 6, NULL, NULL), 1);
    long len = BIO_get_mem_data(bio, &data);
    assert_ok(lj_secret_set_bytes(&encrypted, data, (size_t)len, &err), &err);
    BIO_free(bio);
    EVP_PKEY_free(rsa);
    assert_ok(lj_secret_set(
                  &pem, "-----BEGIN PRIVATE KEY-----\nhidden\n-----END PRIVATE KEY-----\n", &err),
              &err);
    lj_secret none = LJ_SECRET_NONE;
    const lj_secret *bad[] = {&none, &pem, &encrypted, &curve};
    ERR_clear_error();
    ERR_raise(ERR_LIB_USER, 77); /* the host's own, not read yet */
    unsigned long hosts = ERR_peek_last_error();
    for (size_t i = 0; i < LJ_ARRAY_LEN(bad); i++) {
        assert_int_equal(lj_rs256(bad[i], "x", 1, &signature, &err), LJ_INVALID);
        assert_null(signature);
        assert_null(strstr(err.message, "hidden"));
        assert_int_equal(ERR_peek_last_error(), hosts);
    }
    assert_int_equal(ERR_get_error(), hosts);
    assert_int_equal(ERR_get_error(), 0);
    lj_secret_free(&pem);
    lj_secret_free(&encrypted);
    lj_secret_free(&curve);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digests),
        cmocka_unit_test(hmacs),
        cmocka_unit_test(base64),
        cmocka_unit_test(rs256),
        cmocka_unit_test(keys_that_are_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
