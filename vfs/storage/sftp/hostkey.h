/*
 * hostkey.h - is this the server's key: the text of a known_hosts file, pins, fingerprints.
 *
 * Layer: storage. Thread-safety: pure. Source: sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT".
 */
#ifndef LJ_SFTP_HOSTKEY_H
#define LJ_SFTP_HOSTKEY_H

#include "vfs/base/error.h"

#define LJ_FINGERPRINT_MAX  64 /* "SHA256:" and 43 characters, with the NUL */
#define LJ_HOSTKEY_TYPE_MAX 64

/* A public key as it comes over the wire. */
typedef struct {
    const uint8_t *blob;
    size_t len;
} lj_hostkey;

/* "ssh-ed25519"; "?" when it has none. */
void lj_hostkey_type(const lj_hostkey *key, char out[LJ_HOSTKEY_TYPE_MAX]);
/* "SHA256:..." as ssh-keygen -l shows it; "?" when that cannot be had. */
void lj_hostkey_fingerprint(const lj_hostkey *key, char out[LJ_FINGERPRINT_MAX]);

/* "SHA256:..." or "TYPE BASE64 [comment]", or LJ_INVALID that says so. */
LJ_WARN_UNUSED lj_code lj_hostkey_pin_check(const char *pin, lj_error *err);
LJ_WARN_UNUSED lj_code lj_hostkey_pin_matches(const char *pin, const lj_hostkey *key,
                                              bool *ret_matches, lj_error *err);

/* Names of a host in known_hosts: "host" for port 22, else "[host]:port"; in lower case. NULL when out of memory. */
char *lj_known_hosts_name(const char *host, uint16_t port);

/* Later ones beat earlier ones. */
typedef enum {
    LJ_KNOWN_NOT,        /* no line for this host */
    LJ_KNOWN_OTHER_TYPE, /* only keys of other types */
    LJ_KNOWN_CHANGED,    /* another key of this type */
    LJ_KNOWN_YES,
    LJ_KNOWN_REVOKED, /* @revoked */
} lj_known_result;

typedef struct {
    lj_known_result result;
    unsigned line; /* that says so; from 1 */
    char type[LJ_HOSTKEY_TYPE_MAX];
    char fingerprint[LJ_FINGERPRINT_MAX]; /* of the key in that line */
} lj_known;

/* Looks through the text of one file. @cert-authority lines count for nothing. */
LJ_WARN_UNUSED lj_code lj_known_hosts_find(const char *text, const char *name,
                                           const lj_hostkey *key, lj_known *ret_known,
                                           lj_error *err);

/* Kinds of keys, in the order we like them. */
enum { LJ_HOSTKEY_ED25519 = 1, LJ_HOSTKEY_ECDSA = 2, LJ_HOSTKEY_RSA = 4 };
/* The kinds of keys that the text has for this host. */
unsigned lj_known_hosts_kinds(const char *text, const char *name);
/* The kind of a key type's name; 0 for others. */
unsigned lj_hostkey_kind(const char *type, size_t len);

#endif
