/*
 * url.c - what a replica_url may look like, and the URL of one database's replica.
 *
 * Only what holds for every kind of replica is checked here: a scheme, no secrets, no nonsense in the authority. The
 * rest is the storage driver's. Nothing is percent-decoded, as in Litestream v0.3.13.
 *
 * Layer: config. Thread-safety: pure.
 */
#include "vfs/config/options.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "vfs/base/str.h"

#define URL_MAX         2048u
#define KEY_MAX         256u
#define NO_SECRETS_HINT "secrets never go into a URL: give them in the environment or in a file"

/* Length of the scheme of "scheme://...", 0 when the text has none. */
static size_t scheme_len(const char *url)
{
    size_t n = 0;
    while (isalnum((unsigned char)url[n]) ||
           (n > 0 && url[n] != 0 && strchr("+-.", url[n]) != NULL))
        n++;
    if (n == 0 || !isalpha((unsigned char)url[0]) || strncmp(url + n, "://", 3) != 0)
        return 0;
    return n;
}

/* Checks "[user@]host[:port]" of `len` bytes. */
static const char *check_authority(const char *authority, size_t len, const char **ret_hint)
{
    const char *end = authority + len;
    const char *host = authority;
    for (const char *p = authority; p < end; p++) {
        if (*p == '@')
            host = p + 1;
    }
    if (host != authority && memchr(authority, ':', (size_t)(host - authority)) != NULL) {
        *ret_hint = NO_SECRETS_HINT;
        return "has a password in it";
    }
    const char *port = memchr(host, ':', (size_t)(end - host));
    if (host < end && host[0] == '[') {
        const char *close = memchr(host, ']', (size_t)(end - host));
        if (close == NULL)
            return "has a '[' without ']' in its host";
        port = close + 1 < end ? close + 1 : NULL;
        if (port != NULL && *port != ':')
            return "has text behind the ']' of its host";
    }
    if (port == NULL)
        return NULL;
    for (const char *p = port + 1; p < end; p++) {
        if (!isdigit((unsigned char)*p)) {
            /* "s3://KEY:SECRET/WITH/SLASH@bucket" ends up here */
            *ret_hint = NO_SECRETS_HINT;
            return "has a ':' in its host that no port follows";
        }
    }
    return NULL;
}

static int hex_digit(char c)
{
    return isdigit((unsigned char)c) ? c - '0' : (tolower((unsigned char)c) - 'a') + 10;
}

/* As it is written, and with "%67" for "g": storage drivers decode names. */
static bool names_secret(const char *key, size_t len)
{
    char decoded[KEY_MAX];
    size_t n = 0;
    for (size_t i = 0; i < len && n < sizeof(decoded); i++) {
        bool coded = key[i] == '%' && i + 2 < len && isxdigit((unsigned char)key[i + 1]) &&
                     isxdigit((unsigned char)key[i + 2]);
        decoded[n++] = coded ? (char)(hex_digit(key[i + 1]) * 16 + hex_digit(key[i + 2])) : key[i];
        i += coded ? 2 : 0;
    }
    return lj_option_is_secret(key, len) || lj_option_is_secret(decoded, n);
}

/* Checks "key=value&key=value". */
static const char *check_query(const char *query, const char **ret_hint)
{
    while (*query != 0) {
        size_t len = strcspn(query, "&");
        if (names_secret(query, LJ_MIN(len, strcspn(query, "=")))) {
            *ret_hint = NO_SECRETS_HINT;
            return "has a query key that looks like a secret";
        }
        query += len;
        query += *query == '&';
    }
    return NULL;
}

/* "~/x", "~user/x", "./x", "../x", "/~/x" behind file://: would be folders of these names in the root folder. */
static bool is_relative(const char *rest, size_t first)
{
    return rest[0] == '~' || lj_str_starts(rest, "/~/") || (first == 1 && rest[0] == '.') ||
           (first == 2 && rest[0] == '.' && rest[1] == '.');
}

