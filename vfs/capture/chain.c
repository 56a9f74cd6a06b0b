/*
 * chain.c - see chain.h.
 */
#include "vfs/capture/chain.h"

#include <fcntl.h>
#include <sys/stat.h>

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
