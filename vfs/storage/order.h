/*
 * order.h - what the order of the keys of a deletion says.
 *
 * Retention names an index from its end to its begin: keys that fall. Without its begin the rest of an index is of no use to anybody, and
 * v0.3.13 restores nothing of that generation; so the last of such keys goes when the others are gone for good.
 *
 * Layer: storage. Thread-safety: pure.
 */
#ifndef LJ_ORDER_H
#define LJ_ORDER_H

#include <string.h>

#include "vfs/base/base.h"

/* keys[i] is the lowest of two or more that fall. */
static inline bool lj_order_ends_a_fall(const char *const *keys, size_t i, size_t count)
{
    return i > 0 && strcmp(keys[i], keys[i - 1]) < 0 &&
           (i + 1 == count || strcmp(keys[i + 1], keys[i]) >= 0);
}

#endif
