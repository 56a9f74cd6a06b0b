/*
 * xml.h - reads an answer of a store: small XML documents from somebody else's server.
 *
 * Limits: LJ_S3_XML_DEPTH levels, LJ_S3_XML_TEXT_MAX bytes of text in an element; a DOCTYPE is refused, so there are no
 * entities to expand. Names lose their namespace prefix. White space before the document is skipped (S3 sends some while it
 * completes a large upload).
 *
 * Layer: storage. Thread-safety: pure.
 */
#ifndef LJ_S3_XML_H
#define LJ_S3_XML_H

#include "vfs/base/buf.h"
#include "vfs/base/error.h"

#define LJ_S3_XML_DEPTH    8u
#define LJ_S3_XML_TEXT_MAX ((size_t)16 * 1024)
#define LJ_S3_XML_NAME_MAX 64u

/* For answers that no S3 store gives: a proxy's sign-in page says 200 too. */
#define LJ_S3_HINT_BETWEEN "check \"endpoint\", and what stands between here and the store"

/*
 * Called at the end of every element: `path` are the names below the root ("Contents/Key", "" for the root), `text` what stood
 * directly in it since its last child. Any code but LJ_OK ends the reading and is returned.
 */
typedef lj_code (*lj_s3_xml_fn)(void *ctx, const char *path, const char *text, lj_error *err);

/*
 * `root` gets the name of the root element, "" when there is none. Errors: LJ_CORRUPT (retryable: it may have been cut off),
 * LJ_NOMEM, and fn's.
 */
LJ_WARN_UNUSED lj_code lj_s3_xml_read(const char *data, size_t len, lj_s3_xml_fn fn, void *ctx,
                                      char root[LJ_S3_XML_NAME_MAX], lj_error *err);

/* Appends a text as the content of an element. */
LJ_WARN_UNUSED lj_code lj_s3_xml_escape(lj_buf *out, const char *text, lj_error *err);

#endif
