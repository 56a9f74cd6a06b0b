/* no_links.c - preloaded into sshd: a file system without hard links. */
#include <errno.h>
#include <unistd.h>

__attribute__((visibility("default"))) int link(const char *from, const char *to)
{
    (void)from;
    (void)to;
    errno = EOPNOTSUPP;
    return -1;
}
