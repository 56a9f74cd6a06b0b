/*
 * aws_json.c - credentials as JSON, the form that metadata services and credential_process share.
 *
 * Layer: storage. Thread-safety: pure.
 */
#include "vfs/storage/auth/aws_internal.h"

#include <stdio.h>
#include <strings.h>

#include <jansson.h>

#include "vfs/base/clock.h"
#include "vfs/base/log.h"
#include "vfs/base/str.h"

/* An expired answer of the instance metadata service is used this long: in an outage it is all there is. */
#define STALE_NS (300 * LJ_NS_PER_S)

static const char *text_of(const json_t *object, const char *name)
{
    return json_string_value(json_object_get(object, name));
}

/* Text of a service for a message: one line, not long. */
static void show(char *out, size_t size, const char *text)
{
    size_t n = 0;
    for (; text != NULL && text[n] != 0 && n + 1 < size; n++)
        out[n] = text[n] >= ' ' && text[n] <= '~' ? text[n] : '?';
    out[n] = 0;
}

/* What jansson holds is wiped before it is freed; it has no way of its own, and its allocator is the host's too. */
static void wipe_and_free(json_t *root)
{
    const char *name = NULL;
    json_t *value = NULL;
    json_object_foreach(root, name, value)
    {
        if (json_is_string(value))
            lj_wipe((char *)(uintptr_t)json_string_value(value), json_string_length(value));
    }
    json_decref(root);
}

static lj_code refused(const char *what, const char *code, const char *message, lj_error *err)
{
    char shown_code[80];
    char shown[200];
    show(shown_code, sizeof(shown_code), code);
    show(shown, sizeof(shown), message);
    lj_error_set(err, LJ_DENIED, "AWS credentials of %.200s: %s%s%s", what, shown_code,
                 shown[0] != 0 ? ": " : "", shown);
    return lj_error_retryable(err, true);
}

static lj_code take_expiration(const json_t *root, const char *what, lj_aws_json_form form,
                               int64_t skew_ns, int64_t *ret_ns, lj_error *err)
{
    const char *text = text_of(root, "Expiration");
    if (text == NULL || text[0] == 0)
        return LJ_OK;
    int64_t ns = 0;
    if (lj_clock_parse(text, &ns, NULL) != LJ_OK)
        return lj_error_set(err, LJ_CORRUPT, "AWS credentials of %.200s: malformed Expiration",
                            what);
    ns -= skew_ns;
    int64_t now_ns = lj_clock_wall_ns();
    if (form == LJ_AWS_JSON_IMDS && ns <= now_ns) {
        lj_log(LJ_LOG_WARN, "AWS credentials of %s: they have expired, and are tried all the same",
               what);
        ns = now_ns + STALE_NS;
    }
    *ret_ns = ns;
    return LJ_OK;
}

static lj_code take(const json_t *root, const char *what, lj_aws_json_form form, int64_t skew_ns,
                    lj_token *ret_token, lj_error *err)
{
    bool process = form == LJ_AWS_JSON_PROCESS;
    const char *code = text_of(root, "Code");
    if (!process && code != NULL && strcasecmp(code, "Success") != 0)
        return refused(what, code, text_of(root, "Message"), err);
    if (process && json_integer_value(json_object_get(root, "Version")) != 1)
        return lj_error_set(err, LJ_CORRUPT, "AWS credentials of %.200s: Version is not 1", what);
    int64_t expires_ns = 0;
    LJ_TRY(take_expiration(root, what, form, skew_ns, &expires_ns, err));
    lj_code result = lj_aws_token_make(
        what, text_of(root, "AccessKeyId"), text_of(root, "SecretAccessKey"),
        text_of(root, process ? "SessionToken" : "Token"), expires_ns, ret_token, err);
    if (result == LJ_INVALID)
        result = err->code = LJ_CORRUPT; /* not the operator's own text */
    return result;
}

lj_code lj_aws_json_token(const char *what, lj_aws_json_form form, const char *text, size_t len,
                          int64_t skew_ns, lj_token *ret_token, lj_error *err)
{
    json_t *root =
        json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL); /* its error would show text */
    lj_code code = LJ_OK;
    if (!json_is_object(root))
        code = lj_error_set(err, LJ_CORRUPT, "AWS credentials of %.200s: the answer is not JSON",
                            what);
    else
        code = take(root, what, form, skew_ns, ret_token, err);
    wipe_and_free(root);
    if (code == LJ_CORRUPT)
        lj_error_retryable(err, true);
    return code;
}

lj_code lj_aws_json_refusal(const char *what, const lj_http_response *response, lj_error *err)
{
    json_t *root = json_loadb(lj_buf_text(&response->body), response->body.len, 0, NULL);
    const char *code = text_of(root, "Code");
    const char *message = text_of(root, "Message");
    code = code != NULL ? code : text_of(root, "code");
    message = message != NULL ? message : text_of(root, "message");
    char shown[240];
    char detail[200];
    char name[80];
    show(name, sizeof(name), code);
    show(detail, sizeof(detail), message);
    snprintf(shown, sizeof(shown), "%.60s%s%.160s", name,
             name[0] != 0 && detail[0] != 0 ? ": " : "", detail);
    json_decref(root);
    return lj_http_status_error(response, what, shown[0] != 0 ? shown : NULL, err);
}
