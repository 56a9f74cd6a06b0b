/*
 * run.c - lj_restore_run: carries a plan out. Snapshot and WAL are fetched, decompressed and verified side by side; when
 * the WAL is there, the last version of every page goes over the snapshot, close behind its end if that is still being
 * written; then the file gets its name.
 *
 * Layer: restore. Thread-safety: one call owns its state; callbacks of lj_parallel run on its workers. The snapshot side
 * touches only `snapshot` and the database from snapshot.bytes on, the WAL side only `fold` and the database below.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/io.h"
#include "vfs/base/log.h"
#include "vfs/restore/fetch.h"
#include "vfs/restore/fold.h"
#include "vfs/restore/output.h"
#include "vfs/restore/parallel.h"
#include "vfs/restore/plan.h"
#include "vfs/restore/progress.h"
#include "vfs/restore/snapshot.h"
#include "vfs/wal/wal.h"

#define DEFAULT_PARALLELISM 8u
#define PLANS_AT_MOST       3u
/* The temporary file is folded into the database when it has grown to this. */
#define WAL_FILE_LIMIT (UINT64_C(1) << 30)

/* Why another listing may help: objects came or went while the last one was read, or since. */
typedef struct {
    char vanished[LJ_NAME_MAX]; /* key of an object that is listed but not there, or "" */
    bool hole;                  /* in the listing, between these two: */
    lj_segment_info before, behind;
} moving;

typedef struct {
    const lj_plan_choice *choice;
    const lj_restore_options *options;
    lj_output output;
    lj_snapshot_writer snapshot;
    lj_sink snapshot_sink;
    lj_fold *fold;
    lj_label snapshot_label;
    uint64_t *prev_ends; /* by segment: what its label says of the index before; owned */
    lj_fetch fetch;
    lj_progress progress;
    bool abort;
    bool snapshot_over; /* atomic: complete, or failed */
    moving moved;
} restore;

static void received(void *ctx, size_t bytes)
{
    lj_progress_bytes(&((restore *)ctx)->progress, bytes);
}

/* "<key>: " in front, unless a layer below already said which object it was. */
static lj_code about(const char *key, lj_code code, lj_error *err)
{
    if (code != LJ_OK && code != LJ_CANCELLED && strstr(err->message, key) == NULL)
        (void)lj_error_context(err, "%s", key);
    return code;
}

static lj_code write_snapshot(restore *r, lj_error *err)
{
    char key[LJ_NAME_MAX];
    lj_name_snapshot(r->choice->generation->generation, r->choice->snapshot.index, key);
    lj_code code = lj_fetch_object(&r->fetch, key, r->choice->snapshot.size_bytes,
                                   &r->snapshot_sink, &r->snapshot_label, err);
    if (code == LJ_OK)
        code = lj_snapshot_writer_finish(&r->snapshot, err);
    if (code != LJ_OK) {
        (void)about(key, code, err);
        return code == LJ_CANCELLED ? code : lj_error_context(err, "cannot restore snapshot");
    }
    lj_progress_object(&r->progress);
    lj_progress_phase(&r->progress, LJ_PHASE_WAL);
    return LJ_OK;
}

static lj_code fetch_snapshot(void *ctx, lj_error *err)
{
    restore *r = ctx;
    lj_code code = write_snapshot(r, err);
    __atomic_store_n(&r->snapshot_over, true, __ATOMIC_RELEASE);
    return code;
}

static void segment_key(const restore *r, size_t i, char key[LJ_NAME_MAX])
{
    lj_inventory_segment_key(r->choice->generation->generation, &r->choice->segments[i], key);
}

static lj_code fetch_segment(void *ctx, size_t i, lj_sink *sink, lj_error *err)
{
    restore *r = ctx;
    char key[LJ_NAME_MAX];
    segment_key(r, i, key);
    uint64_t size_bytes = r->choice->segments[i].size_bytes;
    lj_label label = {.name.kind = LJ_NAME_FOREIGN};
    lj_code code = lj_fetch_object(&r->fetch, key, size_bytes, sink, &label, err);
    r->prev_ends[i] = label.needs;
    return about(key, code, err);
}

