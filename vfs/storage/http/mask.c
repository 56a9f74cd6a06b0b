/*
 * mask.c - see transfer.h: what a server repeats of the secrets it was sent is not shown.
 *
 * The words of an answer that refuses go into messages and logs. Servers, and what stands between, sometimes quote the request: a
 * header, a field of a form, the signature in a query. Each is looked for as it was sent, and decoded.
 *
 * Layer: storage. Thread-safety: pure.
 */
#include <string.h>
#include <strings.h>

#include "vfs/base/secret.h"
#include "vfs/base/str.h"
#include "vfs/storage/http/transfer.h"
#include "vfs/storage/url.h"

#define SHORTEST 6u /* what is shorter cannot be told from other text */

/* Headers whose value is secret, or ends with something that is ("Bearer ..."). */
static const char *const secret_headers[] = {
    "authorization",
    "x-amz-security-token",
    "x-aws-ec2-metadata-token",
    "x-identity-header",
    "x-amz-server-side-encryption-customer-key",
};

/* Fields of forms and queries. */
static const char *const secret_fields[] = {
    "assertion", "client_assertion", "client_secret",    "refresh_token",
    "sig",       "subject_token",    "WebIdentityToken",
};

static void mask(lj_buf *body, const char *text, size_t len)
{
    char *from = (char *)body->data;
    size_t left = body->len;
    if (len < SHORTEST)
        return;
    for (char *at; (at = memmem(from, left, text, len)) != NULL;) {
        memset(at, '*', len);
        left -= (size_t)(at + len - from);
        from = at + len;
    }
}

static void mask_coded(lj_buf *body, const char *text, size_t len)
{
    LJ_CLEANUP(lj_wipe_freep) char *decoded = lj_str_printf("%.*s", (int)len, text);
    mask(body, text, len);
    if (decoded != NULL && lj_url_decode(decoded, true))
        mask(body, decoded, strlen(decoded));
}

static bool is_one_of(const char *name, size_t len, const char *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strlen(list[i]) == len && strncasecmp(list[i], name, len) == 0)
            return true;
    return false;
}

static void mask_header(lj_buf *body, const char *line)
{
    size_t name = strcspn(line, ":");
    if (line[name] == 0 || !is_one_of(line, name, secret_headers, LJ_ARRAY_LEN(secret_headers)))
        return;
    const char *value = line + name + 1;
    value += strspn(value, " \t");
    mask(body, value, strlen(value));
    const char *behind_scheme = strrchr(value, ' ');
    if (behind_scheme != NULL)
        mask(body, behind_scheme + 1, strlen(behind_scheme + 1));
}

/* "name=value&name=value" */
static void mask_fields(lj_buf *body, const char *text, size_t len)
{
    const char *end = text + len;
    while (text < end) {
        const char *next = memchr(text, '&', (size_t)(end - text));
        size_t pair = (size_t)((next != NULL ? next : end) - text);
        const char *equals = memchr(text, '=', pair);
        size_t name = equals != NULL ? (size_t)(equals - text) : pair;
        if (name < pair && is_one_of(text, name, secret_fields, LJ_ARRAY_LEN(secret_fields)))
            mask_coded(body, equals + 1, pair - name - 1);
        text += pair + 1;
    }
}

static bool is_form(const lj_http_request *request)
{
    static const char form[] = "content-type: application/x-www-form-urlencoded";
    for (size_t i = 0; request->headers != NULL && request->headers[i] != NULL; i++)
        if (strncasecmp(request->headers[i], form, strlen(form)) == 0)
            return request->body != NULL;
    return false;
}

void lj_http_mask_sent(const lj_http_request *request, lj_buf *body)
{
    if (body->len == 0)
        return;
    for (size_t i = 0; request->headers != NULL && request->headers[i] != NULL; i++)
        mask_header(body, request->headers[i]);
    const char *query = strchr(request->url, '?');
    if (query != NULL)
        mask_fields(body, query + 1, strlen(query + 1));
    if (is_form(request))
        mask_fields(body, request->body, (size_t)request->body_len);
}
