/*
 * chain.c - see chain.h.
 */
#include "vfs/capture/chain.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vfs/base/io.h"

#define SHARED_MAGIC UINT64_C(0x316e6961684a4c31) /* "1LJhain1" */
#define SHARED_BYTES 4096u

typedef struct {
    uint64_t magic;
    uint64_t sequence;
    lj_chain chain;
    uint64_t check; /* over everything before it */
} shared_slot;

struct lj_shared {
    shared_slot *slots; /* two of them, in the mapping */
    uint64_t sequence;  /* of the newest store */
};

bool lj_identity_of(const char *path, lj_identity *ret_identity)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return false;
    *ret_identity = (lj_identity){
        .inode = (uint64_t)st.st_ino,
        .size_bytes = (uint64_t)st.st_size,
        .mtime_ns = (int64_t)st.st_mtim.tv_sec * LJ_NS_PER_S + st.st_mtim.tv_nsec,
        .ctime_ns = (int64_t)st.st_ctim.tv_sec * LJ_NS_PER_S + st.st_ctim.tv_nsec,
    };
    return true;
}

lj_home lj_home_of(const char *path)
{
    lj_home home = {.inode = 0};
    struct stat st;
    if (stat(path, &st) == 0)
        home.inode = (uint64_t)st.st_ino;
#ifdef STATX_BTIME
    struct statx stx;
    if (statx(AT_FDCWD, path, AT_STATX_DONT_SYNC, STATX_BTIME, &stx) == 0 &&
        (stx.stx_mask & STATX_BTIME) != 0)
        home.born_ns = (int64_t)stx.stx_btime.tv_sec * LJ_NS_PER_S + (int64_t)stx.stx_btime.tv_nsec;
#endif
    return home;
}

/* FNV-1a: the slot is small and the enemy is a torn store, not a forger. */
static uint64_t slot_check(const shared_slot *slot)
{
    const uint8_t *p = (const uint8_t *)slot;
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < offsetof(shared_slot, check); i++)
        hash = (hash ^ p[i]) * UINT64_C(0x100000001b3);
    return hash;
}

static bool slot_valid(const shared_slot *slot)
{
    return slot->magic == SHARED_MAGIC && slot->check == slot_check(slot);
}

static const shared_slot *newest_slot(const lj_shared *shared)
{
    const shared_slot *best = NULL;
    for (int i = 0; i < 2; i++) {
        const shared_slot *slot = &shared->slots[i];
        if (slot_valid(slot) && (best == NULL || slot->sequence > best->sequence))
            best = slot;
    }
    return best;
}

lj_code lj_shared_open(const char *path, lj_shared **ret_shared, lj_error *err)
{
    _Static_assert(2 * sizeof(shared_slot) <= SHARED_BYTES, "both slots fit in the page");
    LJ_CLEANUP(lj_closep) int fd = -1;
    LJ_TRY(lj_io_open(path, O_RDWR | O_CREAT, 0600, &fd, err));
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
    shared->slots = map;
    const shared_slot *newest = newest_slot(shared);
    shared->sequence = newest == NULL ? 0 : newest->sequence;
    *ret_shared = shared;
    return LJ_OK;
}

void lj_shared_close(lj_shared *shared)
{
    if (shared == NULL)
        return;
    munmap(shared->slots, SHARED_BYTES);
    free(shared);
}

bool lj_shared_load(const lj_shared *shared, lj_chain *ret_chain)
{
    const shared_slot *slot = newest_slot(shared);
    if (slot == NULL)
        return false;
    *ret_chain = slot->chain;
    ret_chain->generation[LJ_GENERATION_MAX - 1] = 0;
    return true;
}

void lj_shared_store(lj_shared *shared, const lj_chain *chain)
{
    shared_slot slot;
    memset(&slot, 0, sizeof(slot));
    slot.magic = SHARED_MAGIC;
    slot.sequence = ++shared->sequence;
    slot.chain = *chain;
    slot.check = slot_check(&slot);
    shared_slot *target = &shared->slots[shared->sequence & 1];
    target->magic = 0; /* invalid while it is being written */
    atomic_signal_fence(memory_order_seq_cst);
    memcpy((uint8_t *)target + sizeof(target->magic), (uint8_t *)&slot + sizeof(slot.magic),
           sizeof(slot) - sizeof(slot.magic));
    atomic_signal_fence(memory_order_seq_cst);
    target->magic = SHARED_MAGIC;
}
