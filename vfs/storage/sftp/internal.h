/*
 * internal.h - what the parts of the SFTP driver share. Not for other folders, except their tests.
 *
 *     sftp.c    URL, settings          connect.c  name, socket, handshake, host key   auth.c, agent.c, rsa.c  login
 *     pool.c    connections kept       wire.c     packets over the connection         packet.c, hostkey.c     pure
 *     get.c, put.c, list.c, delete.c   the operations
 *
 * Why not libcurl's SFTP: its listings have times in minutes, it cannot fsync, and it does not say why a rename failed. Why
 * not libssh2's SFTP calls: up to 1.11.0 they know neither posix-rename nor hard links, and not which extensions the server
 * has. So libssh2 does SSH (encryption, login, channel), and the few SFTP requests we need are made here, with as many of
 * them on the way at once as the operation can use.
 *
 * Layer: storage. Thread-safety: a session belongs to the thread that took it from the pool.
 */
#ifndef LJ_SFTP_INTERNAL_H
#define LJ_SFTP_INTERNAL_H

#include <libssh2.h>
#include <openssl/types.h>
#include <pthread.h>

#include "vfs/base/secret.h"
#include "vfs/storage/auth/crypto.h"
#include "vfs/storage/sftp/hostkey.h"
#include "vfs/storage/sftp/packet.h"
#include "vfs/storage/storage.h"

/* ---- what is configured ---- */

typedef struct {
    char *user;
    char *host;
    uint16_t port;
    lj_secret password;       /* not set: none */
    char *key_path;           /* NULL: none named; "~/" is expanded */
    lj_secret key_passphrase; /* not set: none */
    char *agent_path;         /* NULL: no agent */
    char *home;               /* NULL: unknown */
    char *known_hosts_path;   /* NULL: the default ones */
    char *host_key;           /* the pin; NULL: none */
    bool any_host_key;
    unsigned max_connections;
    int64_t stall_ns;
} lj_sftp_config;

/* ---- connections (pool.c) ---- */

/*
 * A login on a server, shared by all storages of the process that have the same configuration. Guarded by the mutex of
 * pool.c, but for the flags.
 */
typedef struct lj_sftp_target {
    uint8_t identity[LJ_SHA256_BYTES];
    size_t refs;
    unsigned open; /* connections, idle or in use, of this process */
    struct lj_sftp_session *idle;
    bool warned_host_key; /* atomic: said that no host key is checked */
    bool warned_times;    /* atomic: said that times cannot be set */
    bool warned_busy;     /* atomic: said that there are too few connections */
    bool no_hard_links;   /* atomic: they did not work */
    bool hard_links;      /* atomic: one was made, so the server keeps a name that is taken */
    struct lj_sftp_target *next;
} lj_sftp_target;

/* Extensions the server has. */
enum {
    LJ_SFTP_POSIX_RENAME = 1,
    LJ_SFTP_HARDLINK = 2,
    LJ_SFTP_FSYNC = 4,
    LJ_SFTP_STATVFS = 8,
    LJ_SFTP_LIMITS = 16,
};

typedef struct lj_sftp_session {
    int fd;
    LIBSSH2_SESSION *ssh;
    LIBSSH2_CHANNEL *channel;
    bool broken;          /* not to be used again */
    bool cancelled;       /* and that is why */
    int64_t grace_end_ns; /* see lj_sftp_grace_begin; 0: none */
    /* waiting: how long without a byte, and for how long in all */
    int64_t stall_ns;
    int64_t stalled_ns;
    int64_t budget_ns;
    const bool *cancel;
    const lj_sftp_config *config; /* while connecting */
    struct lj_sftp_offer *offer;  /* while a key is being offered (offer.c) */
    /* a libssh2 call that must be repeated before any other, because its packet is sent in part */
    bool write_in_part;
    bool read_in_part;
    lj_buf out; /* requests; sent up to out_done */
    size_t out_done;
    lj_buf in; /* answers; used up to in_done */
    size_t in_done;
    uint32_t next_id;
    uint32_t first_id; /* of the operation at hand: answers to earlier requests are thrown away */
    unsigned extensions;
    uint32_t max_read; /* bytes of data per request */
    uint32_t max_write;
    int64_t idle_since_ns;
    struct lj_sftp_session *next;
} lj_sftp_session;

/* The target for this configuration, made when it is the first. Freed with lj_sftp_target_free. */
LJ_WARN_UNUSED lj_code lj_sftp_target_get(const lj_sftp_config *config, lj_sftp_target **ret_target,
                                          lj_error *err);
