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

static bool slot_valid(const shared_slot *slot)
{
    return slot->magic == SLOT_MAGIC && slot->check == slot_check(slot);
}

static const shared_slot *newest_slot(const lj_shared *shared)
{
    const shared_slot *best = NULL;
    if (shared->page->layout != LAYOUT)
        return NULL;
    for (int i = 0; i < 2; i++) {
        const shared_slot *slot = &shared->page->slots[i];
        if (slot_valid(slot) && (best == NULL || slot->sequence > best->sequence))
            best = slot;
    }
    return best;
}

lj_code lj_shared_open(const char *path, lj_shared **ret_shared, lj_error *err)
{
    _Static_assert(sizeof(shared_page) <= SHARED_BYTES, "both slots fit in the page");
    _Static_assert(offsetof(shared_slot, check) % sizeof(uint64_t) == 0, "checked by words");
    LJ_CLEANUP(lj_closep) int fd = -1;
    LJ_TRY(lj_io_open(path, O_RDWR | O_CREAT, 0600, &fd, err));
    /* blocks, not a hole: a store into the mapping must not meet a full disk */
    if (posix_fallocate(fd, 0, SHARED_BYTES) != 0 && ftruncate(fd, SHARED_BYTES) != 0)
        return lj_error_errno(err, errno, "cannot size %s", path);
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
    const shared_slot *slot = newest_slot(shared);
    if (slot == NULL)
        return false;
    *ret_session = slot->session;
    ret_session->chain.generation[LJ_GENERATION_MAX - 1] = 0;
    return true;
}

void lj_shared_store(lj_shared *shared, const lj_session *session)
{
    shared_page *page = shared->page;
    const shared_slot *newest = newest_slot(shared);
    shared_slot slot;
    memset(&slot, 0, sizeof(slot));
    slot.magic = SLOT_MAGIC;
    slot.sequence = newest == NULL ? 1 : newest->sequence + 1;
    memcpy(&slot.session, session, sizeof(slot.session));
    slot.check = slot_check(&slot);
    shared_slot *target = &page->slots[slot.sequence & 1];
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