static lj_code begin_segment(void *ctx, size_t i, lj_error *err)
{
    restore *r = ctx;
    return lj_fold_begin(r->fold, r->choice->segments[i].index, r->choice->segments[i].offset, err);
}

static lj_code segment_data(void *ctx, size_t i, const void *data, size_t len, lj_error *err)
{
    restore *r = ctx;
    lj_code code = lj_fold_data(r->fold, data, len, err);
    if (code == LJ_OK)
        return LJ_OK;
    char key[LJ_NAME_MAX];
    segment_key(r, i, key);
    return about(key, code, err);
}

static lj_code apply(restore *r, lj_error *err)
{
    lj_fold_state state;
    lj_fold_get_state(r->fold, &state);
    if (state.page_size != 0 && r->snapshot.page_size != 0 &&
        state.page_size != r->snapshot.page_size)
        return lj_error_set(err, LJ_CORRUPT,
                            "the WAL has pages of %" PRIu32 " bytes, the snapshot of %" PRIu32,
                            state.page_size, r->snapshot.page_size);
    /* the snapshot of an encrypted database does not say its page size: its own size has to agree */
    if (state.page_size != 0 && r->snapshot.page_size == 0 &&
        r->snapshot.bytes % state.page_size != 0)
        return lj_error_set(err, LJ_CORRUPT,
                            "the WAL has pages of %" PRIu32 " bytes, the snapshot %" PRIu64
                            " bytes, which is not a whole number of them",
                            state.page_size, r->snapshot.bytes);
    return lj_fold_apply(r->fold, r->output.db_fd, err);
}

static lj_code end_segment(void *ctx, lj_parallel *parallel, size_t i, lj_error *err)
{
    restore *r = ctx;
    lj_progress_object(&r->progress);
    if (i > 0 && r->choice->segments[i].offset == 0)
        LJ_TRY(lj_fold_check_previous(r->fold, r->prev_ends[i], err));
    if (!lj_fold_wants_apply(r->fold, WAL_FILE_LIMIT))
        return LJ_OK;
    LJ_TRY(lj_parallel_wait_aside(parallel, err));
    return apply(r, err);
}

/* The WAL is complete: its pages follow the snapshot into the file while that is still being written. */
static lj_code after_segments(void *ctx, lj_error *err)
{
    restore *r = ctx;
    LJ_TRY(lj_fold_finish(r->fold, err));
    return lj_fold_follow(r->fold, r->output.db_fd, &r->snapshot.bytes, &r->snapshot_over, err);
}

/* Takes note of what another listing may answer. */
static void note_moving(restore *r, size_t failed, const lj_error *err)
{
    const lj_plan_choice *choice = r->choice;
    moving *m = &r->moved;
    if (err->code == LJ_NOTFOUND && failed == LJ_PARALLEL_ASIDE)
        lj_name_snapshot(choice->generation->generation, choice->snapshot.index, m->vanished);
    else if (err->code == LJ_NOTFOUND)
        segment_key(r, failed, m->vanished);
    if (err->code != LJ_GAP || failed == LJ_PARALLEL_ASIDE || failed == 0)
        return;
    m->hole = true;
    m->before = choice->segments[failed - 1];
    m->behind = choice->segments[failed];
}

/* Puts the way out into the hint of an error that is about the replica's content. */
static void add_hint(restore *r, const lj_inventory *inventory, size_t failed, lj_error *err)
{
    const lj_plan_choice *choice = r->choice;
    bool content = err->code == LJ_CORRUPT || err->code == LJ_GAP || err->code == LJ_NOTFOUND;
    if (!content)
        return;
    note_moving(r, failed, err);
    if (failed == LJ_PARALLEL_ASIDE)
        lj_plan_hint_snapshot(inventory, r->options, choice->generation, &choice->snapshot, err);
    else
        lj_plan_hint_segment(inventory, choice->generation, &choice->segments[failed], err);
}

