/* yaml_test.c - litejoin.yaml: what is read, what is left alone, what is refused, and that nothing makes it crash. */
#include "test/unit/unit.h"

#include <sys/stat.h>

#include "test/unit/config/config_kit.h"
#include "vfs/base/io.h"
#include "vfs/base/str.h"

static const char engine_yaml[] = "# the engine's own\n"
                                  "shards: 4\n"
                                  "LITEJOIN: {a: [1, 2, {b: c}]}\n"
                                  "defaults: &d {replication: {nonsense: 1}, enabled: x}\n"
                                  "other: *d\n"
                                  "? [complex, key]\n"
                                  ": !!map {<<: *d}\n"
                                  "streams:\n"
                                  "  - name: a\n"
                                  "    replication: maybe\n"
                                  "  - &d name\n"
                                  "replication:\n"
                                  "  enabled: yes\n"
                                  "  mode: 'embedded'   # a comment\n"
                                  "  \"replica_url\": file:///backup/state\n"
                                  "  sync_interval: 500ms\n"
                                  "  restore_on_boot: off\n"
                                  "  snapshot_interval: 1h30m\n"
                                  "  retention: 24h\n"
                                  "  max_wal_size: !!str 64MiB\n"
                                  "tail: |\n"
                                  "  replication:\n"
                                  "    bad: 1\n";

static void reads_only_its_block(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_config config;
    lj_config_init(&config);
    assert_ok(kit_load_yaml(&config, engine_yaml, &err), &err);
    assert_true(config.enabled);
    assert_int_equal(config.mode, LJ_MODE_EMBEDDED);
    assert_string_equal(config.replica_url, "file:///backup/state");
    assert_int_equal(config.replica_url_origin, LJ_ORIGIN_FILE);
    assert_int_equal(config.sync_interval_ns, 500 * LJ_NS_PER_MS);
    assert_false(config.restore_on_boot);
    assert_int_equal(config.snapshot_interval_ns, 5400 * LJ_NS_PER_S);
    assert_int_equal(config.max_wal_size_bytes, 64 << 20);
    assert_ok(lj_config_finish(&config, &err), &err);
    assert_true(lj_config_embedded(&config));
    lj_config_clear(&config);
}

static void no_block_sets_nothing(void **state)
{
    (void)state;
    static const char *const texts[] = {"",
                                        "# nothing\n",
                                        "---\n...\n",
                                        "just text\n",
                                        "- a\n- list\n",
                                        "shards: 4\n",
                                        "replication:\n",
                                        "replication: ~\n",
                                        "replication: {}\n",
                                        "Replication: {enabled: maybe}\n",
                                        "a: {replication: {enabled: maybe}}\n",
                                        "[replication, {replication: 1}]\n",
                                        "? {replication: 1}\n: 2\n"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(texts); i++) {
        lj_error err = LJ_ERROR_INIT;
        lj_config config;
        lj_config fresh;
        lj_config_init(&config);
        lj_config_init(&fresh);
        assert_ok(kit_load_yaml(&config, texts[i], &err), &err);
        assert_memory_equal(&config, &fresh, sizeof(config));
        lj_config_clear(&config);
    }
}

#define NAMES                                                                                      \
    "enabled, mode, replica_url, sync_interval, restore_on_boot, snapshot_interval, retention, "   \
    "max_wal_size, max_spool_size, shutdown_timeout, io_timeout, upload_workers, "                 \
    "fsync_before_ship, auto_wal, guard, durability, remote_timeout, remote_on_failure, "          \
    "log_level, log_file, base_vfs"

