/*
 * saved.c - see saved.h.
 */
#include "vfs/capture/saved.h"

#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

#include "vfs/base/io.h"

lj_code lj_saved_open(lj_saved *saved, const char *dir, uint64_t most_bytes, lj_error *err)
{
    saved->most_bytes = most_bytes;
    return lj_io_open_unlinked(dir, "saved-pages", &saved->fd, err);
}

void lj_saved_prepare(lj_saved *saved, pthread_mutex_t *mutex)
{
    /* populated: the application's thread is not to wait for the kernel to find and clear each page */
    void *memory = mmap(NULL, LJ_SAVED_MEMORY_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED)
        return;
    pthread_mutex_lock(mutex);
    saved->memory = memory;
    saved->first = saved->pages.count;
    saved->room = LJ_SAVED_MEMORY_BYTES / saved->page_size;
    pthread_mutex_unlock(mutex);
}

bool lj_saved_has(const lj_saved *saved, uint32_t pgno)
{
    uint64_t ignored = 0;
    return lj_pagemap_get(&saved->pages, pgno, &ignored);
}

lj_code lj_saved_add(lj_saved *saved, uint32_t pgno, const void *page, lj_error *err)
{
    uint64_t place = saved->pages.count;
    size_t size = saved->page_size;
    if ((place + 1) * size > saved->most_bytes)
        return lj_error_set(
            err, LJ_NOSPACE,
            "the snapshot was given up: pages that changed meanwhile take more than "
            "max_spool_size (%" PRIu64 " bytes)",
            saved->most_bytes);
    /* known first: the count of the map says where the next one goes */
    LJ_TRY(lj_pagemap_set(&saved->pages, pgno, place, err));
    if (saved->used == saved->room)
        return lj_io_pwrite(saved->fd, page, size, place * size, err);
    memcpy(saved->memory + saved->used * size, page, size);
    saved->used++;
    return LJ_OK;
}

lj_code lj_saved_read(const lj_saved *saved, uint32_t pgno, void *out, bool *ret_found,
                      lj_error *err)
{
    uint64_t place = 0;
    size_t size = saved->page_size;
    size_t n = 0;
    *ret_found = lj_pagemap_get(&saved->pages, pgno, &place);
    if (!*ret_found)
        return LJ_OK;
    if (place >= saved->first && place - saved->first < saved->used) {
        memcpy(out, saved->memory + (place - saved->first) * size, size);
        return LJ_OK;
    }
    LJ_TRY(lj_io_pread(saved->fd, out, size, place * size, &n, err));
    return n == size ? LJ_OK : lj_error_set(err, LJ_IO, "a saved page is cut short");
}

lj_code lj_saved_flush(lj_saved *saved, pthread_mutex_t *mutex, lj_error *err)
{
    pthread_mutex_lock(mutex);
    size_t from = saved->in_file;
    size_t to = saved->used;
    uint64_t place = saved->first + from;
    pthread_mutex_unlock(mutex);
    if (from == to)
        return LJ_OK;
    /* nobody writes to these places, and the memory is taken anew only below */
    size_t size = saved->page_size;
    LJ_TRY(lj_io_pwrite(saved->fd, saved->memory + from * size, (to - from) * size, place * size,
                        err));
    pthread_mutex_lock(mutex);
    saved->in_file = to;
    if (saved->used == to) {
        saved->first = saved->pages.count;
        saved->used = 0;
        saved->in_file = 0;
    }
    pthread_mutex_unlock(mutex);
    return LJ_OK;
}

void lj_saved_free(lj_saved *saved)
{
    if (saved->memory != NULL)
        munmap(saved->memory, LJ_SAVED_MEMORY_BYTES);
    saved->memory = NULL;
    lj_closep(&saved->fd);
    lj_pagemap_free(&saved->pages);
}
