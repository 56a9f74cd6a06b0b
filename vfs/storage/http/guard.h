/*
 * guard.h - libcurl inside someone else's process (for http/, parts.c and sftp/, whose libssh2 uses OpenSSL too): what its calls may not do to the host.
 *
 *   - raise SIGPIPE. With CURLOPT_NOSIGNAL libcurl leaves that to its caller, and a TLS library may write to a socket that
 *     was closed without MSG_NOSIGNAL.
 *   - start threads that take the host's signals (its resolver does: a thread begins with its maker's mask)
 *   - leave errors in the thread's OpenSSL queue
 *   - give sockets to programs that the host runs, or keep the parent's open in a child of fork
 *   - run while exit() takes OpenSSL apart
 *
 * Layer: storage. Thread-safety: any thread; a lj_guard belongs to the thread that began it.
 */
#ifndef LJ_HTTP_GUARD_H
#define LJ_HTTP_GUARD_H

#include <curl/curl.h>
#include <signal.h>

#include "vfs/base/base.h"

#define LJ_SOCKETS_MAX 8u

typedef struct {
    sigset_t mask;
    bool pipe_pending;
    int sys_errno;
} lj_guard;

/*
 * Around every call of libcurl that can send, connect or close. Asynchronous signals are blocked between them, so nothing
 * there may wait; what came in is delivered at the end.
 */
void lj_guard_begin(lj_guard *guard);
void lj_guard_end(const lj_guard *guard);

/* Before an atexit handler that still needs the network (lj_http_prepare). Sets the handlers of fork, too. */
void lj_guard_prepare(void);
/* Once per process, before libcurl is used: libcurl and OpenSSL are made ready. */
CURLcode lj_guard_init(void);

/* The sockets of one connection: one, but for the moments in which several addresses are tried. All 0: none. */
typedef struct {
    int fds[LJ_SOCKETS_MAX];
    unsigned count;
} lj_sockets;

/* Sets the callbacks that make and close sockets. `sockets` outlives the handle and its connections. */
CURLcode lj_guard_sockets(CURL *easy, lj_sockets *sockets);
/* Bytes in the kernel's send queues that the other side has not acknowledged; -1: unknown. */
int lj_guard_queued(const lj_sockets *sockets);

/*
 * A transfer begins (or a call whose threads make transfers, until they have ended); false when the process is about to
 * end, and then there is no leave.
 */
bool lj_guard_enter(void);
void lj_guard_leave(void);
bool lj_guard_stopping(void);

#endif