const char *lj_option_check_url(const char *value, const char **ret_hint)
{
    const char *reason = lj_option_check_text(value, ret_hint);
    if (reason != NULL)
        return reason;
    if (strlen(value) > URL_MAX)
        return "is longer than 2048 bytes";
    size_t scheme = scheme_len(value);
    if (scheme == 0) {
        *ret_hint = value[0] == '/' ? "write a folder as file:///path"
                                    : "write a folder as file:///path, with its whole path";
        return "has no scheme";
    }
    const char *rest = value + scheme + 3;
    size_t authority = strcspn(rest, "/?#");
    bool is_file = scheme == 4 && strncasecmp(value, "file", 4) == 0;
    if (!is_file) {
        if (authority == 0)
            return "has nothing behind its scheme";
        reason = check_authority(rest, authority, ret_hint);
        if (reason != NULL)
            return reason;
    } else if (rest[0] == 0) {
        *ret_hint = "write a folder as file:///path";
        return "has no path";
    } else if (is_relative(rest, authority)) {
        *ret_hint =
            "write a folder with its whole path, as file:///path: nothing expands ~ or . here";
        return "has a path that is not whole";
    }
    if (strchr(value, '#') != NULL)
        return "has a '#'";
    const char *query = strchr(value, '?');
    if (query == NULL)
        return NULL;
    if (is_file) {
        *ret_hint = "in a SQLite URI, write a '&' between parameters";
        return "has a '?', which a file URL has no use for";
    }
    return check_query(query + 1, ret_hint);
}

const char *lj_option_url_secret(const char *value, const char **ret_hint)
{
    const char *hint = NULL;
    const char *reason = lj_option_check_url(value, &hint);
    if (reason == NULL || hint == NULL || strcmp(hint, NO_SECRETS_HINT) != 0)
        return NULL;
    *ret_hint = hint;
    return reason;
}

/*
 * "name.db" -> "name", allocated; NULL when out of memory. A file may have a name that would end the path of a URL: these
 * characters are percent-encoded, and so is '%', or else two files could have one name.
 */
static char *name_of(const char *db_path)
{
    static const char digits[] = "0123456789ABCDEF";
    const char *base = lj_str_basename(db_path);
    size_t len = strlen(base);
    if (lj_str_ends(base, ".db"))
        len -= 3;
    char *name = malloc(3 * len + 1);
    if (name == NULL)
        return NULL;
    char *out = name;
    for (size_t i = 0; i < len; i++) {
        const unsigned char c = (unsigned char)base[i];
        if (strchr("?#%", c) == NULL) {
            *out++ = (char)c;
            continue;
        }
        *out++ = '%';
        *out++ = digits[c >> 4];
        *out++ = digits[c & 15];
    }
    *out = 0;
    return name;
}

lj_code lj_config_replica_url(const lj_config *config, const char *db_path, char **ret_url,
                              lj_error *err)
{
    if (config->replica_url == NULL) {
        lj_error_set(err, LJ_INVALID, "there is no replica_url");
        return lj_error_hint(err, "set it, e.g. replica_url=file:///path");
    }
    LJ_CLEANUP(lj_freep)
    char *name = config->replica_name != NULL ? lj_str_dup(config->replica_name) : name_of(db_path);
    if (name == NULL)
        return lj_error_nomem(err);
    const char *hint = NULL;
    const char *reason = lj_option_check_name(name, &hint);
    if (reason != NULL) {
        char shown[LJ_OPTION_SHOWN_MAX];
        lj_option_show_value("replica_name", name, shown);
        lj_error_set(err, LJ_INVALID, "the replica name \"%s\" of database %.200s %s", shown,
                     db_path, reason);
        return lj_error_hint(err, "give it a name with the URI parameter replica_name=NAME");
    }
    const char *url = config->replica_url;
    size_t path_len = strcspn(url, "?");
    const char *query = url + path_len;
    size_t root =
        scheme_len(url) + 3; /* "file:///" keeps its last slash as the one before the name */
    while (path_len > root && url[path_len - 1] == '/')
        path_len--;
    char *made = lj_str_printf("%.*s/%s%s", (int)path_len, url, name, query);
    if (made == NULL)
        return lj_error_nomem(err);
    *ret_url = made;
    return LJ_OK;
}
