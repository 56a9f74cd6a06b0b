/*
 * aside.h - background work that pauses while the application is in the middle of something that takes it long already.
 *
 * A checkpoint is the longest that an application's thread ever waits for the disk. A snapshot that is read, compressed and sent
 * beside it wants the same processors, disk and memory, and has time. So its threads ask here between two pieces of work, and stand aside
 * while a checkpoint of this process runs; not for ever: where one checkpoint follows the other they take every second turn.
 *
 * Layer: base. Thread-safety: all of it. Cost while nothing runs: one load.
 */
#ifndef LJ_ASIDE_H
#define LJ_ASIDE_H

#include "vfs/base/base.h"

/* In the application's thread. They nest, and may come from several threads. */
void lj_aside_begin(void);
void lj_aside_end(void);
/* In the child of a fork: the parent's threads are not here. */
void lj_aside_forget(void);

/* Makes the calling thread one that stands aside, or one that does not (as it is at first); returns what it was. */
bool lj_aside_swap(bool stands_aside);
/* To be called every now and then by threads that may be such. */
void lj_aside(void);

#endif
