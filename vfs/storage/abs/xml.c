/*
 * xml.c - see xml.h: expat, with everything that is not asked for refused or passed over.
 *
 * Layer: storage.
 */
#include "vfs/storage/abs/xml.h"

#include <expat.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/str.h"
#include "vfs/storage/http/http.h"
#include "vfs/storage/url.h"

typedef enum {
    FIELD_NONE,
    FIELD_MARKER,
    FIELD_NAME,
    FIELD_SNAPSHOT,
    FIELD_SIZE,
    FIELD_CREATED,
    FIELD_MODIFIED,
    FIELD_KIND,
} field_id;

/* Where we are: EnumerationResults / Blobs / Blob / Properties, or beside that path. */
struct lj_abs_list_parser {
    XML_Parser xml;
    lj_abs_page *page;
    int depth;
    int on_path;    /* how many of the open elements, from the root on, are the path's */
    field_id field; /* the text being collected, of the element at depth field_depth */
    int field_depth;
    bool encoded; /* the name is percent-encoded */
    lj_buf text;
    lj_buf name;
    bool has_name;
    bool has_size;
    bool passed_over; /* a folder of a hierarchical namespace, or a snapshot */
    uint64_t size_bytes;
    int64_t created_ns;  /* 0: not told */
    int64_t modified_ns; /* 0: not told */
    lj_error *err;       /* of the call under way */
    lj_code code;
};

/* ---- pages ---- */

void lj_abs_page_free(lj_abs_page *page)
{
    lj_buf_free(&page->names);
    lj_buf_free(&page->entries);
    lj_buf_free(&page->marker);
}

size_t lj_abs_page_count(const lj_abs_page *page)
{
    return page->entries.len / sizeof(lj_abs_entry);
}

const lj_abs_entry *lj_abs_page_entry(const lj_abs_page *page, size_t i, const char **ret_name)
{
    const lj_abs_entry *entry = (const lj_abs_entry *)(const void *)page->entries.data + i;
    *ret_name = (const char *)page->names.data + entry->name_at;
    return entry;
}

/* ---- a listing ---- */

static void fail(lj_abs_list_parser *p, const char *what)
{
    if (p->code == LJ_OK) {
        p->code = lj_error_set(p->err, LJ_CORRUPT, "the listing's XML %s", what);
        (void)lj_error_retryable(p->err, true);
    }
    (void)XML_StopParser(p->xml, XML_FALSE);
}

/* A failure of our own, in p->err already. */
static bool check(lj_abs_list_parser *p, lj_code code)
{
    if (code == LJ_OK)
        return true;
    if (p->code == LJ_OK)
        p->code = code;
    (void)XML_StopParser(p->xml, XML_FALSE);
    return false;
}

static void begin_field(lj_abs_list_parser *p, field_id field)
{
    p->field = field;
    p->field_depth = p->depth;
    lj_buf_clear(&p->text);
}

static field_id property(const char *name)
{
    static const struct {
        const char *name;
        field_id field;
    } properties[] = {{"Content-Length", FIELD_SIZE},
                      {"Creation-Time", FIELD_CREATED},
                      {"Last-Modified", FIELD_MODIFIED},
                      {"ResourceType", FIELD_KIND}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(properties); i++)
        if (strcmp(name, properties[i].name) == 0)
            return properties[i].field;
    return FIELD_NONE;
}

static bool says_encoded(const char *const *attributes)
{
    for (; attributes[0] != NULL; attributes += 2)
        if (strcmp(attributes[0], "Encoded") == 0)
            return strcmp(attributes[1], "true") == 0;
    return false;
}

static void begin_blob(lj_abs_list_parser *p)
{
    lj_buf_clear(&p->name);
    p->has_name = false;
    p->has_size = false;
    p->passed_over = false;
    p->encoded = false;
    p->created_ns = 0;
    p->modified_ns = 0;
}

/* An element whose parents are all of the path. p->depth counts it already. */
static void on_path_element(lj_abs_list_parser *p, const char *name, const char *const *attributes)
{
    static const char *const path[] = {"EnumerationResults", "Blobs", "Blob", "Properties"};
    if (p->depth <= (int)LJ_ARRAY_LEN(path) && strcmp(name, path[p->depth - 1]) == 0) {
        p->on_path = p->depth;
        if (p->depth == 3)
            begin_blob(p);
    } else if (p->depth == 1) {
        fail(p, "is not that of a listing");
    } else if (p->depth == 2 && strcmp(name, "NextMarker") == 0) {
        begin_field(p, FIELD_MARKER);
    } else if (p->depth == 4 && strcmp(name, "Name") == 0) {
        p->encoded = says_encoded(attributes);
        begin_field(p, FIELD_NAME);
    } else if (p->depth == 4 && strcmp(name, "Snapshot") == 0) {
        begin_field(p, FIELD_SNAPSHOT);
    } else if (p->depth == 5 && property(name) != FIELD_NONE) {
        begin_field(p, property(name));
    }
}

