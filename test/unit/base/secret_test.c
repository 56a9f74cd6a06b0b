/* secret_test.c - secrets are copied, compared and wiped. */
#include "test/unit/unit.h"

#include "vfs/base/secret.h"
#include "vfs/base/str.h"

static void set_copy_and_free(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_secret a = LJ_SECRET_NONE;
    lj_secret b = LJ_SECRET_NONE;
    assert_false(lj_secret_is_set(&a));
    assert_string_equal(lj_secret_text(&a), "");
    assert_true(lj_secret_eq(&a, &b));
    assert_ok(lj_secret_set(&a, "key", &err), &err);
    assert_true(lj_secret_is_set(&a));
    assert_string_equal(lj_secret_text(&a), "key");
    assert_int_equal(a.len, 3);
    assert_false(lj_secret_eq(&a, &b));
    assert_ok(lj_secret_copy(&b, &a, &err), &err);
    assert_true(lj_secret_eq(&a, &b));
    assert_ptr_not_equal(a.bytes, b.bytes);
    assert_ok(lj_secret_set(&b, "kez", &err), &err);
    assert_false(lj_secret_eq(&a, &b));
    assert_ok(lj_secret_set(&b, "", &err), &err);
    assert_false(lj_secret_is_set(&b));
    assert_ok(lj_secret_set(&a, NULL, &err), &err);
    assert_false(lj_secret_is_set(&a));
    assert_ok(lj_secret_copy(&b, &a, &err), &err);
    assert_null(b.bytes);
    lj_secret_free(&a);
    lj_secret_free(&b);
    lj_secret_free(&b); /* may be freed twice */
}

static void its_own_content(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_secret a = LJ_SECRET_NONE;
    assert_ok(lj_secret_set(&a, "abcdef", &err), &err);
    assert_ok(lj_secret_copy(&a, &a, &err), &err);
    assert_string_equal(lj_secret_text(&a), "abcdef");
    assert_ok(lj_secret_set(&a, lj_secret_text(&a) + 3, &err), &err);
    assert_string_equal(lj_secret_text(&a), "def");
    lj_secret_free(&a);
}

static void bytes_with_nul(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_secret a = LJ_SECRET_NONE;
    lj_secret b = LJ_SECRET_NONE;
    assert_ok(lj_secret_set_bytes(&a, "a\0b", 3, &err), &err);
    assert_ok(lj_secret_set_bytes(&b, "a\0c", 3, &err), &err);
    assert_int_equal(a.len, 3);
    assert_int_equal(a.bytes[3], 0);
    assert_false(lj_secret_eq(&a, &b));
    lj_secret_free(&a);
    lj_secret_free(&b);
}

static void wiping(void **state)
{
    (void)state;
    char text[] = "password";
    lj_wipe(text, 4);
    assert_memory_equal(text, "\0\0\0\0word", 8);
    lj_wipe(NULL, 10);
    char *copy = lj_str_dup("password");
    lj_wipe_freep(&copy);
    assert_null(copy);
    lj_wipe_freep(&copy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(set_copy_and_free),
        cmocka_unit_test(its_own_content),
        cmocka_unit_test(bytes_with_nul),
        cmocka_unit_test(wiping),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
