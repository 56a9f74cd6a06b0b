/*
 * sftp.h - the driver for a replica in a folder of an SSH server.
 *
 * URL: sftp://user[:password]@host[:port]/path. The path is absolute; without one, it is the login folder. User and
 * host must be there. Settings (litestream.yml, or the URL's query where it is no secret):
 *
 *     password            secret; beats the URL's
 *     key-path            private key file ("~/" is the home folder)
 *     key-passphrase      secret; of that key, or of the default keys
 *     known-hosts-path    default: ~/.ssh/known_hosts, then /etc/ssh/ssh_known_hosts
 *     host-key            the server's key: "SHA256:..." as ssh-keygen -l shows it, or "ssh-ed25519 AAAA...". Then no
 *                         known_hosts is read
 *     strict-host-key     true; false accepts any key, which is logged
 *     max-connections     to this server with this login, for the whole process: 1..64, default 8; more requests wait
 *
 * Environment, for the embedded way, whose URL must not have secrets: LITEJOIN_SFTP_PASSWORD,
 * LITEJOIN_SFTP_KEY_PASSPHRASE; SSH_AUTH_SOCK (the agent); HOME. Read when the store is opened.
 *
 * Tried in this order: key-path; the agent's keys; ~/.ssh/id_ed25519, id_ecdsa, id_rsa; the password. The host key is
 * checked before anything of that is sent.
 *
 * Key K is the file ROOT/K. A put makes the folders, writes ".NAME.<16 hex digits>.part" into K's folder, fsyncs it and
 * gives it its final name with a hard link, which fails when the name is taken, then fsyncs the folder (both fsyncs
 * as far as the server has fsync@openssh.com). With a server or a file system without hard links it is a rename, for which
 * the protocol demands the same, but of which not every server is atomic. Overwriting is posix-rename@openssh.com; without
 * that, the old object is deleted just before the rename. Names of unfinished puts are never listed; those that are older
 * than a day are removed by the next put or deletion after a list that met them. New folders get mode 0700, new files 0600.
 * A deletion also removes the folders it emptied, but never the root. Links to files are followed, links to
 * folders on the way to the folder part of a list's prefix, and below that where they have a name of the replica's layout
 * (link.h). A link that leads nowhere on the way to an object, or with such a name, is LJ_UNAVAILABLE, not an absent object.
 * Times have whole seconds. A server that does not let times be set is logged once; objects then have the time of writing.
 *
 * Layer: storage. Thread-safety: as storage.h. Features: LJ_STORAGE_IF_ABSENT, LJ_STORAGE_SET_TIME. Survives fork: the
 * child leaves the parent's connections alone.
 * Errors of its own: LJ_DENIED (retryable) for a host key that is unknown, has changed or is not the pinned one, and when no
 * way to log in is left; the message says which were tried. LJ_UNSUPPORTED for a server that does not say what is a file and what
 * a folder.
 */
#ifndef LJ_SFTP_H
#define LJ_SFTP_H

#include "vfs/storage/storage.h"

#define LJ_SFTP_PASSWORD_VARIABLE   "LITEJOIN_SFTP_PASSWORD"
#define LJ_SFTP_PASSPHRASE_VARIABLE "LITEJOIN_SFTP_KEY_PASSPHRASE"

/* Sets the handlers of fork; see lj_storage_prepare. */
void lj_sftp_prepare(void);

/* Opens the store of an "sftp://" URL; nothing is connected yet. Errors: LJ_INVALID, LJ_NOMEM. */
LJ_WARN_UNUSED lj_code lj_sftp_open(const char *url, const lj_storage_options *options,
                                    lj_storage **ret_storage, lj_error *err);

#endif
