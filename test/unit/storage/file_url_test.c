/* file_url_test.c - which folder a file:// URL means. */
#include "test/unit/unit.h"

#include <unistd.h>

#include "vfs/base/str.h"
#include "vfs/storage/storage.h"

static void url_forms(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    char here[4096];
    assert_non_null(getcwd(here, sizeof(here)));
    LJ_CLEANUP(lj_freep) char *relative = lj_str_printf("file://%s", here);
    LJ_CLEANUP(lj_freep) char *query = lj_str_printf("file://%s/?x", strcmp(here, "/") ? here : "");
    const struct {
        const char *url;
        const char *shown;
    } rows[] = {{"file:///a/b", "file:///a/b"},
                {"FILE:///a", "file:///a"},
                {"file://tmp/x", "file:///tmp/x"},
                {"file:///a%20b/c", "file:///a%20b/c"},
                {"file:///a b", "file:///a b"},
                {"file:///x?y=1", "file:///x?y=1"},
                {"file:///x#y", "file:///x#y"},
                {"file:///a/b/", "file:///a/b"},
                {"file:////a//b///", "file:///a/b"},
                {"file:///a/./b/../c/.", "file:///a/c"},
                {"file:///../../a/..", "file:///"},
                {"file:///", "file:///"},
                {"file://./x", "file:///x"},
                {"file:///...", "file:///..."},
                {"file:///a/..b/.c", "file:///a/..b/.c"},
                {"file://user:pw@host/x", "file:///user:pw@host/x"},
                {"file://", relative},
                {"file://?x", query}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        lj_storage *storage = NULL;
        assert_ok(lj_storage_open(rows[i].url, NULL, &storage, &err), &err);
        assert_string_equal(lj_storage_url(storage), rows[i].shown);
        assert_string_equal(lj_storage_type(storage), "file");
        lj_storage_close(storage);
    }
    lj_storage *storage = NULL;
    assert_int_equal(lj_storage_open("file:///a\nb", NULL, &storage, &err), LJ_INVALID);
    assert_int_equal(lj_storage_open("file:/a", NULL, &storage, &err), LJ_INVALID);
    assert_null(storage);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(url_forms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