void lj_sftp_target_free(lj_sftp_target *target);

typedef struct {
    lj_sftp_config config;
    char *root; /* clean; "" is the login folder, "/" the server's root */
    const bool *cancel;
    lj_sftp_target *target;
    pthread_mutex_t mutex; /* guards what follows; rank: leaf */
    char *stale
        [16]; /* paths of unfinished puts: old ones that a list met, own ones whose connection was lost */
    size_t stale_count;
} lj_sftp;

/*
 * An idle connection that still works, else a new one. Waits while there are max_connections of them. Give it back in
 * any case, on the same thread.
 */
LJ_WARN_UNUSED lj_code lj_sftp_take(lj_sftp *sftp, lj_sftp_session **ret_session, lj_error *err);
/* Closed when broken, or when it is one too many; so are those of all targets that were idle for a minute. */
void lj_sftp_give(lj_sftp *sftp, lj_sftp_session *session);

/* ---- connecting (connect.c, auth.c, agent.c) ---- */

LJ_WARN_UNUSED lj_code lj_sftp_connect(lj_sftp *sftp, lj_sftp_session **ret_session, lj_error *err);
/* Closes and frees without waiting for the server. */
void lj_sftp_session_free(lj_sftp_session *session);
/* In a child after fork: frees the descriptor only, and lets the parent's connection live. */
void lj_sftp_session_abandon(lj_sftp_session *session);
/* A connected socket, non-blocking. Ends when cancelled. */
LJ_WARN_UNUSED lj_code lj_sftp_dial(const lj_sftp_config *config, const bool *cancel, int *ret_fd,
                                    lj_error *err);
/* Logs in on a connection whose host key was checked. */
LJ_WARN_UNUSED lj_code lj_sftp_login(lj_sftp_session *session, lj_error *err);

/* One line about every way that was tried, for the error. */
typedef struct {
    char text[360];
} lj_sftp_tried;
void lj_sftp_tried_add(lj_sftp_tried *tried, const char *fmt, ...) LJ_PRINTF(2, 3);

/* A libssh2 session whose abstract pointer is `session`. NULL when out of memory. */
LIBSSH2_SESSION *lj_sftp_ssh_new(lj_sftp_session *session);

/* Signs `data` for the key that is being offered. `algorithm` is what the server was told ("rsa-sha2-512"). */
typedef lj_code (*lj_sftp_sign_fn)(void *ctx, const char *algorithm, const void *data, size_t len,
                                   lj_buf *ret_signature, lj_error *err);
/*
 * Offers a public key, and signs with `sign` when the server takes it. *ret_accepted: we are logged in. A failure of `sign`
 * is no failure here, but stands in `tried`. Knows how to make libssh2 before 1.11 use SHA-2 with RSA keys.
 */
LJ_WARN_UNUSED lj_code lj_sftp_offer_key(lj_sftp_session *session, const lj_hostkey *key,
                                         lj_sftp_sign_fn sign, void *ctx, const char *what,
                                         lj_sftp_tried *tried, bool *ret_accepted, lj_error *err);

/* What can be told of a private key file without its passphrase. */
typedef struct {
    bool openssh; /* "OPENSSH PRIVATE KEY"; else PEM of OpenSSL */
    bool encrypted;
    bool rsa;
} lj_sftp_key_info;
/* LJ_INVALID: no private key. */
LJ_WARN_UNUSED lj_code lj_sftp_key_inspect(const char *text, lj_sftp_key_info *ret_info,
                                           lj_error *err);
/* The RSA key in `text`, as EVP_PKEY; freed by EVP_PKEY_free. LJ_UNSUPPORTED: an encrypted one in OpenSSH's format. */
LJ_WARN_UNUSED lj_code lj_sftp_rsa_load(const char *text, const lj_secret *passphrase,
                                        EVP_PKEY **ret_key, lj_error *err);
/* Its public half as it comes over the wire, and signatures by it. */
LJ_WARN_UNUSED lj_code lj_sftp_rsa_public(const EVP_PKEY *key, lj_buf *blob, lj_error *err);
LJ_WARN_UNUSED lj_code lj_sftp_rsa_sign(void *key, const char *algorithm, const void *data,
                                        size_t len, lj_buf *ret_signature, lj_error *err);