static lj_code fetch_all(restore *r, const lj_inventory *inventory, lj_error *err)
{
    const lj_restore_options *options = r->options;
    lj_parallel_job job = {
        .count = r->choice->segment_count,
        .workers = options->parallelism != 0 ? options->parallelism : DEFAULT_PARALLELISM,
        .ctx = r,
        .abort = &r->abort,
        .aside = fetch_snapshot,
        .fetch = fetch_segment,
        .begin = begin_segment,
        .data = segment_data,
        .end = end_segment,
        .after = after_segments,
    };
    size_t failed = 0;
    lj_code code = lj_parallel_run(&job, &failed, err);
    if (code == LJ_OK) {
        failed = LJ_PARALLEL_ASIDE;
        code =
            lj_fold_check_snapshot(r->fold, r->snapshot_label.needs, r->snapshot_label.salt, err);
    }
    if (code != LJ_OK)
        add_hint(r, inventory, failed, err);
    return code;
}

/* The first page may have come from the WAL: the result must still be a database of the expected shape. */
static lj_code verify_result(restore *r, uint64_t *ret_bytes, uint32_t *ret_page_size,
                             lj_error *err)
{
    struct stat st;
    if (fstat(r->output.db_fd, &st) != 0)
        return lj_error_errno(err, errno, "cannot stat the restored database");
    uint8_t header[LJ_SNAPSHOT_HEADER_BYTES] = {0};
    size_t n = 0;
    LJ_TRY(lj_io_pread(r->output.db_fd, header, sizeof(header), 0, &n, err));
    uint32_t page_size = 0;
    if (n > 0 && lj_snapshot_header(header, n, &page_size, err) != LJ_OK)
        return lj_error_context(err, "the restored database");
    lj_fold_state state;
    lj_fold_get_state(r->fold, &state);
    if (page_size == 0)
        page_size = state.page_size; /* encrypted: only the WAL says it, if there is one */
    if (state.db_pages != 0 && page_size != state.page_size)
        return lj_error_set(err, LJ_CORRUPT,
                            "the restored database says its pages have %" PRIu32
                            " bytes, its WAL said %" PRIu32,
                            page_size, state.page_size);
    *ret_bytes = (uint64_t)st.st_size;
    *ret_page_size = page_size;
    return LJ_OK;
}

/*
 * Whether another index may follow. Behind a snapshot that another program took, and of whose index there is nothing yet, it may
 * not: the end of the index before may be missing as well, and with ours behind it nobody would see that any more.
 */
static bool is_continuable(const restore *r)
{
    return r->choice->segment_count > 0 || r->choice->generation->segment_count == 0 ||
           r->snapshot_label.name.kind != LJ_NAME_FOREIGN;
}

static lj_code carry_out(restore *r, const lj_restore_plan *plan, const char *path,
                         lj_restore_result *ret_result, lj_error *err)
{
    const lj_plan_choice *choice = r->choice;
    LJ_TRY(lj_output_open(&r->output, path, r->options, err));
    r->snapshot_sink = lj_snapshot_writer_start(&r->snapshot, r->output.db_fd);
    r->prev_ends = calloc(choice->segment_count + 1, sizeof(*r->prev_ends));
    if (r->prev_ends == NULL)
        return lj_error_nomem(err);
    if (choice->segment_count > 0)
        LJ_TRY(lj_output_open_wal(&r->output, err));
    lj_fold_setup setup = {.generation = choice->generation->generation,
                           .temp_fd = r->output.wal_fd,
                           .cancel = r->options->cancel};
    LJ_TRY(lj_fold_new(&setup, &r->fold, err));
    LJ_TRY(fetch_all(r, plan->inventory, err));
    lj_progress_phase(&r->progress, LJ_PHASE_WRITE);
    LJ_TRY(apply(r, err));

    lj_restore_result result;
    lj_fold_state state;
    lj_restore_plan_describe(plan, &result);
    lj_fold_get_state(r->fold, &state);
    LJ_TRY(verify_result(r, &result.db_bytes, &result.page_size, err));
    LJ_TRY(lj_fetch_check(&r->fetch, err));
    LJ_TRY(lj_output_publish(&r->output, err));
    result.wal_bytes = state.wal_bytes;
    result.position.offset = state.offset;
    result.at_end = result.at_end && !state.tail_ignored && is_continuable(r);
    result.inode = r->output.inode;
    result.mtime_ns = r->output.mtime_ns;
    *ret_result = result;
    lj_progress_end(&r->progress);
    return LJ_OK;
}

