/*
 * aws_profile.c - see aws_profile.h. Pure: no file is touched here.
 *
 * Layer: storage.
 */
#include "vfs/storage/auth/aws_profile.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "vfs/base/buf.h"
#include "vfs/base/str.h"

#define BLANKS " \t\r\f\v"

/* A piece of the text. */
typedef struct {
    const char *at;
    size_t len;
} piece;

typedef struct {
    const char *path;
    const char *wanted; /* name of the section */
    lj_aws_profile *profile;
    lj_error *err;
    size_t line;
    bool inside;   /* in the wanted section */
    bool property; /* a property stands above, so that an indented line belongs to it */
    int field;     /* which; -1: none of ours */
    bool nested;   /* its value is empty: what is indented below are settings of its own */
} parser;

static const char *const keys[LJ_AWS_FIELD_COUNT] = {
#define X(name, key) [LJ_AWS_FIELD_##name] = (key),
    LJ_AWS_FIELD_MAP(X)
#undef X
};

const char *lj_aws_field_key(lj_aws_field field)
{
    return keys[field];
}

/* ---- profiles ---- */

const char *lj_aws_profile_get(const lj_aws_profile *profile, lj_aws_field field)
{
    const lj_secret *value = &profile->values[field];
    return lj_secret_is_set(value) && value->len > 0 ? lj_secret_text(value) : NULL;
}

void lj_aws_profile_free(lj_aws_profile *profile)
{
    for (size_t i = 0; i < LJ_AWS_FIELD_COUNT; i++)
        lj_secret_free(&profile->values[i]);
    profile->found = false;
}

lj_code lj_aws_profile_merge(lj_aws_profile *profile, const lj_aws_profile *credentials,
                             lj_error *err)
{
    static const lj_aws_field group[] = {LJ_AWS_FIELD_ACCESS_KEY_ID, LJ_AWS_FIELD_SECRET_ACCESS_KEY,
                                         LJ_AWS_FIELD_SESSION_TOKEN, LJ_AWS_FIELD_EXPIRATION,
                                         LJ_AWS_FIELD_TOKEN_EXPIRES};
    if (lj_aws_profile_get(credentials, LJ_AWS_FIELD_ACCESS_KEY_ID) != NULL ||
        lj_aws_profile_get(credentials, LJ_AWS_FIELD_SECRET_ACCESS_KEY) != NULL) {
        for (size_t i = 0; i < LJ_ARRAY_LEN(group); i++)
            lj_secret_free(&profile->values[group[i]]);
    }
    for (size_t i = 0; i < LJ_AWS_FIELD_COUNT; i++) {
        if (lj_secret_is_set(&credentials->values[i]))
            LJ_TRY(lj_secret_copy(&profile->values[i], &credentials->values[i], err));
    }
    profile->found = profile->found || credentials->found;
    return LJ_OK;
}

/* ---- pieces ---- */

static piece trim(piece p)
{
    while (p.len > 0 && strchr(BLANKS, p.at[0]) != NULL)
        p.at++, p.len--;
    while (p.len > 0 && strchr(BLANKS, p.at[p.len - 1]) != NULL)
        p.len--;
    return p;
}

static bool is_comment_mark(char c)
{
    return c == '#' || c == ';';
}

/* Without a comment behind a blank. */
static piece without_comment(piece p)
{
    for (size_t i = 0; i + 1 < p.len; i++) {
        if ((p.at[i] == ' ' || p.at[i] == '\t') && is_comment_mark(p.at[i + 1])) {
            p.len = i;
            break;
        }
    }
    return p;
}

static bool piece_is(piece p, const char *text)
{
    return p.len == strlen(text) && memcmp(p.at, text, p.len) == 0;
}

static lj_code malformed(const parser *p, const char *what)
{
    lj_error_set(p->err, LJ_INVALID, "%.200s:%zu: %s", p->path, p->line, what);
    return lj_error_hint(p->err, "correct the file; it has [sections] and lines of name = value");
}

/* ---- lines ---- */

static lj_code take_section(parser *p, piece line)
{
    const char *end = memchr(line.at, ']', line.len);
    if (end == NULL)
        return malformed(p, "a section without ']'");
    size_t name_len = (size_t)(end - line.at) - 1;
    piece rest = trim((piece){end + 1, line.len - name_len - 2});
    if (rest.len > 0 && !is_comment_mark(rest.at[0]))
        return malformed(p, "text behind a section's ']'");
    piece name = trim((piece){line.at + 1, name_len});
    if (name.len == 0)
        return malformed(p, "a section without a name");
    p->property = false;
    p->inside = false;
    /* "profile NAME": any number of blanks between, and quotes around a name with blanks */
    static const char prefix[] = "profile";
    size_t prefix_len = sizeof(prefix) - 1;
    if (lj_str_starts(p->wanted, "profile ")) {
        if (name.len <= prefix_len || memcmp(name.at, prefix, prefix_len) != 0 ||
            strchr(BLANKS, name.at[prefix_len]) == NULL)
            return LJ_OK;
        name = trim((piece){name.at + prefix_len, name.len - prefix_len});
        if (name.len >= 2 && (name.at[0] == '"' || name.at[0] == '\'') &&
            name.at[name.len - 1] == name.at[0])
            name = (piece){name.at + 1, name.len - 2};
        p->inside = piece_is(name, p->wanted + prefix_len + 1);
    } else {
        p->inside = piece_is(name, p->wanted);
    }
    p->profile->found = p->profile->found || p->inside;
    return LJ_OK;
}

