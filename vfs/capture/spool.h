/*
 * spool.h - frames that must leave the WAL before the replica has them.
 *
 * When the WAL is about to be restarted, truncated or deleted and frames in it are not shipped yet, they are kept as
 * `.NAME-litejoin/spool/<GEN>-<INDEX>-<START>-<END>[-<PREVIOUS>].wal`: a sparse image of the WAL in which bytes START..END-1
 * and the 32-byte header stand at their own offsets. PREVIOUS is where the index before ended, as far as that is known, so that
 * a file that is missing between two others is noticed. A WAL that is going to be deleted is hard-linked instead of copied.
 * Written as .tmp and renamed: a name that exists is complete, also after kill -9. There is no fsync, because this runs in the
 * application's thread: a power cut may leave a torn file; its frames do not verify when they are shipped, and a new
 * generation begins (the database itself is safe: the checkpoint synced it). The shipper ships and removes the files in
 * the order (index, start). The folder is bounded by max_spool_size.
 *
 * Layer: capture. Thread-safety: add() runs in the application's thread (under the WAL write lock), list() and remove()
 * in the shipper's; they meet only in the file system, where names appear and disappear atomically.
 */
#ifndef LJ_SPOOL_H
#define LJ_SPOOL_H

#include "vfs/replica/name.h"

typedef struct {
    lj_position start; /* generation, index, first byte */
    uint64_t end;      /* offset behind the last byte; a commit boundary */
    uint64_t prev_end; /* where the index before this one ends; 0 = it does not say */
} lj_spool_entry;

/* Copies bytes start..end-1 (and the header) from the open WAL descriptor. */
LJ_WARN_UNUSED lj_code lj_spool_copy(const char *dir, const lj_spool_entry *entry, int wal_fd,
                                     lj_error *err);
/*
 * The same where a part was copied before: the file `temp` of the folder has the header and the range up to `have`. Adds the rest of the
 * range from the WAL, and gives the file its name. When that fails the file is still there under its old name.
 */
LJ_WARN_UNUSED lj_code lj_spool_adopt(const char *dir, const char *temp, uint64_t have,
                                      const lj_spool_entry *entry, int wal_fd, lj_error *err);
/* Takes over the whole WAL file by a hard link; falls back to a copy where links are not possible. */
LJ_WARN_UNUSED lj_code lj_spool_link(const char *dir, const lj_spool_entry *entry,
                                     const char *wal_path, int wal_fd, lj_error *err);
/*
 * The lowest entry of `generation` at or above `index` (by index, then start). LJ_NOTFOUND: none. Files of other
 * generations, unfinished ones too, are removed on the way when `clean` is set.
 */
LJ_WARN_UNUSED lj_code lj_spool_first(const char *dir, const char *generation, uint32_t index,
                                      bool clean, lj_spool_entry *ret_entry, lj_error *err);
/* The entry that ends last, of `generation` or (NULL) of any. LJ_NOTFOUND: none. */
LJ_WARN_UNUSED lj_code lj_spool_last(const char *dir, const char *generation,
                                     lj_spool_entry *ret_entry, lj_error *err);
LJ_WARN_UNUSED lj_code lj_spool_open(const char *dir, const lj_spool_entry *entry, int *ret_fd,
                                     lj_error *err);
/* Removes what is complete of one generation (NULL: of all), which is not going to be shipped. */
void lj_spool_drop(const char *dir, const char *generation);
/* Likewise what belongs to an index from `index` on. */
void lj_spool_drop_from(const char *dir, const char *generation, uint32_t index);
/*
 * Removes what is the WAL itself under another name: killed between the link and the deletion, or it could not be deleted. All of it is
 * in the WAL, and the next life will be written over it. Only while nobody is about to delete the WAL.
 */
void lj_spool_drop_links(const char *dir, const char *wal_path);
/* Makes copies of them instead: the WAL stays under its name, and is going to be written over. */
LJ_WARN_UNUSED lj_code lj_spool_copy_links(const char *dir, const char *wal_path, lj_error *err);
/* Removes copies that a process began and did not finish: those nobody has written to for a minute. */
void lj_spool_sweep(const char *dir);
/* 0, also when it is not there, or the errno. */
int lj_spool_remove(const char *dir, const lj_spool_entry *entry);
/* Removes the files that together have the range of `entry`. */
void lj_spool_remove_range(const char *dir, const lj_spool_entry *entry);
/* Sum of end - start over all entries of the generation (NULL: of any). 0 when the folder is not there. */
uint64_t lj_spool_bytes(const char *dir, const char *generation);
/*
 * Where the index before `index` ends, as the entry with the begin of `index` says; 0 = it does not say. LJ_NOTFOUND: there is no
 * such entry.
 */
LJ_WARN_UNUSED lj_code lj_spool_prev_end(const char *dir, const char *generation, uint32_t index,
                                         uint64_t *ret_prev_end, lj_error *err);
/* Whether an entry of that index holds the byte at `offset`. */
LJ_WARN_UNUSED lj_code lj_spool_holds(const char *dir, const lj_position *at, bool *ret_answer,
                                      lj_error *err);

#endif
