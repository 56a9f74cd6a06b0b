/* certificate.c - see certificate.h. */
#include "test/unit/storage/http/certificate.h"

#include "test/unit/unit.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <unistd.h>

#define DAY_S (24 * 3600L)

struct certificate {
    SSL_CTX *context;
    char ca_file[64];
};

static void add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    assert_non_null(extension);
    assert_int_equal(X509_add_ext(cert, extension, -1), 1);
    X509_EXTENSION_free(extension);
}

/* By `issuer` (NULL: by itself) with its key. */
static X509 *make_certificate(const char *name, long serial, EVP_PKEY *key, X509 *issuer,
                              EVP_PKEY *issuer_key)
{
    X509 *cert = X509_new();
    assert_non_null(cert);
    X509_set_version(cert, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), serial);
    X509_gmtime_adj(X509_getm_notBefore(cert), -DAY_S);
    X509_gmtime_adj(X509_getm_notAfter(cert), DAY_S);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC,
                               (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(cert, X509_get_subject_name(issuer != NULL ? issuer : cert));
    X509_set_pubkey(cert, key);
    if (issuer == NULL)
        add_extension(cert, cert, NID_basic_constraints, "critical,CA:TRUE");
    else
        add_extension(cert, issuer, NID_subject_alt_name, "IP:127.0.0.1");
    assert_true(X509_sign(cert, issuer_key, EVP_sha256()) > 0);
    return cert;
}

certificate *certificate_new(void)
{
    certificate *c = calloc(1, sizeof(*c));
    assert_non_null(c);
    EVP_PKEY *ca_key = EVP_EC_gen("P-256");
    EVP_PKEY *key = EVP_EC_gen("P-256");
    assert_non_null(ca_key);
    assert_non_null(key);
    X509 *ca = make_certificate("test CA", 1, ca_key, NULL, ca_key);
    X509 *cert = make_certificate("127.0.0.1", 2, key, ca, ca_key);
    (void)snprintf(c->ca_file, sizeof(c->ca_file), "/tmp/litejoin-ca.XXXXXX");
    int fd = mkstemp(c->ca_file);
    assert_true(fd >= 0);
    FILE *file = fdopen(fd, "w");
    assert_non_null(file);
    assert_int_equal(PEM_write_X509(file, ca), 1);
    fclose(file);
    c->context = SSL_CTX_new(TLS_server_method());
    assert_non_null(c->context);
    assert_int_equal(SSL_CTX_use_certificate(c->context, cert), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(c->context, key), 1);
    X509_free(ca);
    X509_free(cert);
    EVP_PKEY_free(ca_key);
    EVP_PKEY_free(key);
    return c;
}

SSL_CTX *certificate_context(const certificate *c)
{
    return c->context;
}

const char *certificate_ca_file(const certificate *c)
{
    return c->ca_file;
}

void certificate_free(certificate *c)
{
    if (c == NULL)
        return;
    unlink(c->ca_file);
    SSL_CTX_free(c->context);
    free(c);
}