static int field_of(piece name)
{
    for (int i = 0; i < LJ_AWS_FIELD_COUNT; i++) {
        if (name.len == strlen(keys[i]) && strncasecmp(name.at, keys[i], name.len) == 0)
            return i;
    }
    return -1;
}

/* A value in quotes is what is between them, but for a command, where they are the shell's. */
static piece without_quotes(piece value, int field)
{
    if (field != LJ_AWS_FIELD_CREDENTIAL_PROCESS && value.len > 2 &&
        (value.at[0] == '"' || value.at[0] == '\'') && value.at[value.len - 1] == value.at[0])
        return (piece){value.at + 1, value.len - 2};
    return value;
}

/* The '=' (or ':', which the SDKs take too) between name and value. */
static const char *find_separator(piece line)
{
    for (size_t i = 0; i < line.len; i++) {
        if (line.at[i] == '=' || line.at[i] == ':')
            return line.at + i;
    }
    return NULL;
}

static lj_code take_property(parser *p, piece line)
{
    const char *equals = find_separator(line);
    if (equals == NULL)
        return malformed(p, "neither a section nor name = value");
    piece name = trim((piece){line.at, (size_t)(equals - line.at)});
    if (name.len == 0)
        return malformed(p, "a value without a name");
    piece value = {equals + 1, line.len - (size_t)(equals - line.at) - 1};
    value = trim(without_comment(value));
    if (value.len > LJ_AWS_VALUE_MAX)
        return malformed(p, "a value of more than 16 KiB");
    p->property = true;
    p->nested = value.len == 0;
    p->field = p->inside ? field_of(name) : -1;
    if (p->field < 0)
        return LJ_OK;
    value = without_quotes(value, p->field);
    return lj_secret_set_bytes(&p->profile->values[p->field], value.at, value.len, p->err);
}

static lj_code take_continuation(parser *p, piece line)
{
    if (p->nested || p->field < 0)
        return LJ_OK;
    lj_secret *value = &p->profile->values[p->field];
    line = trim(line);
    if (value->len + 1 + line.len > LJ_AWS_VALUE_MAX)
        return malformed(p, "a value of more than 16 KiB");
    lj_buf both = LJ_BUF_INIT(LJ_AWS_VALUE_MAX);
    lj_code code = lj_buf_reserve(&both, value->len + 1 + line.len, p->err); /* never moves */
    if (code == LJ_OK)
        code = lj_buf_append(&both, value->bytes, value->len, p->err);
    if (code == LJ_OK)
        code = lj_buf_append(&both, "\n", 1, p->err);
    if (code == LJ_OK)
        code = lj_buf_append(&both, line.at, line.len, p->err);
    if (code == LJ_OK)
        code = lj_secret_set_bytes(value, lj_buf_text(&both), both.len, p->err);
    lj_wipe(both.data, both.len);
    lj_buf_free(&both);
    return code;
}

static lj_code take_line(parser *p, piece line)
{
    piece content = trim(line);
    if (content.len == 0 || is_comment_mark(content.at[0]))
        return LJ_OK;
    if (line.at[0] == '[')
        return take_section(p, content);
    if (content.at != line.at && p->property)
        return take_continuation(p, content);
    return take_property(p, content);
}

static lj_code parse_section(const char *path, const char *text, size_t len, const char *wanted,
                             lj_aws_profile *profile, lj_error *err)
{
    parser p = {.path = path, .wanted = wanted, .profile = profile, .err = err, .field = -1};
    while (len > 0) {
        const char *end = memchr(text, '\n', len);
        piece line = {text, end != NULL ? (size_t)(end - text) : len};
        p.line++;
        LJ_TRY(take_line(&p, line));
        size_t taken = line.len + (end != NULL ? 1 : 0);
        text += taken;
        len -= taken;
    }
    return LJ_OK;
}

lj_code lj_aws_profile_parse(const char *path, lj_aws_file_kind kind, const char *text, size_t len,
                             const char *name, lj_aws_profile *ret_profile, lj_error *err)
{
    if (memchr(text, 0, len) != NULL)
        return lj_error_set(err, LJ_INVALID, "%.200s: not a text file", path);
    if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        text += 3;
        len -= 3;
    }
    lj_aws_profile profile = {.found = false};
    lj_code code = LJ_OK;
    if (kind == LJ_AWS_CONFIG_FILE) {
        LJ_CLEANUP(lj_freep) char *section = lj_str_printf("profile %s", name);
        if (section == NULL)
            return lj_error_nomem(err);
        code = parse_section(path, text, len, section, &profile, err);
    }
    /* [profile default] beats [default]; no other profile goes without the word in the config file */
    if (code == LJ_OK && !profile.found &&
        (kind == LJ_AWS_CREDENTIALS_FILE || strcmp(name, "default") == 0))
        code = parse_section(path, text, len, name, &profile, err);
    if (code != LJ_OK) {
        lj_aws_profile_free(&profile);
        return code;
    }
    *ret_profile = profile;
    return LJ_OK;
}
