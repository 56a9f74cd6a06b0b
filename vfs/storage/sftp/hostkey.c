/*
 * hostkey.c - see hostkey.h.
 *
 * Layer: storage.
 */
#include "vfs/storage/sftp/hostkey.h"

#include <ctype.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/str.h"
#include "vfs/storage/auth/crypto.h"

#define SHA1_BYTES 20u

/* ---- keys ---- */

void lj_hostkey_type(const lj_hostkey *key, char out[LJ_HOSTKEY_TYPE_MAX])
{
    uint32_t len = key->len >= 4 ? lj_get_be32(key->blob) : 0;
    if (len == 0 || len >= LJ_HOSTKEY_TYPE_MAX || len > key->len - 4) {
        memcpy(out, "?", 2);
        return;
    }
    for (uint32_t i = 0; i < len; i++)
        out[i] = isgraph(key->blob[4 + i]) ? (char)key->blob[4 + i] : '?';
    out[len] = 0;
}

void lj_hostkey_fingerprint(const lj_hostkey *key, char out[LJ_FINGERPRINT_MAX])
{
    uint8_t hash[LJ_SHA256_BYTES];
    LJ_CLEANUP(lj_freep) char *text = NULL;
    if (lj_sha256(key->blob, key->len, hash, NULL) == LJ_OK)
        text = lj_base64(hash, sizeof(hash));
    if (text == NULL) {
        memcpy(out, "?", 2);
        return;
    }
    text[strcspn(text, "=")] = 0;
    snprintf(out, LJ_FINGERPRINT_MAX, "SHA256:%s", text);
}

unsigned lj_hostkey_kind(const char *type, size_t len)
{
    if (len == 11 && memcmp(type, "ssh-ed25519", 11) == 0)
        return LJ_HOSTKEY_ED25519;
    if (len > 11 && memcmp(type, "ecdsa-sha2-", 11) == 0)
        return LJ_HOSTKEY_ECDSA;
    return len == 7 && memcmp(type, "ssh-rsa", 7) == 0 ? LJ_HOSTKEY_RSA : 0;
}

/* ---- pins ---- */

static size_t word(const char *text)
{
    return strcspn(text, " \t\r\n");
}

static const char *next_word(const char *text)
{
    text += word(text);
    return text + strspn(text, " \t");
}

static bool is_base64(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!isalnum((unsigned char)text[i]) && strchr("+/=", text[i]) == NULL)
            return false;
    return len > 0;
}

lj_code lj_hostkey_pin_check(const char *pin, lj_error *err)
{
    bool good = false;
    if (lj_str_starts(pin, "SHA256:")) {
        size_t len = strcspn(pin + 7, "=");
        good = len == 43 && is_base64(pin + 7, len) && strspn(pin + 7 + len, "=") < 2 &&
               pin[7 + len + strspn(pin + 7 + len, "=")] == 0;
    } else {
        const char *key = next_word(pin);
        good = lj_hostkey_kind(pin, word(pin)) != 0 && is_base64(key, word(key));
    }
    if (good)
        return LJ_OK;
    lj_error_set(err, LJ_INVALID, "host-key is not a host key");
    return lj_error_hint(err,
                         "allowed: \"SHA256:...\" (43 characters, as ssh-keygen -l shows it), "
                         "or \"ssh-ed25519 AAAA...\" as in known_hosts, also for ecdsa and rsa");
}

/* Whether `text` begins with the base64 form of the key, as a whole word. */
static lj_code is_key(const char *text, const lj_hostkey *key, bool *ret_is, lj_error *err)
{
    LJ_CLEANUP(lj_freep) char *encoded = lj_base64(key->blob, key->len);
    if (encoded == NULL)
        return lj_error_nomem(err);
    *ret_is = strlen(encoded) == word(text) && strncmp(text, encoded, word(text)) == 0;
    return LJ_OK;
}

lj_code lj_hostkey_pin_matches(const char *pin, const lj_hostkey *key, bool *ret_matches,
                               lj_error *err)
{
    if (!lj_str_starts(pin, "SHA256:"))
        return is_key(next_word(pin), key, ret_matches, err);
    char seen[LJ_FINGERPRINT_MAX];
    lj_hostkey_fingerprint(key, seen);
    size_t len = strcspn(pin, "=");
    *ret_matches = strlen(seen) == len && strncmp(seen, pin, len) == 0;
    return LJ_OK;
}

/* ---- names of hosts ---- */

char *lj_known_hosts_name(const char *host, uint16_t port)
{
    char *name = port == 22 ? lj_str_dup(host) : lj_str_printf("[%s]:%u", host, port);
    for (char *c = name; c != NULL && *c != 0; c++)
        *c = (char)tolower((unsigned char)*c);
    return name;
}

/* '*' and '?'; without recursion, so that no pattern takes long. */
static bool matches_pattern(const char *pattern, size_t pattern_len, const char *name)
{
    size_t p = 0;
    size_t n = 0;
    size_t star = SIZE_MAX;
    size_t star_n = 0;
    size_t name_len = strlen(name);
    while (n < name_len) {
        if (p < pattern_len && pattern[p] == '*') {
            star = p++;
            star_n = n;
        } else if (p < pattern_len &&
                   (pattern[p] == '?' || tolower((unsigned char)pattern[p]) == name[n])) {
            p++;
            n++;
        } else if (star != SIZE_MAX) {
            p = star + 1;
            n = ++star_n;
        } else {
            return false;
        }
    }
    while (p < pattern_len && pattern[p] == '*')
        p++;
    return p == pattern_len;
}