static void on_start(void *ctx, const char *name, const char **attributes)
{
    lj_abs_list_parser *p = ctx;
    p->depth++;
    if (p->depth > LJ_ABS_XML_DEPTH_MAX)
        fail(p, "is nested too deeply");
    else if (p->field != FIELD_NONE)
        fail(p, "has an element where a text belongs");
    else if (p->on_path == p->depth - 1)
        on_path_element(p, name, attributes);
}

static void on_text(void *ctx, const char *text, int len)
{
    lj_abs_list_parser *p = ctx;
    if (p->field == FIELD_NONE)
        return;
    if (p->text.len + (size_t)len > LJ_ABS_XML_TEXT_MAX)
        fail(p, "has a text that is too long");
    else
        (void)check(p, lj_buf_append(&p->text, text, (size_t)len, p->err));
}

static void take_name(lj_abs_list_parser *p)
{
    if (p->encoded && !lj_url_decode((char *)p->text.data, false)) {
        fail(p, "has a name that is not well encoded");
        return;
    }
    lj_buf_clear(&p->name);
    p->has_name =
        check(p, lj_buf_append(&p->name, p->text.data, strlen((char *)p->text.data), p->err));
}

static void take_time(lj_abs_list_parser *p, int64_t *ret_ns)
{
    if (!lj_http_date(lj_buf_text(&p->text), ret_ns))
        fail(p, "has a time that is none");
}

static void end_field(lj_abs_list_parser *p)
{
    field_id field = p->field;
    const char *text = lj_buf_text(&p->text);
    p->field = FIELD_NONE;
    if (text[0] == 0)
        return; /* as good as absent */
    switch (field) {
    case FIELD_MARKER:
        lj_buf_clear(&p->page->marker);
        (void)check(p, lj_buf_append(&p->page->marker, text, p->text.len, p->err));
        break;
    case FIELD_NAME:
        take_name(p);
        break;
    case FIELD_SIZE:
        p->has_size = lj_str_u64(text, &p->size_bytes);
        if (!p->has_size)
            fail(p, "has a size that is no number");
        break;
    case FIELD_CREATED:
        take_time(p, &p->created_ns);
        break;
    case FIELD_MODIFIED:
        take_time(p, &p->modified_ns);
        break;
    case FIELD_KIND:
        p->passed_over = p->passed_over || strcmp(text, "directory") == 0;
        break;
    case FIELD_SNAPSHOT:
        p->passed_over = true;
        break;
    case FIELD_NONE:
        break;
    }
}

static void end_blob(lj_abs_list_parser *p)
{
    lj_abs_page *page = p->page;
    int64_t created_ns = p->created_ns != 0 ? p->created_ns : p->modified_ns;
    if (p->passed_over)
        return;
    if (!p->has_name)
        fail(p, "has a blob without a name");
    else if (!p->has_size)
        fail(p, "has a blob without a Content-Length");
    else if (created_ns == 0)
        fail(p, "has a blob without a Creation-Time and a Last-Modified");
    else if (lj_abs_page_count(page) >= LJ_ABS_PAGE_ENTRIES_MAX ||
             page->names.len + p->name.len + 1 > LJ_ABS_PAGE_NAMES_MAX)
        fail(p, "has too many blobs on one page");
    if (p->code != LJ_OK)
        return;
    lj_abs_entry entry = {
        .name_at = page->names.len, .size_bytes = p->size_bytes, .created_ns = created_ns};
    if (check(p, lj_buf_append(&page->names, p->name.data, p->name.len + 1, p->err)))
        (void)check(p, lj_buf_append(&page->entries, &entry, sizeof(entry), p->err));
}

static void on_end(void *ctx, const char *name)
{
    (void)name;
    lj_abs_list_parser *p = ctx;
    if (p->code != LJ_OK)
        return;
    if (p->field != FIELD_NONE && p->field_depth == p->depth)
        end_field(p);
    if (p->on_path == p->depth) {
        if (p->depth == 3 && p->code == LJ_OK)
            end_blob(p);
        p->on_path--;
    }
    p->depth--;
}

static void on_doctype(void *ctx, const char *name, const char *system_id, const char *public_id,
                       int has_internal_subset)
{
    (void)name, (void)system_id, (void)public_id, (void)has_internal_subset;
    fail(ctx, "has a document type, which no listing has");
}