static lj_code attempt(lj_storage *storage, const lj_restore_plan *plan, const char *path,
                       const lj_restore_options *options, moving *ret_moved,
                       lj_restore_result *ret_result, lj_error *err)
{
    lj_restore_result planned;
    lj_restore_plan_describe(plan, &planned);
    restore r = {
        .choice = &plan->choice,
        .options = options,
        .output = LJ_OUTPUT_INIT,
        .fetch = {.storage = storage, .cancel = options->cancel, .received = received},
        .progress = {.fn = options->progress,
                     .ctx = options->progress_ctx,
                     .objects_total = planned.segments + 1,
                     .bytes_total = planned.fetch_bytes},
    };
    r.fetch.ctx = &r;
    r.fetch.abort = &r.abort;
    lj_code code = carry_out(&r, plan, path, ret_result, err);
    lj_fold_free(r.fold);
    free(r.prev_ends);
    lj_output_close(&r.output);
    *ret_moved = r.moved;
    return code;
}

/* Whether a plan still wants the object. */
static bool plan_uses(const lj_restore_plan *plan, const char *key)
{
    const lj_plan_choice *choice = &plan->choice;
    lj_name name;
    lj_name_parse(key, &name);
    if (strcmp(name.position.generation, choice->generation->generation) != 0)
        return false;
    if (name.kind == LJ_NAME_SNAPSHOT)
        return name.position.index == choice->snapshot.index;
    for (size_t i = 0; i < choice->segment_count; i++)
        if (choice->segments[i].index == name.position.index &&
            choice->segments[i].offset == name.position.offset)
            return true;
    return false;
}

static bool same_place(const lj_segment_info *a, const lj_segment_info *b)
{
    return a->index == b->index && a->offset == b->offset;
}

/* Whether the two stand side by side in a plan, too. */
static bool plan_has_hole(const lj_restore_plan *plan, const moving *m)
{
    const lj_plan_choice *choice = &plan->choice;
    for (size_t i = 1; i < choice->segment_count; i++)
        if (same_place(&choice->segments[i], &m->behind))
            return same_place(&choice->segments[i - 1], &m->before);
    return false;
}

/* Whether a new plan would fail like the one before. */
static bool is_no_better(const lj_restore_plan *plan, const char *generation, const moving *m)
{
    if (m->vanished[0] != 0)
        return plan_uses(plan, m->vanished);
    return strcmp(plan->choice.generation->generation, generation) == 0 && plan_has_hole(plan, m);
}

/*
 * An object of the plan is gone: retention ran meanwhile, or it never was readable. Not LJ_NOTFOUND, which says that the
 * replica holds nothing and would let a caller begin with an empty database.
 */
static lj_code vanished_error(const char *key, lj_error *err)
{
    char hint[LJ_ERROR_HINT_MAX];
    memcpy(hint, err->hint, sizeof(hint));
    lj_error_set(err, LJ_GAP, "%s was listed but is gone", key);
    lj_error_hint(err, "%s", hint);
    return LJ_GAP;
}

lj_code lj_restore_run(lj_storage *storage, const lj_restore_plan *plan, const char *output,
                       const lj_restore_options *options, lj_restore_result *ret_result,
                       lj_error *err)
{
    lj_error local = LJ_ERROR_INIT;
    lj_error *error = err != NULL ? err : &local;
    lj_restore_plan *fresh = NULL;
    lj_code code;
    for (unsigned plans = 1;; plans++) {
        const lj_restore_plan *now = fresh != NULL ? fresh : plan;
        char generation[LJ_GENERATION_MAX];
        moving moved = {.hole = false};
        memcpy(generation, now->choice.generation->generation, sizeof(generation));
        code = attempt(storage, now, output, options, &moved, ret_result, error);
        if (code == LJ_OK || (moved.vanished[0] == 0 && !moved.hole))
            break;
        if (moved.vanished[0] != 0)
            code = vanished_error(moved.vanished, error);
        lj_restore_plan_free(fresh);
        fresh = NULL;
        if (plans == PLANS_AT_MOST ||
            lj_restore_plan_make(storage, options, &fresh, NULL) != LJ_OK ||
            is_no_better(fresh, generation, &moved))
            break;
        lj_log(LJ_LOG_WARN, "%s: making a new plan", error->message);
    }
    lj_restore_plan_free(fresh);
    return code;
}
