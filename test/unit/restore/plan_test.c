/*
 * plan_test.c - which generation, snapshot and segments a target gives, as tables. Objects are written down as text:
 * "S2@30" a snapshot of index 2 created at 30, "W1+4152@25" a segment. A property test checks every target against a
 * slow model.
 */
#include "test/unit/unit.h"

#include "vfs/base/str.h"
#include "vfs/restore/plan.h"

#define A "00000000000000aa"
#define B "00000000000000bb"
#define C "00000000000000cc"

typedef struct {
    const char *generation;
    const char *objects; /* separated by spaces */
} content;

#define GENERATIONS_MAX 4

typedef struct {
    lj_inventory inventory;
    lj_generation_info generations[GENERATIONS_MAX];
    lj_snapshot_info snapshots[GENERATIONS_MAX][32];
    lj_segment_info segments[GENERATIONS_MAX][64];
} made;

/* The number behind `mark`, which must stand there. */
static uint64_t take_number(const char **at, char mark)
{
    char *end = NULL;
    assert_int_equal(**at, mark);
    uint64_t value = strtoull(*at + 1, &end, 10);
    assert_ptr_not_equal(end, *at + 1);
    *at = end;
    return value;
}

static void add_object(lj_generation_info *g, const char *text)
{
    bool snapshot = text[0] == 'S';
    uint32_t index = (uint32_t)take_number(&text, snapshot ? 'S' : 'W');
    uint64_t offset = snapshot ? 0 : take_number(&text, '+');
    int64_t created = (int64_t)take_number(&text, '@');
    if (snapshot)
        g->snapshots[g->snapshot_count++] =
            (lj_snapshot_info){.index = index, .size_bytes = 10, .created_ns = created};
    else
        g->segments[g->segment_count++] = (lj_segment_info){
            .index = index, .offset = offset, .size_bytes = 1, .created_ns = created};
    g->created_ns = LJ_MIN(g->created_ns, created);
    g->updated_ns = LJ_MAX(g->updated_ns, created);
}

static int by_end(const void *a, const void *b)
{
    const lj_generation_info *ga = a;
    const lj_generation_info *gb = b;
    return (ga->updated_ns > gb->updated_ns) - (ga->updated_ns < gb->updated_ns);
}

/* Objects must be written in ascending order; that lj_inventory_read sorts is inventory_test's business. */
static void make(made *m, const content *contents, size_t count)
{
    memset(m, 0, sizeof(*m));
    m->inventory.generations = m->generations;
    for (size_t i = 0; i < count && contents[i].generation != NULL; i++) {
        lj_generation_info *g = &m->generations[i];
        snprintf(g->generation, sizeof(g->generation), "%s", contents[i].generation);
        g->snapshots = m->snapshots[i];
        g->segments = m->segments[i];
        g->created_ns = INT64_MAX;
        char *text = strdup(contents[i].objects);
        char *rest = text;
        for (char *word; (word = strsep(&rest, " ")) != NULL;)
            if (word[0] != 0)
                add_object(g, word);
        free(text);
        m->inventory.generation_count++;
    }
    qsort(m->generations, m->inventory.generation_count, sizeof(m->generations[0]), by_end);
}

/* "aa S2 W2+0..W3+4152": generation, snapshot, first and last segment. */
static void describe(const lj_plan_choice *choice, char out[96])
{
    int n =
        snprintf(out, 96, "%s S%u", choice->generation->generation + 14, choice->snapshot.index);
    if (choice->segment_count > 0) {
        const lj_segment_info *last = &choice->segments[choice->segment_count - 1];
        snprintf(out + n, 96 - (size_t)n, " W%u+%llu..W%u+%llu", choice->segments[0].index,
                 (unsigned long long)choice->segments[0].offset, last->index,
                 (unsigned long long)last->offset);
    }
}

#define NO_INDEX (-1)

typedef struct {
    const char *what;
    content contents[3];
    const char *generation;
    int64_t timestamp;
    int64_t index;
    lj_code code;
    const char *expected; /* description, or a part of the message */
    const char *hint;     /* a part of it, NULL = not looked at */
} row;

#define SIMPLE "S0@10 W0+0@11 W0+4152@15 W1+0@20 W1+4152@22 S2@30 W2+0@31 W2+4152@40"