/* "|1|SALT|HASH": the HMAC-SHA1 of the name with that salt. */
static bool matches_hash(const char *field, size_t len, const char *name)
{
    LJ_CLEANUP(lj_freep) char *copy = strndup(field, len);
    char *hash = copy != NULL ? strchr(copy + 3, '|') : NULL;
    if (hash == NULL)
        return false;
    *hash++ = 0;
    LJ_CLEANUP(lj_secret_free) lj_secret salt = LJ_SECRET_NONE;
    LJ_CLEANUP(lj_secret_free) lj_secret wanted = LJ_SECRET_NONE;
    if (lj_base64_decode(copy + 3, &salt, NULL) != LJ_OK ||
        lj_base64_decode(hash, &wanted, NULL) != LJ_OK || wanted.len != SHA1_BYTES)
        return false;
    uint8_t mac[EVP_MAX_MD_SIZE];
    unsigned mac_len = 0;
    return HMAC(EVP_sha1(), salt.bytes, (int)salt.len, (const uint8_t *)name, strlen(name), mac,
                &mac_len) != NULL &&
           mac_len == SHA1_BYTES && memcmp(mac, wanted.bytes, SHA1_BYTES) == 0;
}

/* Whether the first field of a line is for this host. */
static bool matches_hosts(const char *field, size_t len, const char *name)
{
    if (len > 3 && memcmp(field, "|1|", 3) == 0)
        return matches_hash(field, len, name);
    bool found = false;
    for (const char *end = field + len; field < end;) {
        const char *comma = memchr(field, ',', (size_t)(end - field));
        size_t n = (size_t)((comma != NULL ? comma : end) - field);
        if (n > 0 && field[0] == '!') {
            if (matches_pattern(field + 1, n - 1, name))
                return false;
        } else if (matches_pattern(field, n, name)) {
            found = true;
        }
        field += n + 1;
    }
    return found;
}

/* ---- lines ---- */

typedef struct {
    bool revoked;
    const char *type; /* points into the text; the key follows it */
} known_line;

/* Looks whether a line is for this host. */
static bool parse_line(const char *line, const char *name, known_line *ret_line)
{
    line += strspn(line, " \t");
    ret_line->revoked = lj_str_starts(line, "@revoked") && word(line) == 8;
    if (*line == '#' || *line == '@') {
        if (!ret_line->revoked)
            return false;
        line = next_word(line);
    }
    size_t hosts = word(line);
    ret_line->type = next_word(line);
    return hosts > 0 && word(ret_line->type) > 0 && matches_hosts(line, hosts, name);
}

static const char *line_end(const char *line)
{
    return line + strcspn(line, "\n");
}

/* Fills in what the line has. */
static void note(lj_known *known, lj_known_result result, unsigned number, const char *type)
{
    if (known->result >= result)
        return;
    known->result = result;
    known->line = number;
    snprintf(known->type, sizeof(known->type), "%.*s", (int)LJ_MIN(word(type), (size_t)63), type);
    memcpy(known->fingerprint, "?", 2);
    const char *base64 = next_word(type);
    LJ_CLEANUP(lj_freep) char *copy = strndup(base64, word(base64));
    LJ_CLEANUP(lj_secret_free) lj_secret blob = LJ_SECRET_NONE;
    if (copy == NULL || lj_base64_decode(copy, &blob, NULL) != LJ_OK)
        return;
    const lj_hostkey key = {.blob = (const uint8_t *)blob.bytes, .len = blob.len};
    lj_hostkey_fingerprint(&key, known->fingerprint);
}

lj_code lj_known_hosts_find(const char *text, const char *name, const lj_hostkey *key,
                            lj_known *ret_known, lj_error *err)
{
    lj_known known = {.result = LJ_KNOWN_NOT, .line = 0};
    char type[LJ_HOSTKEY_TYPE_MAX];
    lj_hostkey_type(key, type);
    unsigned number = 0;
    for (const char *line = text; *line != 0; line = *line_end(line) ? line_end(line) + 1 : "") {
        known_line parsed;
        number++;
        if (!parse_line(line, name, &parsed))
            continue;
        bool same = false;
        LJ_TRY(is_key(next_word(parsed.type), key, &same, err));
        bool same_type =
            strlen(type) == word(parsed.type) && strncmp(type, parsed.type, strlen(type)) == 0;
        if (parsed.revoked && same)
            note(&known, LJ_KNOWN_REVOKED, number, parsed.type);
        else if (!parsed.revoked)
            note(&known,
                 same        ? LJ_KNOWN_YES
                 : same_type ? LJ_KNOWN_CHANGED
                             : LJ_KNOWN_OTHER_TYPE,
                 number, parsed.type);
    }
    *ret_known = known;
    return LJ_OK;
}

unsigned lj_known_hosts_kinds(const char *text, const char *name)
{
    unsigned kinds = 0;
    for (const char *line = text; *line != 0; line = *line_end(line) ? line_end(line) + 1 : "") {
        known_line parsed;
        if (parse_line(line, name, &parsed) && !parsed.revoked)
            kinds |= lj_hostkey_kind(parsed.type, word(parsed.type));
    }
    return kinds;
}
