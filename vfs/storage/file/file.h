/*
 * file.h - the driver for a replica in a folder of a mounted file system.
 *
 * URL: "file://" and a path. The path is taken literally, as Litestream v0.3.13 does with it: percent escapes are not
 * decoded, '?' and '#' are ordinary characters, what stands where other URLs have a host is the first folder
 * ("file://tmp/x" is /tmp/x), and '//', '.', '..' and trailing slashes are cleaned away. Without a path it is the
 * current folder. (One difference: v0.3.13 writes %20 for a space in the URL, and so on for other characters that
 * Go escapes; here a space is a space.)
 *
 * Key K is the file ROOT/K. A put writes a hidden file ".NAME.<16 hex digits>.tmp" into K's folder, fsyncs it, gives it
 * its final name and fsyncs the folder. Names of that form are never listed and cannot be keys. Those that a dead
 * process left are removed after a day. New folders get mode 0700, new files 0600; nothing that exists is changed.
 * A deletion also removes the folders it emptied, but never the root.
 * Symbolic links are followed on the way to the root and to the folder part of a list's prefix; below that those that have a
 * name of the replica's layout (link.h), and no others. One of them that leads nowhere is LJ_UNAVAILABLE, not an absent object.
 *
 * Layer: storage. Thread-safety: as storage.h. Features: all of lj_storage_feature.
 */
#ifndef LJ_FILE_H
#define LJ_FILE_H

#include "vfs/storage/storage.h"

/*
 * Opens the store of a "file://" URL; nothing is touched yet: a root that is not there is an empty store that the first
 * put creates. Errors: LJ_INVALID (not file://, control characters), LJ_NOMEM. Options are not used.
 */
LJ_WARN_UNUSED lj_code lj_file_open(const char *url, const lj_storage_options *options,
                                    lj_storage **ret_storage, lj_error *err);

#endif