/* Message behind the file's name, and hint. */
static const struct {
    const char *yaml;
    const char *message;
    const char *hint;
} refused[] = {
    {"a: 1\nreplication:\n  sync_intervall: 1s\n",
     ":3: replication.sync_intervall = \"1s\" is not an option; allowed: " NAMES,
     "did you mean sync_interval?"},
    {"replication: {Max-WAL-size: 1}\n",
     ":1: replication.Max-WAL-size = \"1\" is not an option; allowed: " NAMES,
     "did you mean max_wal_size?"},
    {"replication:\n  bucket: {a: b}\n",
     ":2: replication.bucket = \"a mapping\" is not an option; allowed: " NAMES, ""},
    {"replication:\n  secret_access_key: hunter2\n",
     ":2: replication.secret_access_key = \"***\" is not an option; allowed: " NAMES, ""},
    {"replication:\n  <<: {enabled: true}\n",
     ":2: replication.<< = \"a mapping\" is not an option; allowed: " NAMES, ""},
    {"replication:\n  retention: 1h\n\n  retention: 2h\n",
     ":4: replication.retention is there twice; allowed: once", "remove one of the two lines"},
    {"replication: {}\nb: 1\nreplication:\n  enabled: true\n",
     ":4: the block replication: is there twice; allowed: once", ""},
    {"replication: {}\n---\nreplication: {}\n",
     ":3: the block replication: is there twice; allowed: once", ""},
    {"replication: on\n",
     ":1: replication = \"on\" is no block; allowed: lines like 'replica_url: file:///path', "
     "indented below it",
     ""},
    {"replication:\n- enabled: true\n",
     ":2: replication = \"a list\" is no block; allowed: lines like 'replica_url: file:///path', "
     "indented below it",
     ""},
    {"x: &x {}\nreplication: *x\n",
     ":2: replication = \"an alias\" is no block; allowed: lines like 'replica_url: file:///path', "
     "indented below it",
     ""},
    {"replication:\n  sync_interval: 5x\n",
     ":2: replication.sync_interval = \"5x\" is not a duration; allowed: 1ms to 24h",
     "write it like 500ms, 1s, 1h30m"},
    {"replication:\n  sync_interval: 48h\n",
     ":2: replication.sync_interval = \"48h\" is out of range; allowed: 1ms to 24h",
     "write it like 500ms, 1s, 1h30m"},
    {"replication:\n  sync_interval:\n",
     ":2: replication.sync_interval is empty; allowed: 1ms to 24h",
     "write one value behind the colon, or remove the line"},
    {"replication:\n  sync_interval: [1s]\n",
     ":2: replication.sync_interval is a list; allowed: 1ms to 24h",
     "write one value behind the colon, or remove the line"},
    {"a: &a 1s\nreplication:\n  sync_interval: *a\n",
     ":3: replication.sync_interval is an alias; allowed: 1ms to 24h",
     "write one value behind the colon, or remove the line"},
    {"replication:\n  log_file: \"a\\0b\"\n",
     ":2: replication.log_file is no text; allowed: a path",
     "write one value behind the colon, or remove the line"},
    {"replication:\n  \"a\\0b\": 1\n",
     ":2: a key in replication: is no text; allowed: the name of an option", ""},
    {"replication:\n  [enabled]: 1\n",
     ":2: a key in replication: is a list; allowed: the name of an option", ""},
    {"replication:\n  enabled: maybe\n",
     ":2: replication.enabled = \"maybe\" is not a bool; allowed: true, false, yes, no, on, off, "
     "1, 0",
     ""},
    {"replication:\n  mode: both\n",
     ":2: replication.mode = \"both\" is none of them; allowed: sidecar, embedded", ""},
    {"replication:\n  max_wal_size: lots\n",
     ":2: replication.max_wal_size = \"lots\" is not a size; allowed: 0 to 1024GiB",
     "write it like 512KiB, 64MiB, 1GiB, or as a number of bytes"},
    {"replication:\n  upload_workers: 100\n",
     ":2: replication.upload_workers = \"100\" is out of range; allowed: 1 to 64", ""},
    {"replication:\n  upload_workers: many\n",
     ":2: replication.upload_workers = \"many\" is not a number; allowed: 1 to 64", ""},
    {"replication:\n  replica_name: x\n",
     ":2: replication.replica_name = \"x\" cannot be set here; allowed: URI only",
     "replica_name: Last part of the replica's URL, for this database."},
    {"replication:\n  default_vfs: true\n",
     ":2: replication.default_vfs = \"true\" cannot be set here; allowed: environment, C API",
     "default_vfs: Be the default VFS of the process, for hosts that cannot name one."},
    {"replication:\n  replica_url: /backup\n",
     ":2: replication.replica_url = \"/backup\" has no scheme; allowed: a URL with a scheme and "
     "without secrets, e.g. file:///path",
     "write a folder as file:///path"},
    {"replication:\n  replica_url: s3://id:pw@bucket/x\n",
     ":2: replication.replica_url = \"s3://***\" has a password in it; allowed: a URL with a "
     "scheme "
     "and without secrets, e.g. file:///path",
     "secrets never go into a URL: give them in the environment or in a file"},
};

static void refuses_with_line_key_and_value(void **state)
{
    (void)state;
    for (size_t i = 0; i < LJ_ARRAY_LEN(refused); i++) {
        lj_error err = LJ_ERROR_INIT;
        lj_config config;
        lj_config fresh;
        lj_config_init(&config);
        lj_config_init(&fresh);
        assert_int_equal(kit_load_yaml(&config, refused[i].yaml, &err), LJ_INVALID);
        assert_true(lj_str_starts(err.message, "/tmp/lj-config-"));
        const char *message = strchr(err.message, ':');
        assert_non_null(message);
        assert_string_equal(message, refused[i].message);
        assert_string_equal(err.hint, refused[i].hint);
        assert_memory_equal(&config, &fresh, sizeof(config)); /* untouched */
        lj_config_clear(&config);
    }
}

static void refuses_what_is_not_yaml(void **state)
{
    (void)state;
    static const struct {
        const char *yaml;
        const char *where;
    } rows[] = {{"a: [1\n", ":2: not well-formed YAML: "},
                {"replication:\n\tenabled: true\n", ":2: not well-formed YAML: "},
                {"replication: {enabled: true}\n}\n", ":2: not well-formed YAML: "},
                {"replication: {enabled: true}\n---\n\"open\n", "not well-formed YAML: "},
                {"replication: {}\nb: \xff\xfe\n", "not well-formed YAML: "},
                {"a: b: c\n", ":1: not well-formed YAML: "}};
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        lj_error err = LJ_ERROR_INIT;
        lj_config config;
        lj_config_init(&config);
        assert_int_equal(kit_load_yaml(&config, rows[i].yaml, &err), LJ_INVALID);
        if (strstr(err.message, rows[i].where) == NULL)
            fail_msg("row %zu: %s", i, err.message);
        assert_true(err.hint[0] != 0);
        assert_false(config.enabled);
        lj_config_clear(&config);
    }
}

