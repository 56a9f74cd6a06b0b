/*
 * fuzz_plan.c - what a restore chooses from a listing. The first four bytes are the question (newest, time, index, generation), then
 * each four an object: generation and kind, index, offset, time. What is chosen has no hole that the names show, and no more
 * than was asked for.
 */
#include "test/fuzz/fuzz.h"

#include <stdio.h>
#include <string.h>

#include "vfs/restore/plan.h"

#define OBJECT_BYTES 4u

typedef struct {
    const uint8_t *data;
    size_t size;
} listing;

static const char *const generations[] = {"0123456789abcdef", "fedcba9876543210",
                                          "00000000000000aa"};

static lj_code list(void *self, const char *prefix, const char *after, lj_storage_list_fn fn,
                    void *ctx, lj_error *err)
{
    const listing *l = self;
    (void)after;
    for (size_t at = 0; at + OBJECT_BYTES <= l->size; at += OBJECT_BYTES) {
        const uint8_t *object = l->data + at;
        char key[LJ_NAME_MAX];
        lj_position position = {.index = object[1] % 8, .offset = object[2]};
        memcpy(position.generation, generations[(object[0] >> 1) % 3], LJ_GENERATION_MAX);
        if ((object[0] & 1) != 0)
            lj_name_snapshot(position.generation, position.index, key);
        else
            lj_name_wal(&position, key);
        lj_storage_entry entry = {
            .key = key, .size_bytes = 7, .created_ns = 1000 + (int64_t)object[3]};
        if (strncmp(key, prefix, strlen(prefix)) == 0)
            LJ_TRY(fn(ctx, &entry, err));
    }
    return LJ_OK;
}

static void close_nothing(void *self)
{
    (void)self;
}

static void check_choice(const lj_plan_choice *choice, const lj_restore_options *options)
{
    uint32_t index = choice->snapshot.index;
    FUZZ_CHECK(!options->has_index || index <= options->index);
    FUZZ_CHECK(options->timestamp_ns == 0 || choice->snapshot.created_ns <= options->timestamp_ns);
    for (size_t i = 0; i < choice->segment_count; i++) {
        const lj_segment_info *segment = &choice->segments[i];
        bool begins = i == 0 || segment->index != choice->segments[i - 1].index;
        if (i > 0 && begins)
            index++;
        FUZZ_CHECK(segment->index == index);
        FUZZ_CHECK(!begins || segment->offset == 0);
        FUZZ_CHECK(begins || segment->offset > choice->segments[i - 1].offset);
        FUZZ_CHECK(!options->has_index || segment->index <= options->index);
        FUZZ_CHECK(options->timestamp_ns == 0 || segment->created_ns <= options->timestamp_ns);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const lj_storage_ops ops = {.name = "fuzz", .list = list, .close = close_nothing};
    if (size < 4)
        return 0;
    listing l = {.data = data + 4, .size = size - 4};
    lj_restore_options options = {.generation = NULL};
    if (data[0] % 3 == 1)
        options.timestamp_ns = 1000 + data[1];
    options.has_index = data[0] % 3 == 2;
    options.index = data[1] % 9;
    options.has_snapshot = data[2] != 0;
    options.snapshot_index = data[2] % 9;
    if (data[3] != 0)
        options.generation = generations[data[3] % 3];
    lj_error err = LJ_ERROR_INIT;
    lj_storage *storage = NULL;
    lj_restore_plan *plan = NULL;
    if (lj_storage_wrap(&ops, &l, "fuzz://listing", &storage, &err) != LJ_OK)
        return 0;
    if (lj_restore_plan_make(storage, &options, &plan, &err) == LJ_OK) {
        check_choice(&plan->choice, &options);
    } else {
        FUZZ_CHECK(err.code == LJ_NOTFOUND || err.code == LJ_GAP);
        FUZZ_CHECK(err.message[0] != 0 && err.hint[0] != 0);
    }
    lj_restore_plan_free(plan);
    lj_storage_close(storage);
    return 0;
}
