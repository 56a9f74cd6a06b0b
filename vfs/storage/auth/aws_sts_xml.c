/*
 * aws_sts_xml.c - the answers of STS: credentials or an error, as XML.
 *
 * Only elements of known names are looked at, wherever they stand; of a name that comes twice the first counts. There is no
 * DOCTYPE in them, so one is refused, and with it every entity.
 *
 * Layer: storage. Thread-safety: pure.
 */
#include "vfs/storage/auth/aws_internal.h"

#include <limits.h>
#include <string.h>

#include <expat.h>

#include "vfs/base/buf.h"

#define DEPTH_MAX 16u
#define TEXT_MAX  ((size_t)32 * 1024)

typedef struct {
    XML_Parser parser;
    lj_aws_sts_answer *answer;
    unsigned depth;
    lj_secret *wanted; /* where the text of the innermost element goes */
    lj_buf text;
    bool nomem;
    bool refused;
} reader;

static lj_secret *find_element(lj_aws_sts_answer *answer, const char *name)
{
    const struct {
        const char *name;
        lj_secret *value;
    } elements[] = {
        {"AccessKeyId", &answer->key_id},
        {"SecretAccessKey", &answer->secret_key},
        {"SessionToken", &answer->session_token},
        {"Expiration", &answer->expiration},
        {"Code", &answer->code},
        {"Message", &answer->message},
    };
    const char *colon = strrchr(name, ':');
    name = colon != NULL ? colon + 1 : name;
    for (size_t i = 0; i < LJ_ARRAY_LEN(elements); i++) {
        if (strcmp(name, elements[i].name) == 0)
            return lj_secret_is_set(elements[i].value) ? NULL : elements[i].value;
    }
    return NULL;
}

static void refuse(reader *r)
{
    r->refused = true;
    XML_StopParser(r->parser, XML_FALSE);
}

static void XMLCALL on_start(void *ctx, const XML_Char *name, const XML_Char **attributes)
{
    (void)attributes;
    reader *r = ctx;
    if (r->refused || r->nomem)
        return;
    if (++r->depth > DEPTH_MAX) {
        refuse(r);
        return;
    }
    r->wanted = find_element(r->answer, name);
    lj_wipe(r->text.data, r->text.len);
    lj_buf_clear(&r->text);
}

static void XMLCALL on_end(void *ctx, const XML_Char *name)
{
    (void)name;
    reader *r = ctx;
    if (r->refused || r->nomem)
        return;
    r->depth--;
    if (r->wanted != NULL && r->text.len > 0)
        r->nomem =
            lj_secret_set_bytes(r->wanted, lj_buf_text(&r->text), r->text.len, NULL) != LJ_OK;
    r->wanted = NULL;
}

static void XMLCALL on_text(void *ctx, const XML_Char *text, int len)
{
    reader *r = ctx;
    if (r->refused || r->nomem || r->wanted == NULL)
        return;
    if (r->text.len + (size_t)len > TEXT_MAX)
        refuse(r);
    else
        r->nomem = lj_buf_append(&r->text, text, (size_t)len, NULL) != LJ_OK;
}

static void XMLCALL on_doctype(void *ctx, const XML_Char *name, const XML_Char *system,
                               const XML_Char *public, int internal)
{
    (void)name, (void)system, (void)public, (void)internal;
    refuse(ctx);
}

void lj_aws_sts_answer_free(lj_aws_sts_answer *answer)
{
    lj_secret_free(&answer->key_id);
    lj_secret_free(&answer->secret_key);
    lj_secret_free(&answer->session_token);
    lj_secret_free(&answer->expiration);
    lj_secret_free(&answer->code);
    lj_secret_free(&answer->message);
}

static lj_code parse(reader *r, const char *text, size_t len, lj_error *err)
{
    XML_SetUserData(r->parser, r);
    XML_SetElementHandler(r->parser, on_start, on_end);
    XML_SetCharacterDataHandler(r->parser, on_text);
    XML_SetStartDoctypeDeclHandler(r->parser, on_doctype);
    bool good = len <= INT_MAX && XML_Parse(r->parser, text, (int)len, XML_TRUE) == XML_STATUS_OK;
    if (r->nomem || (!good && XML_GetErrorCode(r->parser) == XML_ERROR_NO_MEMORY))
        return lj_error_nomem(err);
    if (good && !r->refused)
        return LJ_OK;
    lj_error_set(err, LJ_CORRUPT, "the answer is not the XML that STS sends");
    return lj_error_retryable(err, true);
}

lj_code lj_aws_sts_read(const char *text, size_t len, lj_aws_sts_answer *ret_answer, lj_error *err)
{
    lj_aws_sts_answer answer = {.key_id = LJ_SECRET_NONE};
    reader r = {.answer = &answer, .text = LJ_BUF_INIT(TEXT_MAX)};
    LJ_TRY(lj_buf_reserve(&r.text, TEXT_MAX, err)); /* never moves */
    r.parser = XML_ParserCreate(NULL);
    lj_code code = r.parser == NULL ? lj_error_nomem(err) : parse(&r, text, len, err);
    XML_ParserFree(r.parser);
    lj_wipe(r.text.data, r.text.cap);
    lj_buf_free(&r.text);
    if (code != LJ_OK) {
        lj_aws_sts_answer_free(&answer);
        return code;
    }
    *ret_answer = answer;
    return LJ_OK;
}
