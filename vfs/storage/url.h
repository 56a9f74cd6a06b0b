/*
 * url.h - the parts of a replica URL, and percent-encoding. For the drivers of stores behind a network.
 *
 *     scheme://[user[:password]@]host[:port][/path][?query]
 *
 * Layer: storage. Thread-safety: pure. Source: RFC 3986; replica-format section 1.2.
 */
#ifndef LJ_URL_H
#define LJ_URL_H

#include "vfs/base/buf.h"
#include "vfs/base/secret.h"

typedef struct {
    char *scheme;       /* lower case */
    char *user;         /* decoded, NULL when absent */
    lj_secret password; /* decoded */
    char *host;         /* without the brackets of an IPv6 address; "" when absent */
    uint16_t port;      /* 0 when absent */
    char *path;  /* decoded and cleaned as Go's path.Clean, with its leading '/'; "" when absent */
    char *query; /* as it is, without '?'; NULL when absent */
} lj_url;

/*
 * Errors: LJ_INVALID; the message does not show the URL. A NUL or control character, also an encoded one, is refused.
 * On success freed with lj_url_free.
 */
LJ_WARN_UNUSED lj_code lj_url_parse(const char *text, lj_url *ret_url, lj_error *err);
void lj_url_free(lj_url *url);

/*
 * Removes empty and "." parts and resolves ".." by the text alone, as Go's path.Clean does, but never above the start. In
 * place. The result has no '/' at its end, and one at its start only when `path` had; it may be "".
 */
void lj_url_clean_path(char *path);
/* The path without its leading '/': the prefix of keys in an object store. "" for none. */
const char *lj_url_prefix(const lj_url *url);
/* "PREFIX/key", or "key" without a prefix, into a new string; NULL when out of memory. */
char *lj_url_join(const char *prefix, const char *key);

/*
 * Appends `text` percent-encoded: letters, digits and "-._~" stay, all else is %XX in upper case; '/' stays when
 * keep_slash. That is what SigV4 wants of a path and of a query value (RFC 3986 unreserved).
 */
LJ_WARN_UNUSED lj_code lj_url_encode(lj_buf *out, const char *text, bool keep_slash, lj_error *err);
/* Decodes %XX in place; with plus_is_space as in a form. false: malformed, or a NUL in it. */
bool lj_url_decode(char *text, bool plus_is_space);

#endif
