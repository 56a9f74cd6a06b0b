/*
 * chain.c - see chain.h.
 */
#include "vfs/capture/chain.h"

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
