/*
 * xml.c - see xml.h.
 *
 * Layer: storage.
 */
#include "vfs/storage/s3/xml.h"

#include <expat.h>
#include <limits.h>
#include <string.h>

typedef struct {
    XML_Parser parser;
    lj_s3_xml_fn fn;
    void *ctx;
    char *root;
    lj_error *err;
    lj_code code;
    unsigned depth;                                        /* open elements, the root among them */
    size_t lengths[LJ_S3_XML_DEPTH];                       /* of `path` at each level */
    char path[LJ_S3_XML_DEPTH * (LJ_S3_XML_NAME_MAX + 1)]; /* of the innermost open element */
    lj_buf text;
} reader;

static void stop(reader *r, lj_code code)
{
    if (r->code == LJ_OK)
        r->code = code;
    (void)XML_StopParser(r->parser, XML_FALSE);
}

static lj_code corrupt(lj_error *err, const char *what)
{
    lj_error_set(err, LJ_CORRUPT, "the store's answer %s", what);
    (void)lj_error_hint(err, LJ_S3_HINT_BETWEEN);
    return lj_error_retryable(err, true);
}

static void XMLCALL on_start(void *ctx, const XML_Char *name, const XML_Char **attributes)
{
    (void)attributes;
    reader *r = ctx;
    const char *colon = strrchr(name, ':');
    const char *local = colon != NULL ? colon + 1 : name;
    size_t len = strlen(local);
    if (r->code != LJ_OK)
        return;
    if (r->depth == LJ_S3_XML_DEPTH || len >= LJ_S3_XML_NAME_MAX) {
        stop(r, corrupt(r->err, "is nested too deeply, or has a name that is too long"));
        return;
    }
    if (r->depth == 0) {
        memcpy(r->root, local, len + 1);
    } else {
        size_t used = r->lengths[r->depth - 1];
        if (used > 0)
            r->path[used++] = '/';
        memcpy(r->path + used, local, len + 1);
    }
    r->lengths[r->depth++] = strlen(r->path);
    lj_buf_clear(&r->text);
}

static void XMLCALL on_end(void *ctx, const XML_Char *name)
{
    (void)name;
    reader *r = ctx;
    if (r->code != LJ_OK)
        return;
    lj_code code = r->fn(r->ctx, r->path, lj_buf_text(&r->text), r->err);
    lj_buf_clear(&r->text);
    r->depth--;
    r->path[r->depth > 0 ? r->lengths[r->depth - 1] : 0] = 0;
    if (code != LJ_OK)
        stop(r, code);
}

static void XMLCALL on_text(void *ctx, const XML_Char *text, int len)
{
    reader *r = ctx;
    if (r->code != LJ_OK)
        return;
    if (r->text.len + (size_t)len > LJ_S3_XML_TEXT_MAX)
        stop(r, corrupt(r->err, "has an element that is too long"));
    else if (lj_buf_append(&r->text, text, (size_t)len, r->err) != LJ_OK)
        stop(r, LJ_NOMEM);
}

static void XMLCALL on_doctype(void *ctx, const XML_Char *name, const XML_Char *system,
                               const XML_Char *public, int internal)
{
    (void)name, (void)system, (void)public, (void)internal;
    reader *r = ctx;
    if (r->code == LJ_OK)
        stop(r, corrupt(r->err, "has a DOCTYPE, which no S3 answer has"));
}

lj_code lj_s3_xml_read(const char *data, size_t len, lj_s3_xml_fn fn, void *ctx,
                       char root[LJ_S3_XML_NAME_MAX], lj_error *err)
{
    while (len > 0 && strchr(" \t\r\n", *data) != NULL && *data != 0) {
        data++;
        len--;
    }
    root[0] = 0;
    if (len == 0 || len > INT_MAX)
        return corrupt(err, len == 0 ? "is empty" : "is too large");
    reader r = {.fn = fn, .ctx = ctx, .root = root, .err = err, .text = LJ_BUF_INIT(0)};
    r.text.max = LJ_S3_XML_TEXT_MAX;
    r.parser = XML_ParserCreate(NULL);
    if (r.parser == NULL)
        return lj_error_nomem(err);
    XML_SetUserData(r.parser, &r);
    XML_SetElementHandler(r.parser, on_start, on_end);
    XML_SetCharacterDataHandler(r.parser, on_text);
    XML_SetStartDoctypeDeclHandler(r.parser, on_doctype);
    bool good = XML_Parse(r.parser, data, (int)len, XML_TRUE) == XML_STATUS_OK;
    if (!good && r.code == LJ_OK) {
        if (XML_GetErrorCode(r.parser) == XML_ERROR_NO_MEMORY)
            r.code = lj_error_nomem(err);
        else
            r.code = corrupt(err, "is not well-formed XML");
    }
    XML_ParserFree(r.parser);
    lj_buf_free(&r.text);
    return r.code;
}

lj_code lj_s3_xml_escape(lj_buf *out, const char *text, lj_error *err)
{
    for (; *text != 0; text++) {
        const char *coded = *text == '&'   ? "&amp;"
                            : *text == '<' ? "&lt;"
                            : *text == '>' ? "&gt;"
                                           : NULL;
        LJ_TRY(lj_buf_append(out, coded != NULL ? coded : text, coded != NULL ? strlen(coded) : 1,
                             err));
    }
    return LJ_OK;
}
