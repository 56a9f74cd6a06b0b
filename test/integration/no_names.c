/* no_names.c - preloaded: a file system that can neither rename without overwriting nor link. */
#include <errno.h>
#include <unistd.h>

__attribute__((visibility("default"))) int renameat2(int from_dir, const char *from, int to_dir,
                                                     const char *to, unsigned flags)
{
    (void)from_dir, (void)from, (void)to_dir, (void)to, (void)flags;
    errno = EINVAL;
    return -1;
}

__attribute__((visibility("default"))) int link(const char *from, const char *to)
{
    (void)from, (void)to;
    errno = EPERM;
    return -1;
}
