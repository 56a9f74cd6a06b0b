/* hostkey_test.c - known_hosts, pins and fingerprints; keys and hashes made by ssh-keygen. */
#include "test/unit/unit.h"

#include "vfs/base/str.h"
#include "vfs/storage/auth/crypto.h"
#include "vfs/storage/sftp/hostkey.h"

#define KEY_A "AAAAC3NzaC1lZDI1NTE5AAAAIBE/IJTkTpGImJcLVf70ooELlzmoUgHHdfaP/8lXyN6/"
#define FP_A  "SHA256:sEeCeQQ+0j7sYm9s0bkeI/jqsch86c3uaIx+/M3v9f0"
#define KEY_B "AAAAC3NzaC1lZDI1NTE5AAAAIM78S8xM3KWIC7nvdAqImIml+YR1hkcmpqHyEEQCp2Qd"
#define FP_B  "SHA256:aLUKue/SXtzjESIjIM/ypTSEaGclGAIqyCu5BgxpDKQ"
#define KEY_E                                                                                      \
    "AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBGh0fgF+8pTWGwHFxemNZ+wX3CvOKKS+"         \
    "EwwsupFl4b9j"                                                                                 \
    "H495q1NRoNHM7cApR2fToXSrH6gRy2miz/psUfRWicA="
#define FP_E "SHA256:wJ83Usn19CXkgI5KDqwv3nto23UGf9O9VsId5Gw/IqM"
/* ssh-keygen -H of "example.org" and of "[example.org]:2222" */
#define HASHED      "|1|i9U0u2sU0pX+Jbdofvp9mHRr4q8=|WQbGmd0JM335kLtWfoX5V+bbvBo="
#define HASHED_PORT "|1|xAoMz6VCEBI1KH0KsFPBGKrUKfc=|DfoxCIoOyc84LXh5mZ9bVlWRdhQ="

static lj_hostkey key_of(const char *base64, lj_secret *memory)
{
    lj_error err = LJ_ERROR_INIT;
    assert_ok(lj_base64_decode(base64, memory, &err), &err);
    return (lj_hostkey){.blob = (const uint8_t *)memory->bytes, .len = memory->len};
}

static void types_and_fingerprints(void **state)
{
    (void)state;
    const struct {
        const char *key;
        const char *type;
        const char *fingerprint;
    } rows[] = {{KEY_A, "ssh-ed25519", FP_A},
                {KEY_B, "ssh-ed25519", FP_B},
                {KEY_E, "ecdsa-sha2-nistp256", FP_E}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        LJ_CLEANUP(lj_secret_free) lj_secret memory = LJ_SECRET_NONE;
        lj_hostkey key = key_of(rows[i].key, &memory);
        char type[LJ_HOSTKEY_TYPE_MAX];
        char fingerprint[LJ_FINGERPRINT_MAX];
        lj_hostkey_type(&key, type);
        lj_hostkey_fingerprint(&key, fingerprint);
        assert_string_equal(type, rows[i].type);
        assert_string_equal(fingerprint, rows[i].fingerprint);
    }
    static const char *const broken[] = {"", "\0\0\0",
                                         "\0\0\0\x7f"
                                         "abc",
                                         "\xff\xff\xff\xff"
                                         "abc"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(broken); i++) {
        const lj_hostkey key = {.blob = (const uint8_t *)broken[i],
                                .len = i == 0   ? 0
                                       : i == 1 ? 3
                                                : 7};
        char type[LJ_HOSTKEY_TYPE_MAX];
        lj_hostkey_type(&key, type);
        assert_string_equal(type, "?");
    }
    assert_int_equal(lj_hostkey_kind("ssh-ed25519", 11), LJ_HOSTKEY_ED25519);
    assert_int_equal(lj_hostkey_kind("ecdsa-sha2-nistp521", 19), LJ_HOSTKEY_ECDSA);
    assert_int_equal(lj_hostkey_kind("ssh-rsa", 7), LJ_HOSTKEY_RSA);
    assert_int_equal(lj_hostkey_kind("ssh-dss", 7), 0);
}

