/*
 * shared.c - see shared.h.
 */
#include "vfs/capture/shared.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vfs/base/io.h"

#define SLOT_MAGIC   UINT64_C(0x326e6961684a4c32) /* "2LJhain2" */
#define SHARED_BYTES 16384u
#define SEQUENCE_MAX (UINT64_MAX / 2) /* nobody gets there by counting */

typedef struct {
    uint64_t magic;
    uint64_t sequence;
    lj_session session;
    uint64_t check; /* over everything before it */
} shared_slot;

/* Builds that disagree on this number must not share a page. */
#define LAYOUT ((UINT64_C(3) << 32) | sizeof(shared_slot))

typedef struct {
    uint64_t layout;
    uint32_t words[14];
    shared_slot slots[2];
} shared_page;

struct lj_shared {
    shared_page *page; /* the mapping */
};

/* FNV-1a by words: the enemy is a torn store, not a forger. */
static uint64_t slot_check(const shared_slot *slot)
{
    const uint8_t *p = (const uint8_t *)slot;
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i + sizeof(uint64_t) <= offsetof(shared_slot, check);
         i += sizeof(uint64_t)) {
        uint64_t word;
        memcpy(&word, p + i, sizeof(word));
        hash = (hash ^ word) * UINT64_C(0x100000001b3);
        hash ^= hash >> 29;
    }
    return hash;
}

/* ---- what a session can be: the page is written by others, and a checksum does not say that they were right ---- */

#define FRAMES_MAX UINT64_C(0xffffffff) /* as many as a wal-index can count */

/* Where the flags of a session are. Another value than 0 or 1 must not even be read as a bool. */
static const uint16_t flags[] = {
    offsetof(lj_session, chain.active),
    offsetof(lj_session, chain.has_life),
    offsetof(lj_session, chain.unused),
    offsetof(lj_session, chain.sealed),
    offsetof(lj_session, chain.emptied),
    offsetof(lj_session, chain.has_next),
    offsetof(lj_session, chain.guarded),
    offsetof(lj_session, live),
    offsetof(lj_session, established),
    offsetof(lj_session, freezing),
    offsetof(lj_session, disturbed),
    offsetof(lj_session, broken),
    offsetof(lj_session, not_wal),
    offsetof(lj_session, ship_error.retryable),
    offsetof(lj_session, snapshot_error.retryable),
    offsetof(lj_session, pending.failing),
    offsetof(lj_session, pending.error.retryable),
    offsetof(lj_session, pending.sending),
    offsetof(lj_session, pending.sent_unknown),
    offsetof(lj_session, pending.sent_revoked),
    offsetof(lj_session, pending.orphaned),
    offsetof(lj_session, pending.degraded),
};

static bool flags_ok(const lj_session *s)
{
    uint8_t all = 0;
    for (size_t i = 0; i < LJ_ARRAY_LEN(flags); i++)
        all |= ((const uint8_t *)s)[flags[i]];
    return all <= 1;
}

static bool text_ok(const char *text, size_t size)
{
    return memchr(text, 0, size) != NULL;
}

static bool error_ok(const lj_error *err)
{
    return (uint32_t)err->code <= LJ_INTERNAL && err->retry_after_ns >= 0 &&
           text_ok(err->message, sizeof(err->message)) && text_ok(err->hint, sizeof(err->hint));
}

/* `needed`: it must have a value. */
static bool generation_ok(const char *generation, bool needed)
{
    return generation[0] == 0
               ? !needed
               : text_ok(generation, LJ_GENERATION_MAX) && lj_generation_ok(generation);
}

static bool page_size_ok(uint32_t bytes)
{
    return bytes == 0 || lj_wal_page_size_ok(bytes);
}

static bool time_ok(int64_t ns)
{
    return ns <= INT64_MAX - LJ_NS_PER_S; /* something behind it can be counted */
}

static bool session_ok(const lj_session *s)
{
    const lj_chain *chain = &s->chain;
    return flags_ok(s) && generation_ok(chain->generation, chain->active) &&
           chain->index <= LJ_INDEX_MAX && chain->base_frames <= FRAMES_MAX &&
           chain->sealed_frames <= FRAMES_MAX && generation_ok(s->pos.generation, false) &&
           s->pos.index <= LJ_INDEX_MAX && text_ok(s->broken_reason, sizeof(s->broken_reason)) &&
           text_ok(s->last_break, sizeof(s->last_break)) && text_ok(s->mode, sizeof(s->mode)) &&
           text_ok(s->url, sizeof(s->url)) && time_ok(s->last_snapshot_ns) &&
           time_ok(s->last_object_ns) && page_size_ok(s->page_size) && error_ok(&s->ship_error) &&
           error_ok(&s->snapshot_error) && error_ok(&s->pending.error) &&
           (uint32_t)s->pending.state <= LJ_PENDING_LEFT && s->pending.end.frames <= FRAMES_MAX &&
           page_size_ok(s->pending.end.page_size);
}

/* ---- the slots ---- */

static bool slot_valid(const shared_slot *slot)
{
    return slot->magic == SLOT_MAGIC && slot->sequence <= SEQUENCE_MAX &&
           slot->check == slot_check(slot) && session_ok(&slot->session);
}