lj_code lj_abs_list_parser_new(lj_abs_page *page, lj_abs_list_parser **ret_parser, lj_error *err)
{
    lj_abs_list_parser *p = calloc(1, sizeof(*p));
    if (p == NULL)
        return lj_error_nomem(err);
    p->xml = XML_ParserCreate(NULL);
    if (p->xml == NULL) {
        free(p);
        return lj_error_nomem(err);
    }
    p->page = page;
    p->text.max = LJ_ABS_XML_TEXT_MAX;
    p->name.max = LJ_ABS_XML_TEXT_MAX;
    lj_buf_clear(&page->names);
    lj_buf_clear(&page->entries);
    lj_buf_clear(&page->marker);
    XML_SetUserData(p->xml, p);
    XML_SetElementHandler(p->xml, on_start, on_end);
    XML_SetCharacterDataHandler(p->xml, on_text);
    XML_SetStartDoctypeDeclHandler(p->xml, on_doctype);
    *ret_parser = p;
    return LJ_OK;
}

void lj_abs_list_parser_free(lj_abs_list_parser *parser)
{
    if (parser == NULL)
        return;
    XML_ParserFree(parser->xml);
    lj_buf_free(&parser->text);
    lj_buf_free(&parser->name);
    free(parser);
}

static lj_code feed(lj_abs_list_parser *p, const char *data, size_t len, bool last, lj_error *err)
{
    if (p->code != LJ_OK)
        return lj_error_set(err, p->code, "the listing's XML was refused before");
    p->err = err;
    do {
        size_t n = LJ_MIN(len, (size_t)INT_MAX / 2);
        enum XML_Status status = XML_Parse(p->xml, data, (int)n, last && n == len);
        if (p->code == LJ_OK && status != XML_STATUS_OK) {
            fail(p, "is damaged");
            (void)lj_error_hint(err, "%s", XML_ErrorString(XML_GetErrorCode(p->xml)));
        }
        data += n;
        len -= n;
    } while (p->code == LJ_OK && len > 0);
    p->err = NULL;
    return p->code;
}

static lj_code write_list(void *ctx, const void *data, size_t len, lj_error *err)
{
    return feed(ctx, data, len, false, err);
}

lj_sink lj_abs_list_parser_sink(lj_abs_list_parser *parser)
{
    return (lj_sink){.ctx = parser, .write = write_list};
}

lj_code lj_abs_list_parser_finish(lj_abs_list_parser *parser, lj_error *err)
{
    return feed(parser, "", 0, true, err);
}

/* ---- an error ---- */

typedef struct {
    XML_Parser xml;
    int depth;
    char *field; /* where the text at hand goes; NULL: nowhere */
    size_t size;
    size_t len;
    char *code;
    char *message;
} error_parser;

static void error_start(void *ctx, const char *name, const char **attributes)
{
    (void)attributes;
    error_parser *p = ctx;
    p->depth++;
    p->field = NULL;
    if (p->depth == 1 && strcmp(name, "Error") != 0)
        (void)XML_StopParser(p->xml, XML_FALSE);
    if (p->depth != 2)
        return;
    p->len = 0;
    if (strcmp(name, "Code") == 0) {
        p->field = p->code;
        p->size = LJ_ABS_CODE_MAX;
    } else if (strcmp(name, "Message") == 0) {
        p->field = p->message;
        p->size = LJ_ABS_MESSAGE_MAX;
    }
}

static void error_end(void *ctx, const char *name)
{
    (void)name;
    error_parser *p = ctx;
    p->depth--;
    p->field = NULL;
}

static void error_text(void *ctx, const char *text, int len)
{
    error_parser *p = ctx;
    if (p->field == NULL)
        return;
    for (int i = 0; i < len && p->len + 1 < p->size; i++) {
        if (text[i] == '\n') { /* RequestId and Time follow */
            p->field = NULL;
            return;
        }
        p->field[p->len++] = (char)((unsigned char)text[i] < 0x20 ? ' ' : text[i]);
        p->field[p->len] = 0;
    }
}

static void error_doctype(void *ctx, const char *name, const char *system_id, const char *public_id,
                          int has_internal_subset)
{
    (void)name, (void)system_id, (void)public_id, (void)has_internal_subset;
    (void)XML_StopParser(((error_parser *)ctx)->xml, XML_FALSE);
}

void lj_abs_parse_error(const void *body, size_t len, char code[LJ_ABS_CODE_MAX],
                        char message[LJ_ABS_MESSAGE_MAX])
{
    code[0] = 0;
    message[0] = 0;
    error_parser p = {.xml = XML_ParserCreate(NULL), .code = code, .message = message};
    if (p.xml == NULL)
        return;
    XML_SetUserData(p.xml, &p);
    XML_SetElementHandler(p.xml, error_start, error_end);
    XML_SetCharacterDataHandler(p.xml, error_text);
    XML_SetStartDoctypeDeclHandler(p.xml, error_doctype);
    /* a body that was cut short has said its code by then */
    (void)XML_Parse(p.xml, body, (int)LJ_MIN(len, (size_t)INT_MAX / 2), XML_TRUE);
    XML_ParserFree(p.xml);
}