static void pins(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    LJ_CLEANUP(lj_secret_free) lj_secret memory = LJ_SECRET_NONE;
    lj_hostkey key = key_of(KEY_A, &memory);
    const struct {
        const char *pin;
        bool matches;
    } rows[] = {{FP_A, true},
                {FP_A "=", true},
                {FP_B, false},
                {"ssh-ed25519 " KEY_A, true},
                {"ssh-ed25519   " KEY_A " root@host", true},
                {"ssh-ed25519 " KEY_B, false},
                {"ecdsa-sha2-nistp256 " KEY_E, false}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        bool matches = !rows[i].matches;
        assert_ok(lj_hostkey_pin_check(rows[i].pin, &err), &err);
        assert_ok(lj_hostkey_pin_matches(rows[i].pin, &key, &matches, &err), &err);
        assert_int_equal(matches, rows[i].matches);
    }
    static const char *const bad[] = {"",
                                      "SHA256:",
                                      "SHA256:abc",
                                      FP_A "x",
                                      FP_A "==",
                                      "sha256:" KEY_A,
                                      "MD5:16:27:ac:a5:76:28:2d:36:63:1b:56:4d:eb:df:a6:48",
                                      KEY_A,
                                      "ssh-ed25519",
                                      "ssh-ed25519 ",
                                      "ssh-ed25519 no!key",
                                      "example.org ssh-ed25519 " KEY_A};
    for (size_t i = 0; i < LJ_ARRAY_LEN(bad); i++) {
        assert_int_equal(lj_hostkey_pin_check(bad[i], &err), LJ_INVALID);
        assert_non_null(strstr(err.hint, "SHA256:"));
    }
}

static void names(void **state)
{
    (void)state;
    const struct {
        const char *host;
        uint16_t port;
        const char *name;
    } rows[] = {{"example.org", 22, "example.org"},
                {"Example.ORG", 2222, "[example.org]:2222"},
                {"::1", 22, "::1"},
                {"::1", 23, "[::1]:23"}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        LJ_CLEANUP(lj_freep) char *name = lj_known_hosts_name(rows[i].host, rows[i].port);
        assert_string_equal(name, rows[i].name);
    }
}

