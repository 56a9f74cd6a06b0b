/*
 * fuzz_url.c - replica URLs, their queries and percent-encoding: what is taken has no control character, a clean path and a
 * host that can stand in another URL; decoding undoes encoding; no secret is taken from a query.
 */
#include "test/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "vfs/base/str.h"
#include "vfs/storage/setting.h"
#include "vfs/storage/url.h"

#define ENCODED_MAX (4u * 1024u * 1024u)

static void check_no_control(const char *text)
{
    for (; text != NULL && *text != 0; text++)
        FUZZ_CHECK((unsigned char)*text >= 0x20 && *text != 0x7f);
}

static void check_path(const char *path)
{
    FUZZ_CHECK(path[0] == 0 || path[0] == '/');
    FUZZ_CHECK(path[0] == 0 || !lj_str_ends(path, "/"));
    FUZZ_CHECK(strstr(path, "//") == NULL && strstr(path, "/./") == NULL &&
               strstr(path, "/../") == NULL);
    FUZZ_CHECK(!lj_str_ends(path, "/.") && !lj_str_ends(path, "/.."));
    char *again = lj_str_dup(path);
    if (again == NULL)
        return;
    lj_url_clean_path(again);
    FUZZ_CHECK(strcmp(again, path) == 0);
    free(again);
}

static void check_settings(const char *query)
{
    static const lj_setting_spec specs[] = {{"region", false}, {"key", true}, {"x", false}};
    lj_storage_options options = {.setting_count = 0};
    lj_settings settings;
    lj_error err = LJ_ERROR_INIT;
    if (lj_settings_make(&settings, specs, LJ_ARRAY_LEN(specs), query, &options, &err) != LJ_OK) {
        FUZZ_CHECK(err.code == LJ_INVALID && err.message[0] != 0);
        return;
    }
    FUZZ_CHECK(lj_settings_get(&settings, "key") == NULL);
    check_no_control(lj_settings_get(&settings, "region"));
    check_no_control(lj_settings_get(&settings, "x"));
    lj_settings_free(&settings);
}

static void check_url(const char *text)
{
    lj_error err = LJ_ERROR_INIT;
    lj_url url = {.scheme = NULL};
    if (lj_url_parse(text, &url, &err) != LJ_OK) {
        FUZZ_CHECK(err.code == LJ_INVALID && err.message[0] != 0 && url.scheme == NULL);
        return;
    }
    FUZZ_CHECK(strlen(url.scheme) > 0 && strlen(url.scheme) < strlen(text));
    check_no_control(url.user);
    check_no_control(url.host);
    check_no_control(url.path);
    check_no_control(lj_secret_text(&url.password));
    FUZZ_CHECK(url.host[strcspn(url.host, "/?#@[] ")] == 0);
    check_path(url.path);
    FUZZ_CHECK(lj_url_prefix(&url)[0] != '/');
    if (url.query != NULL)
        check_settings(url.query);
    lj_url_free(&url);
    FUZZ_CHECK(url.scheme == NULL && url.query == NULL);
}

static void check_encoding(const char *text, bool keep_slash)
{
    lj_error err = LJ_ERROR_INIT;
    lj_buf out = LJ_BUF_INIT(ENCODED_MAX);
    if (lj_url_encode(&out, text, keep_slash, &err) != LJ_OK || out.data == NULL) {
        lj_buf_free(&out);
        return;
    }
    for (size_t i = 0; i < out.len; i++)
        FUZZ_CHECK(out.data[i] > 0x20 && out.data[i] < 0x7f &&
                   strchr("?#&+=", out.data[i]) == NULL);
    FUZZ_CHECK(keep_slash || strchr(lj_buf_text(&out), '/') == NULL);
    FUZZ_CHECK(lj_url_decode((char *)out.data, false));
    FUZZ_CHECK(strcmp(lj_buf_text(&out), text) == 0);
    lj_buf_free(&out);
}

static void check_clean(char *text)
{
    size_t len = strlen(text);
    bool absolute = text[0] == '/';
    lj_url_clean_path(text);
    FUZZ_CHECK(strlen(text) <= len);
    FUZZ_CHECK(text[0] != '/' || absolute);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    if (text == NULL)
        return 0;
    if (size > 0)
        memcpy(text, data, size);
    text[size] = 0;
    check_url(text);
    check_settings(text);
    check_encoding(text, true);
    check_encoding(text, false);
    check_clean(text);
    free(text);
    return 0;
}
