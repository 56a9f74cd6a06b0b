/*
 * link.h - which symbolic links in a folder of a replica lead to a part of it.
 *
 * Somebody moves the snapshots of a replica to a larger disk and leaves a link. What is behind it must be seen by a listing, or the
 * replica looks as if it had no backup. But a folder may have links of others in it, which may lead anywhere. So the layout's own
 * names are followed, and no others: a walk comes to its end then, whatever the links are.
 *
 * Layer: storage. Thread-safety: pure. Source: replica-format section 1.
 */
#ifndef LJ_LINK_H
#define LJ_LINK_H

#include "vfs/base/base.h"

/* `key` is that of a link to a folder when it ends in '/': "generations/0123456789abcdef/wal/"; else of one to a file. */
bool lj_link_is_followed(const char *key);

#endif