static void known_hosts(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    LJ_CLEANUP(lj_secret_free) lj_secret memory = LJ_SECRET_NONE;
    lj_hostkey key = key_of(KEY_A, &memory);
    const struct {
        const char *text;
        const char *name;
        lj_known_result result;
        unsigned line;
    } rows[] = {
        {"", "example.org", LJ_KNOWN_NOT, 0},
        {"\n\n# example.org ssh-ed25519 " KEY_A "\n", "example.org", LJ_KNOWN_NOT, 0},
        {"example.org ssh-ed25519 " KEY_A, "example.org", LJ_KNOWN_YES, 1},
        {"example.org ssh-ed25519 " KEY_A " root@x\n", "example.org", LJ_KNOWN_YES, 1},
        {"Example.Org\tssh-ed25519\t" KEY_A "\r\n", "example.org", LJ_KNOWN_YES, 1},
        {"  example.org ssh-ed25519 " KEY_A "\n", "example.org", LJ_KNOWN_YES, 1},
        {"example.org.evil ssh-ed25519 " KEY_A "\n", "example.org", LJ_KNOWN_NOT, 0},
        {"xexample.org ssh-ed25519 " KEY_A "\n", "example.org", LJ_KNOWN_NOT, 0},
        {"example.org ssh-ed25519 " KEY_A "A\n", "example.org", LJ_KNOWN_CHANGED, 1},
        {"other ssh-ed25519 " KEY_B "\nexample.org ssh-ed25519 " KEY_B "\n", "example.org",
         LJ_KNOWN_CHANGED, 2},
        /* any line with the key is enough */
        {"example.org ssh-ed25519 " KEY_B "\nexample.org ssh-ed25519 " KEY_A "\n", "example.org",
         LJ_KNOWN_YES, 2},
        {"example.org ecdsa-sha2-nistp256 " KEY_E "\n", "example.org", LJ_KNOWN_OTHER_TYPE, 1},
        {"example.org ecdsa-sha2-nistp256 " KEY_E "\nexample.org ssh-ed25519 " KEY_B "\n",
         "example.org", LJ_KNOWN_CHANGED, 2},
        /* lists and patterns */
        {"a.org,example.org,10.0.0.1 ssh-ed25519 " KEY_A "\n", "10.0.0.1", LJ_KNOWN_YES, 1},
        {"*.org ssh-ed25519 " KEY_A "\n", "example.org", LJ_KNOWN_YES, 1},
        {"exampl?.o*g ssh-ed25519 " KEY_A "\n", "example.org", LJ_KNOWN_YES, 1},
        {"*.org,!example.org ssh-ed25519 " KEY_A "\n", "example.org", LJ_KNOWN_NOT, 0},
        {"!example.org,*.org ssh-ed25519 " KEY_A "\n", "other.org", LJ_KNOWN_YES, 1},
        {"a*a*a*a*a*a*a*b ssh-ed25519 " KEY_A "\n", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
         LJ_KNOWN_NOT, 0},
        {"[example.org]:2222 ssh-ed25519 " KEY_A "\n", "[example.org]:2222", LJ_KNOWN_YES, 1},
        {"[example.org]:2222 ssh-ed25519 " KEY_A "\n", "example.org", LJ_KNOWN_NOT, 0},
        {"example.org ssh-ed25519 " KEY_A "\n", "[example.org]:2222", LJ_KNOWN_NOT, 0},
        /* hashes */
        {HASHED " ssh-ed25519 " KEY_A "\n", "example.org", LJ_KNOWN_YES, 1},
        {HASHED " ssh-ed25519 " KEY_B "\n", "example.org", LJ_KNOWN_CHANGED, 1},
        {HASHED " ssh-ed25519 " KEY_A "\n", "example.net", LJ_KNOWN_NOT, 0},
        {HASHED_PORT " ssh-ed25519 " KEY_A "\n", "[example.org]:2222", LJ_KNOWN_YES, 1},
        {"|1|x ssh-ed25519 " KEY_A "\n|1|| ssh-ed25519 " KEY_A "\n|2|a|b ssh-ed25519 " KEY_A "\n",
         "example.org", LJ_KNOWN_NOT, 0},
        /* markers */
        {"@cert-authority * ssh-ed25519 " KEY_A "\n", "example.org", LJ_KNOWN_NOT, 0},
        {"example.org ssh-ed25519 " KEY_A "\n@revoked * ssh-ed25519 " KEY_A "\n", "example.org",
         LJ_KNOWN_REVOKED, 2},
        {"@revoked * ssh-ed25519 " KEY_B "\n", "example.org", LJ_KNOWN_NOT, 0},
        /* broken lines */
        {"example.org\nexample.org ssh-ed25519\nexample.org ssh-ed25519 \n", "example.org",
         LJ_KNOWN_CHANGED, 2},
        {"example.org ssh-ed25519 !!!\n", "example.org", LJ_KNOWN_CHANGED, 1},
    };
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        lj_known known;
        assert_ok(lj_known_hosts_find(rows[i].text, rows[i].name, &key, &known, &err), &err);
        if (known.result != rows[i].result || known.line != rows[i].line)
            fail_msg("row %zu (%s): result %d in line %u", i, rows[i].text, (int)known.result,
                     known.line);
    }
    lj_known known;
    assert_ok(lj_known_hosts_find("example.org ssh-ed25519 " KEY_B "\n", "example.org", &key,
                                  &known, &err),
              &err);
    assert_string_equal(known.type, "ssh-ed25519");
    assert_string_equal(known.fingerprint, FP_B);
}

static void kinds(void **state)
{
    (void)state;
    const char *text = "example.org ecdsa-sha2-nistp256 " KEY_E "\n" HASHED " ssh-ed25519 " KEY_A
                       "\nother.org ssh-rsa AAAA\n@revoked example.org ssh-rsa AAAA\n";
    assert_int_equal(lj_known_hosts_kinds(text, "example.org"),
                     LJ_HOSTKEY_ED25519 | LJ_HOSTKEY_ECDSA);
    assert_int_equal(lj_known_hosts_kinds(text, "other.org"), LJ_HOSTKEY_RSA);
    assert_int_equal(lj_known_hosts_kinds(text, "nobody.org"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(types_and_fingerprints),
        cmocka_unit_test(pins),
        cmocka_unit_test(names),
        cmocka_unit_test(known_hosts),
        cmocka_unit_test(kinds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
