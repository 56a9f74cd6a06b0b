/* certificate.h - a CA and a certificate for 127.0.0.1 by it, made on the spot, for a TLS server in a test. */
#ifndef LJ_TEST_CERTIFICATE_H
#define LJ_TEST_CERTIFICATE_H

#include <openssl/ssl.h>

typedef struct certificate certificate;

/* Fails the test when it cannot. */
certificate *certificate_new(void);
/* A server's context with the certificate and its key. */
SSL_CTX *certificate_context(const certificate *c);
/* The CA's certificate in PEM; the file goes with the certificate. */
const char *certificate_ca_file(const certificate *c);
void certificate_free(certificate *c);

#endif
