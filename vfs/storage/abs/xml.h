/*
 * xml.h - the two XML answers of Azure Blob storage that are read: a page of a listing, and an error.
 *
 * A page is parsed while it comes in; what is kept of it are the names, sizes and times. Everything is checked: a document type
 * is refused (and with it every entity but the five of XML), depth, name lengths and entry counts have maxima.
 *
 * Layer: storage. Thread-safety: one owner. Source: "List Blobs" and "Status and error codes", Azure Storage REST API.
 */
#ifndef LJ_ABS_XML_H
#define LJ_ABS_XML_H

#include "vfs/base/buf.h"
#include "vfs/base/stream.h"

#define LJ_ABS_XML_DEPTH_MAX    16
#define LJ_ABS_XML_TEXT_MAX     ((size_t)16 * 1024) /* a name has at most 1,024 characters */
#define LJ_ABS_PAGE_ENTRIES_MAX 20000u              /* Azure gives at most 5,000 */
#define LJ_ABS_PAGE_NAMES_MAX   ((size_t)32 * 1024 * 1024)

typedef struct {
    size_t name_at; /* where the name begins in `names` */
    uint64_t size_bytes;
    int64_t created_ns; /* Creation-Time, or Last-Modified where an emulator does not tell it */
} lj_abs_entry;

typedef struct {
    lj_buf names;   /* each ends with a NUL */
    lj_buf entries; /* of lj_abs_entry */
    lj_buf marker;  /* of the next page; empty: this was the last */
} lj_abs_page;

#define LJ_ABS_PAGE_INIT                                                                           \
    {                                                                                              \
        .names = LJ_BUF_INIT(LJ_ABS_PAGE_NAMES_MAX),                                               \
        .entries = LJ_BUF_INIT(LJ_ABS_PAGE_ENTRIES_MAX * sizeof(lj_abs_entry)),                    \
        .marker = LJ_BUF_INIT(LJ_ABS_XML_TEXT_MAX)                                                 \
    }

void lj_abs_page_free(lj_abs_page *page);
size_t lj_abs_page_count(const lj_abs_page *page);
/* Entry `i` and its name; valid until the page changes. */
const lj_abs_entry *lj_abs_page_entry(const lj_abs_page *page, size_t i, const char **ret_name);

typedef struct lj_abs_list_parser lj_abs_list_parser;

/* Fills `page`, which is emptied first. Freed with lj_abs_list_parser_free. */
LJ_WARN_UNUSED lj_code lj_abs_list_parser_new(lj_abs_page *page, lj_abs_list_parser **ret_parser,
                                              lj_error *err);
void lj_abs_list_parser_free(lj_abs_list_parser *parser);
/* A sink that feeds the parser. Errors: LJ_CORRUPT (retryable) for anything that is not a page of a listing. */
lj_sink lj_abs_list_parser_sink(lj_abs_list_parser *parser);
/* Call at the end: LJ_CORRUPT when the document was not complete. */
LJ_WARN_UNUSED lj_code lj_abs_list_parser_finish(lj_abs_list_parser *parser, lj_error *err);

#define LJ_ABS_CODE_MAX    80
#define LJ_ABS_MESSAGE_MAX 300

/*
 * The code and the first line of the message of an error answer; both "" when it is none (an answer of a proxy, no
 * body at all). Control characters become spaces.
 */
void lj_abs_parse_error(const void *body, size_t len, char code[LJ_ABS_CODE_MAX],
                        char message[LJ_ABS_MESSAGE_MAX]);

#endif