/* A copy: whoever does not keep to the lock may write while we look. */
static bool newest_slot(const lj_shared *shared, shared_slot *ret_slot)
{
    const shared_slot *slots = shared->page->slots;
    if (shared->page->layout != LAYOUT)
        return false;
    int newer = slots[1].sequence > slots[0].sequence ? 1 : 0;
    for (int i = 0; i < 2; i++) {
        memcpy(ret_slot, &slots[i == 0 ? newer : 1 - newer], sizeof(*ret_slot));
        if (slot_valid(ret_slot))
            return true;
    }
    return false;
}

/*
 * Blocks, not a hole: a store into the mapping that meets a full disk is a SIGBUS in the application. A hole only where the file
 * system has nothing else to offer.
 */
static lj_code make_room(int fd, const char *path, lj_error *err)
{
    int failed;
    do
        failed = posix_fallocate(fd, 0, SHARED_BYTES);
    while (failed == EINTR);
    if ((failed == EOPNOTSUPP || failed == EINVAL) && ftruncate(fd, SHARED_BYTES) == 0)
        failed = 0;
    return failed == 0 ? LJ_OK : lj_error_errno(err, failed, "cannot size %s", path);
}

lj_code lj_shared_open(const char *path, lj_shared **ret_shared, lj_error *err)
{
    _Static_assert(sizeof(shared_page) <= SHARED_BYTES, "both slots fit in the page");
    _Static_assert(offsetof(shared_slot, check) % sizeof(uint64_t) == 0, "checked by words");
    LJ_CLEANUP(lj_closep) int fd = -1;
    LJ_TRY(lj_io_open(path, O_RDWR | O_CREAT, 0600, &fd, err));
    LJ_TRY(make_room(fd, path, err));
    lj_shared *shared = calloc(1, sizeof(*shared));
    if (shared == NULL)
        return lj_error_nomem(err);
    void *map = mmap(NULL, SHARED_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        free(shared);
        return lj_error_errno(err, errno, "cannot map %s", path);
    }
    shared->page = map;
    *ret_shared = shared;
    return LJ_OK;
}

void lj_shared_close(lj_shared *shared)
{
    if (shared == NULL)
        return;
    munmap(shared->page, SHARED_BYTES);
    free(shared);
}

bool lj_shared_foreign(const lj_shared *shared)
{
    return shared->page->layout != 0 && shared->page->layout != LAYOUT;
}

bool lj_shared_load(const lj_shared *shared, lj_session *ret_session)
{
    shared_slot slot;
    if (!newest_slot(shared, &slot))
        return false;
    *ret_session = slot.session;
    return true;
}

void lj_shared_store(lj_shared *shared, const lj_session *session)
{
    shared_page *page = shared->page;
    shared_slot slot;
    bool begin = !newest_slot(shared, &slot) || slot.sequence == SEQUENCE_MAX;
    uint64_t sequence = begin ? 1 : slot.sequence + 1;
    memset(&slot, 0, sizeof(slot));
    slot.magic = SLOT_MAGIC;
    slot.sequence = sequence;
    memcpy(&slot.session, session, sizeof(slot.session));
    slot.check = slot_check(&slot);
    shared_slot *target = &page->slots[slot.sequence & 1];
    if (begin) {
        /* a slot of ours from before another build had the page would count again, and be newer */
        __atomic_store_n(&page->slots[0].magic, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&page->slots[1].magic, 0, __ATOMIC_RELAXED);
        atomic_signal_fence(memory_order_seq_cst);
    }
    __atomic_store_n(&page->layout, LAYOUT, __ATOMIC_RELAXED);
    __atomic_store_n(&target->magic, 0, __ATOMIC_RELAXED); /* invalid while it is being written */
    atomic_signal_fence(memory_order_seq_cst);
    memcpy(&target->session, &slot.session, sizeof(slot.session));
    target->check = slot.check;
    __atomic_store_n(&target->sequence, slot.sequence, __ATOMIC_RELAXED);
    atomic_signal_fence(memory_order_seq_cst);
    __atomic_store_n(&target->magic, SLOT_MAGIC, __ATOMIC_RELEASE);
}

uint64_t lj_shared_version(const lj_shared *shared)
{
    const shared_slot *slots = shared->page->slots;
    return __atomic_load_n(&slots[0].sequence, __ATOMIC_ACQUIRE) +
           __atomic_load_n(&slots[1].sequence, __ATOMIC_ACQUIRE);
}

uint32_t lj_shared_get(const lj_shared *shared, lj_shared_word word)
{
    return __atomic_load_n(&shared->page->words[word], __ATOMIC_SEQ_CST);
}

void lj_shared_set(lj_shared *shared, lj_shared_word word, uint32_t value)
{
    __atomic_store_n(&shared->page->words[word], value, __ATOMIC_SEQ_CST);
}

uint32_t lj_shared_swap(lj_shared *shared, lj_shared_word word, uint32_t value)
{
    return __atomic_exchange_n(&shared->page->words[word], value, __ATOMIC_SEQ_CST);
}

void lj_shared_add(lj_shared *shared, lj_shared_word word)
{
    (void)__atomic_add_fetch(&shared->page->words[word], 1, __ATOMIC_SEQ_CST);
}