/* A row is easier to read in one piece. */
/* clang-format off */
static const row rows[] = {
    /* targets in one generation */
    {"newest", {{A, SIMPLE}}, NULL, 0, NO_INDEX, LJ_OK, "aa S2 W2+0..W2+4152", NULL},
    {"the first snapshot's time", {{A, SIMPLE}}, NULL, 10, NO_INDEX, LJ_OK, "aa S0", NULL},
    {"before the first snapshot", {{A, SIMPLE}},
     NULL, 9, NO_INDEX, LJ_NOTFOUND, "no matching backups found", "oldest time"},
    {"between segments", {{A, SIMPLE}}, NULL, 21, NO_INDEX, LJ_OK, "aa S0 W0+0..W1+0", NULL},
    {"exactly a segment", {{A, SIMPLE}}, NULL, 22, NO_INDEX, LJ_OK, "aa S0 W0+0..W1+4152", NULL},
    {"exactly a snapshot", {{A, SIMPLE}}, NULL, 30, NO_INDEX, LJ_OK, "aa S2", NULL},
    {"A3.8 behind the last object", {{A, SIMPLE}}, NULL, 999999, NO_INDEX, LJ_OK, "aa S2 W2+0..W2+4152", NULL},
    {"A3.6 index below the newest snapshot", {{A, SIMPLE}}, NULL, 0, 1, LJ_OK, "aa S0 W0+0..W1+4152", NULL},
    {"index 0", {{A, SIMPLE}}, NULL, 0, 0, LJ_OK, "aa S0 W0+0..W0+4152", NULL},
    {"index of a snapshot", {{A, SIMPLE}}, NULL, 0, 2, LJ_OK, "aa S2 W2+0..W2+4152", NULL},
    {"index above all", {{A, SIMPLE}}, NULL, 0, 77, LJ_OK, "aa S2 W2+0..W2+4152", NULL},
    {"index below the first snapshot", {{A, "S3@10 W3+0@11"}},
     NULL, 0, 2, LJ_NOTFOUND, "no matching backups found", "no snapshot is at or below"},
    {"index and timestamp", {{A, SIMPLE}}, NULL, 20, 1, LJ_INVALID, "cannot specify index & timestamp", NULL},
    /* WAL that is not there, or too old */
    {"A3.5 snapshot only", {{A, "S0@10"}}, NULL, 0, NO_INDEX, LJ_OK, "aa S0", NULL},
    {"A3.4 WAL ends far below the snapshot", {{A, "W1+0@5 S7@10"}}, NULL, 0, NO_INDEX, LJ_OK, "aa S7", NULL},
    {"WAL ends just below the snapshot", {{A, "W6+0@5 W6+4152@6 S7@10"}}, NULL, 0, NO_INDEX, LJ_OK, "aa S7", NULL},
    {"A3.2 stray below the snapshot without its start", {{A, "W6+4152@5 S7@10 W7+0@11"}},
     NULL, 0, NO_INDEX, LJ_OK, "aa S7 W7+0..W7+0", NULL},
    {"stray far below", {{A, "W1+9999@5 S7@10 W7+0@11"}}, NULL, 0, NO_INDEX, LJ_OK, "aa S7 W7+0..W7+0", NULL},
    {"a late stray below the snapshot does not cut the target", {{A, "W6+4152@50 S7@10 W7+0@11"}},
     NULL, 20, NO_INDEX, LJ_OK, "aa S7 W7+0..W7+0", NULL},
    {"stop at the first later one", {{A, "S0@10 W0+0@11 W0+4152@30 W0+8272@12"}},
     NULL, 20, NO_INDEX, LJ_OK, "aa S0 W0+0..W0+0", NULL},
    {"A3.21 the last indexes there are", {{A, "S2147483646@10 W2147483646+0@11 W2147483647+0@12"}},
     NULL, 0, NO_INDEX, LJ_OK, "aa S2147483646 W2147483646+0..W2147483647+0", NULL},
    /* holes */
    {"missing index", {{A, "S0@10 W0+0@11 W2+0@20"}},
     NULL, 0, NO_INDEX, LJ_GAP, "missing WAL index: " A "/00000001", "-index 00000000"},
    {"a hole behind the target is none", {{A, "S0@10 W0+0@11 W2+0@20"}},
     NULL, 15, NO_INDEX, LJ_OK, "aa S0 W0+0..W0+0", NULL},
    {"a hole behind the index is none", {{A, "S0@10 W0+0@11 W2+0@20"}}, NULL, 0, 1, LJ_OK, "aa S0 W0+0..W0+0", NULL},
    {"a hole before a newer snapshot is none", {{A, "S0@10 W0+0@11 W2+0@20 S2@19"}},
     NULL, 0, NO_INDEX, LJ_OK, "aa S2 W2+0..W2+0", NULL},
    {"A3.1 missing start", {{A, "S0@10 W0+0@11 W1+4152@20"}},
     NULL, 0, NO_INDEX, LJ_GAP, "missing initial wal segment: generation=" A " index=00000001 offset=4152",
     "-timestamp 1970-01-01T00:00:00.000000011Z"},
    {"missing start of the snapshot's index", {{A, "S3@10 W3+4152@20"}},
     NULL, 0, NO_INDEX, LJ_GAP, "index=00000003 offset=4152", "-timestamp 1970-01-01T00:00:00.000000010Z"},
    {"WAL begins behind the snapshot", {{A, "S3@10 W4+0@20"}},
     NULL, 0, NO_INDEX, LJ_GAP, "missing WAL index: " A "/00000003", "-index 00000003"},
    {"a hole with nothing before it", {{A, "S3@10 W3+4152@10"}, {B, "S0@1 W0+0@2"}},
     NULL, 0, NO_INDEX, LJ_GAP, "index=00000003 offset=4152", "-generation " B},
    {"a hole and nothing else", {{A, "S3@10 W3+4152@10"}},
     NULL, 0, NO_INDEX, LJ_GAP, "index=00000003 offset=4152", "nothing before it"},
    /* snapshots by time */
    {"ties prefer the higher index", {{A, "S0@10 S1@10 W0+0@10 W1+0@10"}},
     NULL, 10, NO_INDEX, LJ_OK, "aa S1 W1+0..W1+0", NULL},
    {"ties without a time", {{A, "S0@10 S1@10 W0+0@10 W1+0@10"}}, NULL, 0, NO_INDEX, LJ_OK, "aa S1 W1+0..W1+0", NULL},
    {"A3.7 copied with fresh times", {{A, "S0@99 W0+0@98 S1@50 W1+0@51"}},
     NULL, 0, NO_INDEX, LJ_OK, "aa S1 W1+0..W1+0", NULL},
    /* generations */
    {"the newest generation", {{A, SIMPLE}, {B, "S0@100 W0+0@101"}},
     NULL, 0, NO_INDEX, LJ_OK, "bb S0 W0+0..W0+0", NULL},
    {"a named generation", {{A, SIMPLE}, {B, "S0@100 W0+0@101"}}, A, 0, NO_INDEX, LJ_OK, "aa S2 W2+0..W2+4152", NULL},
    {"an unknown generation", {{A, SIMPLE}},
     C, 0, NO_INDEX, LJ_NOTFOUND, "no matching backups found", "no such generation"},
    {"not a generation", {{A, SIMPLE}}, "AA", 0, NO_INDEX, LJ_INVALID, "\"AA\"", "16"},
    {"the gap between two generations", {{A, SIMPLE}, {B, "S0@100 W0+0@101"}},
     NULL, 70, NO_INDEX, LJ_OK, "aa S2 W2+0..W2+4152", NULL},
    {"the beginning of the second", {{A, SIMPLE}, {B, "S0@100 W0+0@101"}}, NULL, 100, NO_INDEX, LJ_OK, "bb S0", NULL},
    {"inside the first", {{A, SIMPLE}, {B, "S0@100 W0+0@101"}},
     NULL, 23, NO_INDEX, LJ_OK, "aa S0 W0+0..W1+4152", NULL},
    {"A3.18 the newest has no snapshot", {{A, SIMPLE}, {B, "W0+0@101"}},
     NULL, 0, NO_INDEX, LJ_OK, "aa S2 W2+0..W2+4152", NULL},
    {"no snapshot anywhere", {{A, "W0+0@10"}}, NULL, 0, NO_INDEX, LJ_GAP, "no snapshots available", NULL},
    {"the named one has no snapshot", {{A, SIMPLE}, {B, "W0+0@101"}},
     B, 0, NO_INDEX, LJ_GAP, "no snapshots available", NULL},
    {"an index does not choose a generation", {{A, SIMPLE}, {B, "S5@100 W5+0@101"}},
     NULL, 0, 1, LJ_NOTFOUND, "no matching backups found", NULL},
    {"nothing at all", {{0}}, NULL, 0, NO_INDEX, LJ_NOTFOUND, "no matching backups found", "check its URL"},
};
/* clang-format on */