/* The public keys an agent has, and signatures by it. */
#define LJ_SFTP_AGENT_KEYS 32u
typedef struct {
    lj_sftp_session *session; /* whose time and cancellation count */
    int fd;
    lj_buf answer; /* with all keys in it */
    lj_hostkey keys[LJ_SFTP_AGENT_KEYS];
    size_t count;
} lj_sftp_agent;
/* `agent` is zeroed; to be closed in any case. Keys of kinds that libssh2 cannot use are left out. */
LJ_WARN_UNUSED lj_code lj_sftp_agent_open(lj_sftp_session *session, lj_sftp_agent *agent,
                                          lj_error *err);
void lj_sftp_agent_close(lj_sftp_agent *agent);
/* The bare signature, without its algorithm. */
LJ_WARN_UNUSED lj_code lj_sftp_agent_sign(lj_sftp_agent *agent, const lj_hostkey *key,
                                          const char *algorithm, const void *data, size_t len,
                                          lj_buf *ret_signature, lj_error *err);

/* ---- packets on their way (wire.c) ---- */

/* An operation may wait for so many stall timeouts in all, and longer by what moves at LJ_SFTP_SLOWEST bytes/s. */
#define LJ_SFTP_STALLS_IN_ALL 10
#define LJ_SFTP_SLOWEST       16384

/*
 * Waits up to 100 ms for the socket, as far as libssh2's last call wants that. LJ_TIMEOUT when nothing came for too long,
 * LJ_CANCELLED.
 */
LJ_WARN_UNUSED lj_code lj_sftp_wait(lj_sftp_session *session, lj_error *err);
/* The same for another descriptor. */
LJ_WARN_UNUSED lj_code lj_sftp_wait_fd(lj_sftp_session *session, int fd, short events,
                                       lj_error *err);
/* The error of a libssh2 call that gave `rc`; the session is broken then. */
lj_code lj_sftp_ssh_error(lj_sftp_session *session, int rc, const char *what, lj_error *err);

/* Begins an operation: its time, and its numbers. */
void lj_sftp_begin(lj_sftp_session *session, const bool *cancel);
/*
 * For what should still be tidied up when the operation was cancelled: true when it was, and the connection may be used for
 * 100 ms more. It is broken afterwards all the same (lj_sftp_grace_end).
 */
bool lj_sftp_grace_begin(lj_sftp_session *session);
void lj_sftp_grace_end(lj_sftp_session *session);
/* Answers to what was asked so far will be thrown away. */
void lj_sftp_forget(lj_sftp_session *session);
/* Begins a request at the end of session->out; lj_fx_end closes it. */
lj_fx_writer lj_sftp_request(lj_sftp_session *session, uint8_t type, uint32_t *ret_id);

/* An answer. `body` reads what is behind the id; valid until the next lj_sftp_receive. */
typedef struct {
    uint8_t type;
    uint32_t id;
    lj_fx_reader body;
} lj_sftp_answer;

/* The next answer to a request of this operation; without `wait`, *ret_there may be false. */
LJ_WARN_UNUSED lj_code lj_sftp_receive(lj_sftp_session *session, bool wait,
                                       lj_sftp_answer *ret_answer, bool *ret_there, lj_error *err);
/* The answer to request `id`, which must be the next one. */
LJ_WARN_UNUSED lj_code lj_sftp_receive_id(lj_sftp_session *session, uint32_t id,
                                          lj_sftp_answer *ret_answer, lj_error *err);
/* Sends what can be sent at once. */
void lj_sftp_flush(lj_sftp_session *session);
/* The connection's first packets: version, extensions, limits. */
LJ_WARN_UNUSED lj_code lj_sftp_hello(lj_sftp_session *session, lj_error *err);
/* LJ_UNAVAILABLE, and the session is broken: an answer that is none. */
lj_code lj_sftp_nonsense(lj_sftp_session *session, const char *what, lj_error *err);

/* The status in a STATUS answer; any other type: nonsense. */
LJ_WARN_UNUSED lj_code lj_sftp_status(lj_sftp_session *session, lj_sftp_answer *answer,
                                      uint32_t *ret_status, lj_error *err);
/* An error for a status other than LJ_FX_OK: "<what> <path>: ...". */
lj_code lj_sftp_status_error(uint32_t status, const char *what, const char *path, lj_error *err);

#define LJ_SFTP_HANDLE_MAX 256u
typedef struct {
    uint8_t bytes[LJ_SFTP_HANDLE_MAX];
    size_t len; /* 0: none */
} lj_sftp_handle;

/* Reads a HANDLE answer. A STATUS: *ret_status, and the handle has no bytes. */
LJ_WARN_UNUSED lj_code lj_sftp_handle_of(lj_sftp_session *session, lj_sftp_answer *answer,
                                         lj_sftp_handle *ret_handle, uint32_t *ret_status,
                                         lj_error *err);
