/*
 * json.c - see internal.h: reads what GCS answers.
 *
 * Layer: storage. Thread-safety: pure. Everything is checked: a field may be absent, of another type, or out of range. A
 * number may be a JSON string, as GCS writes 64-bit numbers, or a JSON number.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/clock.h"
#include "vfs/base/str.h"
#include "vfs/storage/auth/crypto.h"
#include "vfs/storage/gcs/internal.h"

static void decref(json_t **json)
{
    json_decref(*json);
}

static lj_code malformed(lj_error *err, const char *what)
{
    lj_error_set(err, LJ_CORRUPT, "the store's answer is malformed: %s", what);
    return lj_error_retryable(err, true);
}

static json_t *parse(const char *text, size_t len)
{
    json_t *root = json_loadb(text, len, 0, NULL);
    if (root == NULL || json_is_object(root))
        return root;
    json_decref(root);
    return NULL;
}

static const char *text_of(const json_t *object, const char *name)
{
    return json_string_value(json_object_get(object, name));
}

static bool number_of(const json_t *object, const char *name, uint64_t *ret)
{
    const json_t *value = json_object_get(object, name);
    if (json_is_string(value))
        return lj_str_u64(json_string_value(value), ret);
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return false;
    *ret = (uint64_t)json_integer_value(value);
    return true;
}

static lj_code read_crc32c(const json_t *item, lj_gcs_object *object, lj_error *err)
{
    const char *text = text_of(item, "crc32c");
    if (text == NULL)
        return LJ_OK;
    lj_secret bytes = LJ_SECRET_NONE;
    bool good = lj_base64_decode(text, &bytes, NULL) == LJ_OK && bytes.len == 4;
    if (good) {
        object->has_crc32c = true;
        object->crc32c = lj_get_be32((const uint8_t *)bytes.bytes);
    }
    lj_secret_free(&bytes);
    return good ? LJ_OK : malformed(err, "crc32c");
}

static lj_code read_object(const json_t *item, bool with_time, lj_gcs_object *ret, lj_error *err)
{
    lj_gcs_object object = {.size_bytes = 0};
    if (!number_of(item, "size", &object.size_bytes) || object.size_bytes > INT64_MAX)
        return malformed(err, "an object without a size");
    const char *created = text_of(item, "timeCreated");
    bool has_time = created != NULL && lj_clock_parse(created, &object.created_ns, NULL) == LJ_OK;
    if (with_time && !has_time)
        return malformed(err, "an object without a timeCreated");
    (void)number_of(item, "generation", &object.generation);
    LJ_TRY(read_crc32c(item, &object, err));
    *ret = object;
    return LJ_OK;
}

lj_code lj_gcs_object_parse(const char *text, size_t len, bool with_time, lj_gcs_object *ret_object,
                            lj_error *err)
{
    LJ_CLEANUP(decref) json_t *root = parse(text, len);
    if (root == NULL)
        return malformed(err, "not a JSON object");
    return read_object(root, with_time, ret_object, err);
}

static lj_code read_items(const json_t *root, lj_gcs_item_fn fn, void *ctx, lj_error *err)
{
    const json_t *items = json_object_get(root, "items");
    if (items == NULL || json_is_null(items))
        return LJ_OK;
    if (!json_is_array(items))
        return malformed(err, "\"items\" is no list");
    for (size_t i = 0; i < json_array_size(items); i++) {
        const json_t *item = json_array_get(items, i);
        const char *name = text_of(item, "name");
        lj_gcs_object object;
        if (name == NULL)
            return malformed(err, "an object without a name");
        LJ_TRY(read_object(item, true, &object, err));
        LJ_TRY(fn(ctx, name, &object, err));
    }
    return LJ_OK;
}

lj_code lj_gcs_page_parse(const char *text, size_t len, lj_gcs_item_fn fn, void *ctx,
                          char **ret_token, lj_error *err)
{
    LJ_CLEANUP(decref) json_t *root = parse(text, len);
    if (root == NULL)
        return malformed(err, "not a JSON object");
    const json_t *next = json_object_get(root, "nextPageToken");
    const char *kind = text_of(root, "kind");
    /* any other service may say {} to what it does not know */
    if (json_object_get(root, "items") == NULL && next == NULL &&
        (kind == NULL || strcmp(kind, "storage#objects") != 0))
        return malformed(err, "not a listing");
    const char *token = json_string_value(next);
    if (next != NULL && (token == NULL || strlen(token) > LJ_GCS_PAGE_TOKEN_MAX))
        return malformed(err, "nextPageToken");
    LJ_TRY(read_items(root, fn, ctx, err));
    char *copy = NULL;
    if (token != NULL && token[0] != 0) {
        copy = lj_str_dup(token);
        if (copy == NULL)
            return lj_error_nomem(err);
    }
    *ret_token = copy;
    return LJ_OK;
}

/* ---- refusals ---- */

static void copy_shown(char *out, size_t size, const char *text, size_t len)
{
    size_t n = 0;
    for (; n + 1 < size && n < len && text[n] != 0; n++)
        out[n] = (char)((unsigned char)text[n] < 0x20 || text[n] == 0x7f ? ' ' : text[n]);
    while (n > 0 && (out[n - 1] == ' ' || ((unsigned char)out[n - 1] >= 0x80 && n + 1 == size)))
        n--; /* spaces at the end, and a UTF-8 character that was cut */
    out[n] = 0;
}

static void copy_text(char *out, size_t size, const char *text)
{
    if (text != NULL)
        copy_shown(out, size, text, strlen(text));
}

void lj_gcs_refusal_parse(const char *text, size_t len, lj_gcs_refusal *ret_refusal)
{
    *ret_refusal = (lj_gcs_refusal){.reason = ""};
    LJ_CLEANUP(decref) json_t *root = parse(text, len);
    const json_t *error = json_object_get(root, "error");
    if (json_is_object(error)) {
        copy_text(ret_refusal->message, sizeof(ret_refusal->message), text_of(error, "message"));
        const json_t *first = json_array_get(json_object_get(error, "errors"), 0);
        copy_text(ret_refusal->reason, sizeof(ret_refusal->reason), text_of(first, "reason"));
        return;
    }
    /* downloads and uploads are refused with a line of plain text; a page of HTML is of no use */
    if (root == NULL && len > 0 && memchr(text, '<', len) == NULL)
        copy_shown(ret_refusal->message, sizeof(ret_refusal->message), text, len);
}

bool lj_gcs_persisted(const char *range, uint64_t *ret_bytes)
{
    uint64_t last = 0;
    if (!lj_str_starts(range, "bytes=0-") || !lj_str_u64(range + strlen("bytes=0-"), &last) ||
        last >= INT64_MAX)
        return false;
    *ret_bytes = last + 1;
    return true;
}