static void table(void **state)
{
    (void)state;
    for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++) {
        const row *r = &rows[i];
        static made m;
        make(&m, r->contents, LJ_ARRAY_LEN(r->contents));
        lj_restore_options options = {
            .generation = r->generation,
            .timestamp_ns = r->timestamp,
            .has_index = r->index != NO_INDEX,
            .index = r->index == NO_INDEX ? 0 : (uint32_t)r->index,
        };
        lj_plan_choice choice = {.generation = NULL};
        lj_error err = LJ_ERROR_INIT;
        lj_code code = lj_plan_choose(&m.inventory, &options, &choice, &err);
        if (code != r->code)
            fail_msg("%s: %s (%s)", r->what, lj_code_text(code), err.message);
        char got[96] = "";
        if (code == LJ_OK)
            describe(&choice, got);
        if (code == LJ_OK ? strcmp(got, r->expected) != 0
                          : strstr(err.message, r->expected) == NULL)
            fail_msg("%s: got \"%s\" \"%s\", expected \"%s\"", r->what, got, err.message,
                     r->expected);
        if (r->hint != NULL && strstr(err.hint, r->hint) == NULL)
            fail_msg("%s: hint \"%s\" lacks \"%s\"", r->what, err.hint, r->hint);
    }
}

/* Ten indexes of five segments, snapshots at 0, 3 and 7: every time and every index against a plain scan. */
static void every_target(void **state)
{
    (void)state;
    char text[4096] = "";
    size_t n = 0;
    int64_t time = 100;
    static int64_t created[10][5];
    static int64_t snapshot_at[10];
    for (unsigned index = 0; index < 10; index++) {
        if (index % 4 == 3 || index == 0) {
            snapshot_at[index] = ++time;
            n += (size_t)snprintf(text + n, sizeof(text) - n, "S%u@%lld ", index, (long long)time);
        }
        for (unsigned k = 0; k < 5; k++) {
            time += 1 + (index * 7 + k) % 3;
            created[index][k] = time;
            n += (size_t)snprintf(text + n, sizeof(text) - n, "W%u+%u@%lld ", index,
                                  k == 0 ? 0 : 32 + k * 4120, (long long)time);
        }
    }
    static made m;
    make(&m, &(content){A, text}, 1);
    for (int64_t t = 101; t < time + 20; t++) {
        int snapshot = 0;
        char expected[96];
        for (int i = 0; i < 10; i++)
            if (snapshot_at[i] != 0 && snapshot_at[i] <= t)
                snapshot = i;
        int last_index = -1;
        int last_k = 0;
        for (int i = snapshot; i < 10; i++)
            for (int k = 0; k < 5; k++)
                if (created[i][k] <= t) {
                    last_index = i;
                    last_k = k;
                }
        if (last_index < 0)
            snprintf(expected, sizeof(expected), "aa S%d", snapshot);
        else
            snprintf(expected, sizeof(expected), "aa S%d W%d+0..W%d+%d", snapshot, snapshot,
                     last_index, last_k == 0 ? 0 : 32 + last_k * 4120);
        lj_restore_options options = {.timestamp_ns = t};
        lj_plan_choice choice = {.generation = NULL};
        lj_error err = LJ_ERROR_INIT;
        char got[96];
        assert_ok(lj_plan_choose(&m.inventory, &options, &choice, &err), &err);
        describe(&choice, got);
        assert_string_equal(got, expected);
        assert_int_equal(choice.at_end, t >= time);
        assert_true(lj_plan_time(&choice) <= t);
    }
    for (uint32_t index = 0; index < 20; index++) {
        unsigned last = LJ_MIN(index, 9u);
        unsigned snapshot = last >= 7 ? 7 : last >= 3 ? 3 : 0;
        lj_restore_options options = {.has_index = true, .index = index};
        lj_plan_choice choice = {.generation = NULL};
        lj_error err = LJ_ERROR_INIT;
        char got[96];
        char expected[96];
        assert_ok(lj_plan_choose(&m.inventory, &options, &choice, &err), &err);
        describe(&choice, got);
        snprintf(expected, sizeof(expected), "aa S%u W%u+0..W%u+%d", snapshot, snapshot, last,
                 32 + 4 * 4120);
        assert_string_equal(got, expected);
        assert_int_equal(choice.at_end, index >= 9);
    }
}

