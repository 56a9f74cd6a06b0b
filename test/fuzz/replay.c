/*
 * replay.c - runs a fuzz target as an ordinary test: `fuzz_<name> CORPUS_FOLDER`.
 *
 * Every file of the corpus is given to the target as it is, cut short at many lengths, with single bytes changed,
 * and with pieces of it moved about by a random generator with a fixed seed: the same inputs on every run. Prints one
 * TAP line per file. The sanitizer builds make this a cheap fuzz run; the real one is libFuzzer's.
 */
#include "test/fuzz/fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CORPUS_FILES_MAX 256
#define INPUT_BYTES_MAX  65536u
#define CUTS_MAX         256u
#define CHANGES_MAX      512u
#define SHUFFLES         256u

/* What is being run, for fuzz_fail. */
static int current_number;
static const char *current_file = "";
static const char *current_variant = "";

_Noreturn void fuzz_fail(const char *file, int line, const char *what)
{
    printf("not ok %d - %s, %s: %s:%d: does not hold: %s\n", current_number, current_file,
           current_variant, file, line, what);
    exit(1);
}

/* The target gets an exact-size copy on the heap, so that AddressSanitizer sees one byte too many. */
static void run(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size == 0 ? 1 : size);
    if (copy == NULL) {
        fprintf(stderr, "replay: out of memory\n");
        exit(1);
    }
    if (size > 0)
        memcpy(copy, data, size);
    (void)LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

static uint32_t next_random(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

static void run_cuts(const uint8_t *data, size_t size)
{
    current_variant = "cut short";
    size_t step = size / CUTS_MAX + 1;
    for (size_t n = 0; n < size; n += step)
        run(data, n);
}

static void run_changes(uint8_t *data, size_t size)
{
    static const uint8_t masks[] = {0x01, 0x80, 0xff};
    current_variant = "one byte changed";
    size_t step = size / CHANGES_MAX + 1;
    for (size_t i = 0; i < size; i += step) {
        uint8_t before = data[i];
        for (size_t m = 0; m < sizeof(masks); m++) {
            data[i] = before ^ masks[m];
            run(data, size);
        }
        data[i] = before;
    }
}

/* Copies a few random ranges over others and appends one; the seed depends on nothing but the size. */
static void run_shuffles(const uint8_t *data, size_t size)
{
    static uint8_t work[INPUT_BYTES_MAX];
    if (size < 2)
        return;
    current_variant = "shuffled";
    uint32_t random = (uint32_t)size * 2654435761u + 1u;
    for (unsigned n = 0; n < SHUFFLES; n++) {
        memcpy(work, data, size);
        for (unsigned k = 0; k < 3; k++) {
            size_t len = next_random(&random) % (size / 2) + 1;
            size_t from = next_random(&random) % (size - len + 1);
            size_t to = next_random(&random) % (size - len + 1);
            memmove(work + to, work + from, len);
            work[next_random(&random) % size] = (uint8_t)next_random(&random);
        }
        run(work, size);
    }
}

static void replay_file(const char *folder, const char *name)
{
    static uint8_t data[INPUT_BYTES_MAX];
    char path[PATH_MAX];
    int n = snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *f = n > 0 && (size_t)n < sizeof(path) ? fopen(path, "rb") : NULL;
    if (f == NULL) {
        printf("not ok %d - %s: %s\n", current_number, path, strerror(errno));
        exit(1);
    }
    size_t size = fread(data, 1, sizeof(data), f);
    fclose(f);
    current_file = name;
    current_variant = "as it is";
    run(data, size);
    run_cuts(data, size);
    run_changes(data, size);
    run_shuffles(data, size);
    printf("ok %d - %s\n", current_number, name);
}

static int corpus_file(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s CORPUS_FOLDER\n", argv[0]);
        return 2;
    }
    struct dirent **entries = NULL;
    int count = scandir(argv[1], &entries, corpus_file, alphasort);
    if (count <= 0 || count > CORPUS_FILES_MAX) {
        fprintf(stderr, "%s: no corpus there, or more than %d files\n", argv[1], CORPUS_FILES_MAX);
        return 2;
    }
    printf("1..%d\n", count);
    for (int i = 0; i < count; i++) {
        current_number = i + 1;
        replay_file(argv[1], entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
    return 0;
}
