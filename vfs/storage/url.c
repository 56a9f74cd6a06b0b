/*
 * url.c - see url.h.
 *
 * Layer: storage.
 */
#include "vfs/storage/url.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "vfs/base/str.h"

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)tolower((unsigned char)c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool lj_url_decode(char *text, bool plus_is_space)
{
    char *out = text;
    for (const char *in = text; *in != 0; in++) {
        if (*in == '+' && plus_is_space) {
            *out++ = ' ';
        } else if (*in != '%') {
            *out++ = *in;
        } else {
            int high = hex_value(in[1]);
            int low = high < 0 ? -1 : hex_value(in[2]);
            if (low < 0 || (high == 0 && low == 0))
                return false;
            *out++ = (char)(high * 16 + low);
            in += 2;
        }
    }
    *out = 0;
    return true;
}

lj_code lj_url_encode(lj_buf *out, const char *text, bool keep_slash, lj_error *err)
{
    static const char digits[] = "0123456789ABCDEF";
    LJ_TRY(lj_buf_reserve(out, 3 * strlen(text), err));
    for (; *text != 0; text++) {
        unsigned char c = (unsigned char)*text;
        bool stays = (c < 0x80 && isalnum(c)) || strchr("-._~", c) != NULL;
        if (stays || (c == '/' && keep_slash)) {
            LJ_TRY(lj_buf_append(out, text, 1, err));
        } else {
            char coded[3] = {'%', digits[c >> 4], digits[c & 15]};
            LJ_TRY(lj_buf_append(out, coded, 3, err));
        }
    }
    return LJ_OK;
}

static bool has_control(const char *text)
{
    for (; *text != 0; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            return true;
    return false;
}

void lj_url_clean_path(char *path)
{
    bool absolute =
        path[0] == '/'; /* in front of the first part there is no room for a '/' otherwise */
    char *out = path;
    const char *in = path;
    while (*in != 0) {
        in += strspn(in, "/");
        size_t n = strcspn(in, "/");
        if (n == 2 && in[0] == '.' && in[1] == '.') {
            while (out > path && *--out != '/')
                ;
        } else if (n > 0 && !(n == 1 && in[0] == '.')) {
            if (absolute || out > path)
                *out++ = '/';
            memmove(out, in, n);
            out += n;
        }
        in += n;
    }
    *out = 0;
}

static lj_code invalid(lj_error *err, const char *what)
{
    return lj_error_set(err, LJ_INVALID, "the replica URL %s", what);
}

static lj_code dup_decoded(const char *text, size_t len, char **ret, lj_error *err)
{
    char *copy = lj_str_printf("%.*s", (int)len, text);
    if (copy == NULL)
        return lj_error_nomem(err);
    if (!lj_url_decode(copy, false) || has_control(copy)) {
        lj_wipe_freep(&copy);
        return invalid(err, "is not well encoded");
    }
    *ret = copy;
    return LJ_OK;
}

static lj_code parse_user(const char *text, size_t len, lj_url *url, lj_error *err)
{
    size_t user = 0;
    while (user < len && text[user] != ':')
        user++;
    LJ_TRY(dup_decoded(text, user, &url->user, err));
    if (user == len)
        return LJ_OK;
    LJ_CLEANUP(lj_wipe_freep) char *password = NULL;
    LJ_TRY(dup_decoded(text + user + 1, len - user - 1, &password, err));
    return lj_secret_set(&url->password, password, err);
}

static lj_code parse_port(const char *text, size_t len, lj_url *url, lj_error *err)
{
    uint64_t port = 0;
    char digits[8] = "";
    if (len == 0)
        return LJ_OK;
    if (len < sizeof(digits))
        memcpy(digits, text, len);
    if (!lj_str_u64(digits, &port) || port == 0 || port > UINT16_MAX)
        return invalid(err, "has a port that is no number from 1 to 65535");
    url->port = (uint16_t)port;
    return LJ_OK;
}

/* What stands in a host is put into other URLs as it is: nothing there may end it. */
static bool host_is_clean(const char *host)
{
    return host[strcspn(host, " \"#/<>?@[\\]^`{|}")] == 0;
}

static lj_code parse_host(const char *text, size_t len, lj_url *url, lj_error *err)
{
    size_t host = 0;
    size_t skip = 0;
    if (len > 0 && text[0] == '[') {
        const char *close = memchr(text, ']', len);
        if (close == NULL)
            return invalid(err, "has a '[' without ']' in its host");
        host = (size_t)(close - text) - 1;
        skip = 1;
        if (host + 2 < len && text[host + 2] != ':')
            return invalid(err, "has text behind the ']' of its host");
    } else {
        while (host < len && text[host] != ':')
            host++;
    }
    LJ_TRY(dup_decoded(text + skip, host, &url->host, err));
    if (!host_is_clean(url->host))
        return invalid(err, "has a character in its host that no host can have");
    size_t used = host + 2 * skip;
    return used < len ? parse_port(text + used + 1, len - used - 1, url, err) : LJ_OK;
}

static lj_code parse(const char *text, lj_url *url, lj_error *err)
{
    size_t scheme = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
    if (scheme == 0 || strncmp(text + scheme, "://", 3) != 0)
        return invalid(err, "does not start with a scheme");
    url->scheme = lj_str_printf("%.*s", (int)scheme, text);
    if (url->scheme == NULL)
        return lj_error_nomem(err);
    for (char *c = url->scheme; *c != 0; c++)
        *c = (char)tolower((unsigned char)*c);
    const char *authority = text + scheme + 3;
    size_t len = strcspn(authority, "/?#");
    if (strchr(authority, '#') != NULL)
        return invalid(err, "has a '#'");
    size_t host = len;
    while (host > 0 && authority[host - 1] != '@')
        host--;
    if (host > 0)
        LJ_TRY(parse_user(authority, host - 1, url, err));
    LJ_TRY(parse_host(authority + host, len - host, url, err));
    const char *path = authority + len;
    size_t path_len = strcspn(path, "?");
    LJ_TRY(dup_decoded(path, path_len, &url->path, err));
    lj_url_clean_path(url->path);
    if (path[path_len] == '?') {
        url->query = lj_str_dup(path + path_len + 1);
        if (url->query == NULL)
            return lj_error_nomem(err);
    }
    return LJ_OK;
}

lj_code lj_url_parse(const char *text, lj_url *ret_url, lj_error *err)
{
    lj_url url = {.scheme = NULL};
    lj_code code =
        has_control(text) ? invalid(err, "has a control character") : parse(text, &url, err);
    if (code != LJ_OK) {
        lj_url_free(&url);
        return code;
    }
    *ret_url = url;
    return LJ_OK;
}

void lj_url_free(lj_url *url)
{
    free(url->scheme);
    free(url->user);
    lj_secret_free(&url->password);
    free(url->host);
    free(url->path);
    if (url->query != NULL)
        lj_wipe_freep(&url->query);
    *url = (lj_url){.scheme = NULL};
}

const char *lj_url_prefix(const lj_url *url)
{
    return url->path[0] == '/' ? url->path + 1 : url->path;
}

char *lj_url_join(const char *prefix, const char *key)
{
    return lj_str_printf("%s%s%s", prefix, prefix[0] != 0 ? "/" : "", key);
}