/* Takes the flags out of a hint and plans with them. */
static bool follow_hint(const lj_inventory *inventory, const char *hint, lj_plan_choice *ret_choice)
{
    char generation[LJ_GENERATION_MAX] = "";
    lj_restore_options options = {.generation = generation};
    const char *at = strstr(hint, "-generation ");
    if (at == NULL)
        return false;
    memcpy(generation, at + strlen("-generation "), 16);
    if ((at = strstr(hint, "-index ")) != NULL) {
        options.has_index = true;
        options.index = (uint32_t)strtoul(at + 7, NULL, 16);
    }
    if ((at = strstr(hint, "-timestamp 1970-01-01T00:00:00.")) != NULL)
        options.timestamp_ns = strtol(at + strlen("-timestamp 1970-01-01T00:00:00."), NULL, 10);
    if ((at = strstr(hint, "-snapshot ")) != NULL) {
        options.has_snapshot = true;
        options.snapshot_index = (uint32_t)strtoul(at + 10, NULL, 16);
    }
    return lj_plan_choose(inventory, &options, ret_choice, NULL) == LJ_OK;
}

/* Whatever segment turns out bad, the hint leads to exactly what stands before it. */
static void hints_lead_somewhere(void **state)
{
    (void)state;
    static made m;
    make(&m, &(content){A, SIMPLE " W3+0@41 W3+4152@42 W3+8272@42"}, 1);
    const lj_generation_info *g = &m.generations[0];
    for (size_t i = 4; i < g->segment_count; i++) {
        lj_error err = LJ_ERROR_INIT;
        lj_plan_choice choice = {.generation = NULL};
        lj_error_set(&err, LJ_CORRUPT, "bad");
        lj_plan_hint_segment(&m.inventory, g, &g->segments[i], &err);
        if (!follow_hint(&m.inventory, err.hint, &choice))
            fail_msg("segment %zu: useless hint \"%s\"", i, err.hint);
        const lj_segment_info *end = choice.segments + choice.segment_count;
        /* equal times cannot be told apart: one more is lost */
        size_t lost = g->segments[i - 1].created_ns == g->segments[i].created_ns ? 1 : 0;
        if (i == 4) /* behind the snapshot: the end of the index before is the same state */
            assert_true(end == &g->segments[4]);
        else
            assert_true(end == &g->segments[i - lost]);
    }
    lj_error err = LJ_ERROR_INIT;
    lj_plan_choice choice = {.generation = NULL};
    lj_restore_options options = {0};
    lj_error_set(&err, LJ_CORRUPT, "bad");
    lj_plan_hint_snapshot(&m.inventory, &options, g, &g->snapshots[1], &err);
    assert_true(follow_hint(&m.inventory, err.hint, &choice));
    assert_int_equal(choice.snapshot.index, 0);
    assert_true(choice.segments + choice.segment_count == g->segments + g->segment_count);
    lj_plan_hint_snapshot(&m.inventory, &options, g, &g->snapshots[0], &err);
    assert_non_null(strstr(err.hint, "nothing before it"));
}

static void skipped_generation_is_named(void **state)
{
    (void)state;
    static made m;
    content contents[] = {{A, SIMPLE}, {B, "W0+0@101"}, {C, "W0+0@5"}};
    make(&m, contents, 3);
    lj_restore_options options = {0};
    lj_plan_choice choice = {.generation = NULL};
    lj_error err = LJ_ERROR_INIT;
    assert_ok(lj_plan_choose(&m.inventory, &options, &choice, &err), &err);
    assert_string_equal(choice.skipped, B);
    options.timestamp_ns = 50;
    assert_ok(lj_plan_choose(&m.inventory, &options, &choice, &err), &err);
    assert_null(choice.skipped);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table),
        cmocka_unit_test(every_target),
        cmocka_unit_test(hints_lead_somewhere),
        cmocka_unit_test(skipped_generation_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