/* Reads an ATTRS answer, likewise; LJ_FX_OK when there are attributes. */
LJ_WARN_UNUSED lj_code lj_sftp_attrs_of(lj_sftp_session *session, lj_sftp_answer *answer,
                                        lj_fx_attrs *ret_attrs, uint32_t *ret_status,
                                        lj_error *err);

/* Requests that consist of a path or a handle; put at the end of session->out. */
LJ_WARN_UNUSED lj_code lj_sftp_ask_path(lj_sftp_session *session, uint8_t type, const char *path,
                                        uint32_t *ret_id, lj_error *err);
LJ_WARN_UNUSED lj_code lj_sftp_ask_handle(lj_sftp_session *session, uint8_t type,
                                          const lj_sftp_handle *handle, uint32_t *ret_id,
                                          lj_error *err);
LJ_WARN_UNUSED lj_code lj_sftp_ask_open(lj_sftp_session *session, const char *path, uint32_t flags,
                                        uint32_t *ret_id, lj_error *err);
/* Whole exchanges. */
LJ_WARN_UNUSED lj_code lj_sftp_do_path(lj_sftp_session *session, uint8_t type, const char *path,
                                       uint32_t *ret_status, lj_error *err);
LJ_WARN_UNUSED lj_code lj_sftp_do_stat(lj_sftp_session *session, uint8_t type, const char *path,
                                       lj_fx_attrs *ret_attrs, uint32_t *ret_status, lj_error *err);

/* ---- names, and what the operations share ---- */

#define LJ_SFTP_NAME_MAX 255u

bool lj_sftp_is_temp(const char *name);
/* The name of a new unfinished file beside `name`, allocated. */
char *lj_sftp_temp_name(const char *name);
/* ROOT/<key>, or the root itself ("." for the login folder) for "". Allocated; NULL when out of memory. */
char *lj_sftp_path(const lj_sftp *sftp, const char *key);
/* After "no such file": LJ_INVALID when `path`, or a part of it, is a file and no folder; else LJ_OK. */
LJ_WARN_UNUSED lj_code lj_sftp_check_folder(lj_sftp_session *session, const char *path,
                                            lj_error *err);
/* The same for the root. */
LJ_WARN_UNUSED lj_code lj_sftp_check_root(const lj_sftp *sftp, lj_sftp_session *session,
                                          lj_error *err);
/*
 * After "no such file" for `path`: LJ_UNAVAILABLE when a link on the way to it leads nowhere; behind one whose target is not
 * mounted there may be a replica. Else LJ_OK.
 */
LJ_WARN_UNUSED lj_code lj_sftp_check_links(lj_sftp_session *session, const char *path,
                                           lj_error *err);
/* The error for such a link. */
lj_code lj_sftp_leads_nowhere(const char *path, lj_error *err);
bool lj_sftp_is_file(const lj_fx_attrs *attrs);
bool lj_sftp_is_folder(const lj_fx_attrs *attrs);
bool lj_sftp_is_link(const lj_fx_attrs *attrs);
/* Whether the server says what it is. It need not: attributes may lack the permissions, and these the bits for that. */
bool lj_sftp_has_kind(const lj_fx_attrs *attrs);
/* The error when it does not. */
lj_code lj_sftp_no_kind(const char *path, lj_error *err);
/* Remembers an old unfinished put that a list met; and deletes those that are remembered. */
void lj_sftp_stale_add(lj_sftp *sftp, const char *path);
void lj_sftp_stale_delete(lj_sftp *sftp, lj_sftp_session *session);

/* The members of lj_storage_ops. */
LJ_WARN_UNUSED lj_code lj_sftp_put(void *self, const char *key, lj_source *source,
                                   const lj_storage_put_options *options, lj_error *err);
LJ_WARN_UNUSED lj_code lj_sftp_get(void *self, const char *key, uint64_t offset, int64_t length,
                                   lj_sink *sink, lj_error *err);
LJ_WARN_UNUSED lj_code lj_sftp_head(void *self, const char *key, lj_storage_entry *ret_entry,
                                    lj_error *err);
LJ_WARN_UNUSED lj_code lj_sftp_list(void *self, const char *prefix, const char *after,
                                    lj_storage_list_fn fn, void *ctx, lj_error *err);
LJ_WARN_UNUSED lj_code lj_sftp_delete_many(void *self, const char *const *keys, size_t count,
                                           lj_storage_delete_fn fn, void *ctx, lj_error *err);

#endif