static void unreadable_files(void **state)
{
    (void)state;
    lj_error err = LJ_ERROR_INIT;
    lj_config config;
    bool block = true;
    lj_config_init(&config);
    assert_int_equal(lj_config_load_yaml(&config, "/nonexistent/litejoin.yaml", &block, &err),
                     LJ_NOTFOUND);
    assert_non_null(strstr(err.message, "/nonexistent/litejoin.yaml"));
    assert_non_null(strstr(err.hint, "LITEJOIN_CONFIG"));
    assert_int_not_equal(lj_config_load_yaml(&config, "/tmp", &block, &err), LJ_OK);
    assert_non_null(strstr(err.message, "/tmp"));
    char *big = calloc(1, LJ_CONFIG_FILE_MAX + 2);
    assert_non_null(big);
    memset(big, '#', LJ_CONFIG_FILE_MAX + 1);
    assert_int_equal(kit_load_yaml(&config, big, &err), LJ_INVALID);
    free(big);
    lj_config_clear(&config);
}

static uint32_t next_random(uint32_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 17;
    *seed ^= *seed << 5;
    return *seed;
}

/* Cuts, repeats, swaps and inserts pieces of good files; whatever comes out is answered, never crashed on. */
static void survives_mangled_files(void **state)
{
    (void)state;
    static const char *const inserts[] = {"replication:",
                                          "  enabled: ",
                                          "&d ",
                                          "*d",
                                          "{",
                                          "}",
                                          "[",
                                          "]",
                                          "? ",
                                          ": ",
                                          "- ",
                                          "---\n",
                                          "...\n",
                                          "%YAML 1.1\n",
                                          "!!str ",
                                          "\"",
                                          "'",
                                          "|\n",
                                          "\t",
                                          "\xff",
                                          "\xef\xbb\xbf",
                                          "<<: ",
                                          "\n"};
    const char *count = getenv("LJ_FUZZ_ROUNDS");
    long rounds = count != NULL ? strtol(count, NULL, 10) : 3000;
    uint32_t seed = 20240607;
    int refused_count = 0;
    for (long round = 0; round < rounds; round++) {
        char text[4096];
        size_t len = sizeof(engine_yaml) - 1;
        memcpy(text, engine_yaml, len);
        for (uint32_t edits = next_random(&seed) % 6 + 1; edits > 0; edits--) {
            size_t at = next_random(&seed) % (len + 1);
            size_t n = next_random(&seed) % (LJ_MIN(len - at, 40u) + 1);
            const char *piece = inserts[next_random(&seed) % LJ_ARRAY_LEN(inserts)];
            switch (next_random(&seed) % 4) {
            case 0: /* cut */
                memmove(text + at, text + at + n, len - at - n);
                len -= n;
                break;
            case 1: /* repeat */
                memmove(text + at + n, text + at, len - at);
                len += n;
                break;
            case 2:
                memmove(text + at + strlen(piece), text + at, len - at);
                memcpy(text + at, piece, strlen(piece));
                len += strlen(piece);
                break;
            default:
                if (n > 0)
                    text[at] = (char)next_random(&seed);
            }
        }
        lj_error err = LJ_ERROR_INIT;
        lj_config config;
        lj_config_init(&config);
        lj_code code = lj_config_parse_yaml(&config, "mangled.yaml", text, len, &err);
        assert_true(code == LJ_OK || code == LJ_INVALID);
        assert_true(code == LJ_OK || err.message[0] != 0);
        refused_count += code != LJ_OK;
        lj_config_clear(&config);
    }
    assert_true(rounds < 100 || (refused_count > rounds / 10 && refused_count < rounds));
}

static void survives_deep_nesting(void **state)
{
    (void)state;
    static const char *const pieces[] = {"[", "{a: ", "- ", "? ", "[{"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(pieces); i++) {
        LJ_CLEANUP(lj_buf_free) lj_buf text = LJ_BUF_INIT(1 << 20);
        lj_error err = LJ_ERROR_INIT;
        for (int depth = 0; depth < 3000; depth++)
            assert_ok(lj_buf_printf(&text, &err, "%s", pieces[i]), &err);
        lj_config config;
        lj_config_init(&config);
        lj_code code =
            lj_config_parse_yaml(&config, "deep.yaml", lj_buf_text(&text), text.len, &err);
        assert_true(code == LJ_OK || code == LJ_INVALID);
        lj_config_clear(&config);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_only_its_block),
        cmocka_unit_test(no_block_sets_nothing),
        cmocka_unit_test(refuses_with_line_key_and_value),
        cmocka_unit_test(refuses_what_is_not_yaml),
        cmocka_unit_test(unreadable_files),
        cmocka_unit_test(survives_mangled_files),
        cmocka_unit_test(survives_deep_nesting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
