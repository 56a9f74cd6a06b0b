/*
 * connect.c - a new connection: handshake, host key, login, SFTP subsystem.
 *
 * Layer: storage. Thread-safety: a session has one owner; the known_hosts files are only read.
 * Invariants: nothing that tells who we are is sent before the host key is found to be right. No signal is raised
 * by a connection that broke.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vfs/base/io.h"
#include "vfs/base/log.h"
#include "vfs/base/str.h"
#include "vfs/storage/sftp/hostkey.h"
#include "vfs/storage/sftp/internal.h"

#define KNOWN_HOSTS_BYTES_MAX ((size_t)16 * 1024 * 1024)
#define SYSTEM_KNOWN_HOSTS    "/etc/ssh/ssh_known_hosts"
#define WINDOW_BYTES          (2u * 1024u * 1024u)
#define BUFFER_BYTES_MAX      ((size_t)1024 * 1024)
#define FREE_TRIES            64

/* ---- libssh2's view of the socket ---- */

static void moved(lj_sftp_session *s, ssize_t n)
{
    s->stalled_ns = 0;
    s->budget_ns += n * (LJ_NS_PER_S / LJ_SFTP_SLOWEST);
}

static ssize_t send_bytes(libssh2_socket_t fd, const void *data, size_t len, int flags,
                          void **abstract)
{
    (void)flags;
    ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
    if (n < 0)
        return errno == EWOULDBLOCK ? -EAGAIN : -errno;
    moved(*abstract, n);
    return n;
}

static ssize_t receive_bytes(libssh2_socket_t fd, void *data, size_t len, int flags,
                             void **abstract)
{
    (void)flags;
    ssize_t n = recv(fd, data, len, 0);
    if (n < 0)
        return errno == EWOULDBLOCK ? -EAGAIN : -errno;
    moved(*abstract, n);
    return n;
}

static void set_callbacks(LIBSSH2_SESSION *ssh)
{
#if LIBSSH2_VERSION_NUM >= 0x010b01
    (void)libssh2_session_callback_set2(ssh, LIBSSH2_CALLBACK_SEND,
                                        (libssh2_cb_generic *)send_bytes);
    (void)libssh2_session_callback_set2(ssh, LIBSSH2_CALLBACK_RECV,
                                        (libssh2_cb_generic *)receive_bytes);
#else
    /* the old way takes functions as void *, which ISO C does not know: through a union */
    const union {
        ssize_t (*send)(libssh2_socket_t, const void *, size_t, int, void **);
        void *pointer;
    } sender = {.send = send_bytes};
    const union {
        ssize_t (*receive)(libssh2_socket_t, void *, size_t, int, void **);
        void *pointer;
    } receiver = {.receive = receive_bytes};
    (void)libssh2_session_callback_set(ssh, LIBSSH2_CALLBACK_SEND, sender.pointer);
    (void)libssh2_session_callback_set(ssh, LIBSSH2_CALLBACK_RECV, receiver.pointer);
#endif
}

static pthread_once_t libssh2_once = PTHREAD_ONCE_INIT;
static int libssh2_init_rc;

static void init_libssh2(void)
{
    libssh2_init_rc = libssh2_init(0);
}

static lj_code session_new(const lj_sftp_config *config, const bool *cancel,
                           lj_sftp_session **ret_session, lj_error *err)
{
    pthread_once(&libssh2_once, init_libssh2);
    if (libssh2_init_rc != 0)
        return lj_error_set(err, LJ_INTERNAL, "libssh2 cannot be used (error %d)", libssh2_init_rc);
    lj_sftp_session *s = calloc(1, sizeof(*s));
    LIBSSH2_SESSION *ssh = s != NULL ? lj_sftp_ssh_new(s) : NULL;
    if (ssh == NULL) {
        free(s);
        return lj_error_nomem(err);
    }
    s->fd = -1;
    s->ssh = ssh;
    s->out.max = BUFFER_BYTES_MAX;
    s->in.max = BUFFER_BYTES_MAX;
    s->stall_ns = config->stall_ns;
    s->config = config;
    lj_sftp_begin(s, cancel);
    libssh2_session_set_blocking(ssh, 0);
    set_callbacks(ssh);
    *ret_session = s;
    return LJ_OK;
}

void lj_sftp_session_free(lj_sftp_session *s)
{
    if (s == NULL)
        return;
    if (!s->broken && s->channel != NULL) /* before, libssh2 may not even know the socket */
        (void)libssh2_session_disconnect(s->ssh, "done");
    /* on a socket that is shut down nothing waits, so freeing comes to its end */
    if (s->fd >= 0)
        (void)shutdown(s->fd, SHUT_RDWR);
    for (int i = 0; i < FREE_TRIES && libssh2_session_free(s->ssh) == LIBSSH2_ERROR_EAGAIN; i++)
        continue;
    lj_closep(&s->fd);
    lj_buf_free(&s->out);
    lj_buf_free(&s->in);
    free(s);
}

void lj_sftp_session_abandon(lj_sftp_session *s)
{
    lj_closep(&s->fd);
}

/* ---- the host key ---- */

/* What is known of the host; the texts are in one list, in the order of reading. */
typedef struct {
    char *paths[2];
    char *texts[2]; /* NULL: there is no such file */
    size_t count;
    char *name;       /* with the port when it is not 22 */
    char *plain_name; /* without */
} known_hosts;

static void known_hosts_free(known_hosts *known)
{
    for (size_t i = 0; i < known->count; i++) {
        free(known->paths[i]);
        free(known->texts[i]);
    }
    free(known->name);
    free(known->plain_name);
}

static lj_code read_known(known_hosts *known, char *path, bool named, lj_error *err)
{
    if (path == NULL)
        return lj_error_nomem(err);
    known->paths[known->count] = path;
    known->texts[known->count] = NULL;
    lj_error why = LJ_ERROR_INIT;
    size_t len = 0;
    lj_code code =
        lj_io_read_file(path, KNOWN_HOSTS_BYTES_MAX, &known->texts[known->count++], &len, &why);
    if (code == LJ_OK || code == LJ_NOTFOUND || (!named && code == LJ_DENIED))
        return LJ_OK;
    (void)lj_error_context(&why, "known hosts");
    if (err != NULL)
        *err = why;
    return code;
}

static lj_code known_hosts_read(const lj_sftp_config *config, known_hosts *known, lj_error *err)
{
    known->name = lj_known_hosts_name(config->host, config->port);
    known->plain_name = lj_known_hosts_name(config->host, 22);
    if (known->name == NULL || known->plain_name == NULL)
        return lj_error_nomem(err);
    if (config->known_hosts_path != NULL)
        return read_known(known, lj_str_dup(config->known_hosts_path), true, err);
    if (config->home != NULL)
        LJ_TRY(read_known(known, lj_str_printf("%s/.ssh/known_hosts", config->home), false, err));
    return read_known(known, lj_str_dup(SYSTEM_KNOWN_HOSTS), false, err);
}

/* Looks in all files; *ret_file is the one that decides. */
static lj_code find_known(const known_hosts *known, const char *name, const lj_hostkey *key,
                          lj_known *ret_known, const char **ret_file, lj_error *err)
{
    ret_known->result = LJ_KNOWN_NOT;
    for (size_t i = 0; i < known->count; i++) {
        lj_known one = {.result = LJ_KNOWN_NOT};
        if (known->texts[i] != NULL)
            LJ_TRY(lj_known_hosts_find(known->texts[i], name, key, &one, err));
        if (one.result > ret_known->result) {
            *ret_known = one;
            *ret_file = known->paths[i];
        }
    }
    return LJ_OK;
}

/* Whose key it is, for the messages. */
typedef struct {
    const lj_sftp_config *config;
    char type[LJ_HOSTKEY_TYPE_MAX];
    char fingerprint[LJ_FINGERPRINT_MAX];
} seen_key;

static lj_code unknown_key(const seen_key *seen, const known_hosts *known, lj_error *err)
{
    char port[16] = "";
    if (seen->config->port != 22)
        snprintf(port, sizeof(port), "-p %u ", seen->config->port);
    lj_error_set(err, LJ_DENIED, "the host key of %s is not known: %s %s (looked in %s%s%s)",
                 known->name, seen->type, seen->fingerprint, known->paths[0],
                 known->count > 1 ? " and " : "", known->count > 1 ? known->paths[1] : "");
    (void)lj_error_hint(err,
                        "if that is the server's key: \"ssh-keyscan %s%s >> %s\", or the setting "
                        "host-key: %s",
                        port, seen->config->host, known->paths[0], seen->fingerprint);
    return lj_error_retryable(err, true);
}

static lj_code changed_key(const seen_key *seen, const known_hosts *known, const lj_known *found,
                           const char *file, lj_error *err)
{
    lj_error_set(err, LJ_DENIED,
                 "the host key of %s HAS CHANGED: the server shows %s %s, but line %u of %s has %s "
                 "%s: the server was set up anew, or somebody is in between",
                 known->name, seen->type, seen->fingerprint, found->line, file, found->type,
                 found->fingerprint);
    (void)lj_error_hint(
        err,
        "only if the new key is right: \"ssh-keygen -R '%s' -f %s\" and add it with "
        "ssh-keyscan, or the setting host-key: %s",
        known->name, file, seen->fingerprint);
    return lj_error_retryable(err, true);
}

static lj_code check_known(const seen_key *seen, const known_hosts *known, const lj_hostkey *key,
                           lj_error *err)
{
    lj_known found;
    const char *file = "";
    LJ_TRY(find_known(known, known->name, key, &found, &file, err));
    if (found.result == LJ_KNOWN_NOT && strcmp(known->name, known->plain_name) != 0) {
        /* as OpenSSH: the same key under the name without the port is good, another one says nothing */
        lj_known plain;
        LJ_TRY(find_known(known, known->plain_name, key, &plain, &file, err));
        if (plain.result == LJ_KNOWN_YES || plain.result == LJ_KNOWN_REVOKED)
            found = plain;
    }
    switch (found.result) {
    case LJ_KNOWN_YES:
        return LJ_OK;
    case LJ_KNOWN_NOT:
        return unknown_key(seen, known, err);
    case LJ_KNOWN_REVOKED:
        lj_error_set(err, LJ_DENIED, "the host key of %s, %s %s, is revoked by line %u of %s",
                     known->name, seen->type, seen->fingerprint, found.line, file);
        return lj_error_retryable(err, true);
    default:
        return changed_key(seen, known, &found, file, err);
    }
}

static lj_code check_pin(const seen_key *seen, const lj_hostkey *key, lj_error *err)
{
    bool matches = false;
    LJ_TRY(lj_hostkey_pin_matches(seen->config->host_key, key, &matches, err));
    if (matches)
        return LJ_OK;
    lj_error_set(err, LJ_DENIED,
                 "the host key of %s is %s %s, not the one that host-key names (%s)",
                 seen->config->host, seen->type, seen->fingerprint, seen->config->host_key);
    (void)lj_error_hint(err,
                        "the server was set up anew, somebody is in between, or host-key is of "
                        "another key of that server: only if it is right, put %s there",
                        seen->fingerprint);
    return lj_error_retryable(err, true);
}

static lj_code check_host_key(const lj_sftp *sftp, lj_sftp_session *s, const known_hosts *known,
                              lj_error *err)
{
    size_t len = 0;
    int kind = 0;
    const char *blob = libssh2_session_hostkey(s->ssh, &len, &kind);
    if (blob == NULL)
        return lj_sftp_nonsense(s, "there is no host key", err);
    const lj_hostkey key = {.blob = (const uint8_t *)blob, .len = len};
    seen_key seen = {.config = s->config};
    lj_hostkey_type(&key, seen.type);
    lj_hostkey_fingerprint(&key, seen.fingerprint);
    if (s->config->host_key != NULL)
        return check_pin(&seen, &key, err);
    if (!s->config->any_host_key)
        return check_known(&seen, known, &key, err);
    if (!__atomic_exchange_n(&sftp->target->warned_host_key, true, __ATOMIC_RELAXED))
        lj_log(
            LJ_LOG_WARN,
            "sftp: strict-host-key is off: the host key of %s, %s %s, is not checked; the setting "
            "host-key: %s would pin it",
            s->config->host, seen.type, seen.fingerprint, seen.fingerprint);
    return LJ_OK;
}

/* ---- the handshake ---- */

static bool is_supported(const char *name, const char *const *supported, int count)
{
    for (int i = 0; i < count; i++)
        if (strcmp(supported[i], name) == 0)
            return true;
    return false;
}

/*
 * Kinds of keys that we would recognize come first, so that a server with several shows one of them. Only names that
 * libssh2 knows: up to 1.10 it corrupts the list when it takes out others.
 */
static lj_code prefer_host_keys(lj_sftp_session *s, unsigned kinds, lj_error *err)
{
    static const struct {
        unsigned kind;
        const char *name;
    } rows[] = {{LJ_HOSTKEY_ED25519, "ssh-ed25519"},
                {LJ_HOSTKEY_ECDSA, "ecdsa-sha2-nistp256"},
                {LJ_HOSTKEY_ECDSA, "ecdsa-sha2-nistp384"},
                {LJ_HOSTKEY_ECDSA, "ecdsa-sha2-nistp521"},
                {LJ_HOSTKEY_RSA, "rsa-sha2-512"},
                {LJ_HOSTKEY_RSA, "rsa-sha2-256"},
                {LJ_HOSTKEY_RSA, "ssh-rsa"}};
    const char **supported = NULL;
    int count = libssh2_session_supported_algs(s->ssh, LIBSSH2_METHOD_HOSTKEY, &supported);
    if (count <= 0)
        return lj_sftp_ssh_error(s, count, "cannot list host key types", err);
    char list[256] = "";
    for (int known = 1; known >= 0; known--)
        for (size_t i = 0; i < LJ_ARRAY_LEN(rows); i++)
            if (((kinds & rows[i].kind) != 0) == (known == 1) &&
                is_supported(rows[i].name, (const char *const *)supported, count))
                snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s",
                         list[0] != 0 ? "," : "", rows[i].name);
    libssh2_free(s->ssh, supported);
    int rc = libssh2_session_method_pref(s->ssh, LIBSSH2_METHOD_HOSTKEY, list);
    return rc == 0 ? LJ_OK : lj_sftp_ssh_error(s, rc, "cannot choose host key types", err);
}

static lj_code handshake(lj_sftp_session *s, lj_error *err)
{
    for (;;) {
        int rc = libssh2_session_handshake(s->ssh, s->fd);
        if (rc == 0)
            return LJ_OK;
        if (rc != LIBSSH2_ERROR_EAGAIN) {
            lj_code code = lj_sftp_ssh_error(s, rc, "SSH handshake", err);
            if (rc == LIBSSH2_ERROR_KEX_FAILURE || rc == LIBSSH2_ERROR_KEY_EXCHANGE_FAILURE)
                (void)lj_error_hint(err,
                                    "server and libssh2 %s may have no algorithm in common "
                                    "(before 1.11 it knows RSA host keys with SHA-1 only: give "
                                    "the server an ed25519 host key)",
                                    libssh2_version(0));
            return code;
        }
        LJ_TRY(lj_sftp_wait(s, err));
    }
}

static lj_code open_channel(lj_sftp_session *s, lj_error *err)
{
    while (s->channel == NULL) {
        s->channel = libssh2_channel_open_ex(s->ssh, "session", 7, WINDOW_BYTES,
                                             LIBSSH2_CHANNEL_PACKET_DEFAULT, NULL, 0);
        if (s->channel != NULL)
            break;
        int rc = libssh2_session_last_errno(s->ssh);
        if (rc != LIBSSH2_ERROR_EAGAIN)
            return lj_sftp_ssh_error(s, rc, "cannot open an SSH channel", err);
        LJ_TRY(lj_sftp_wait(s, err));
    }
    for (;;) {
        int rc = libssh2_channel_subsystem(s->channel, "sftp");
        if (rc == 0)
            return LJ_OK;
        if (rc != LIBSSH2_ERROR_EAGAIN) {
            lj_code code = lj_sftp_ssh_error(s, rc, "cannot start SFTP", err);
            if (rc == LIBSSH2_ERROR_CHANNEL_REQUEST_DENIED)
                (void)lj_error_hint(err, "the server lets us log in but has no SFTP: see Subsystem "
                                         "in its sshd_config");
            return code;
        }
        LJ_TRY(lj_sftp_wait(s, err));
    }
}

static lj_code connect_steps(const lj_sftp *sftp, lj_sftp_session *s, lj_error *err)
{
    const lj_sftp_config *config = s->config;
    LJ_CLEANUP(known_hosts_free) known_hosts known = {.count = 0};
    unsigned kinds = 0;
    if (config->host_key != NULL) {
        kinds = lj_hostkey_kind(config->host_key, strcspn(config->host_key, " \t"));
    } else if (!config->any_host_key) {
        LJ_TRY(known_hosts_read(config, &known, err));
        for (size_t i = 0; i < known.count; i++)
            if (known.texts[i] != NULL)
                kinds |= lj_known_hosts_kinds(known.texts[i], known.name);
    }
    LJ_TRY(lj_sftp_dial(config, s->cancel, &s->fd, err));
    LJ_TRY(prefer_host_keys(s, kinds, err));
    LJ_TRY(handshake(s, err));
    LJ_TRY(check_host_key(sftp, s, &known, err));
    LJ_TRY(lj_sftp_login(s, err));
    LJ_TRY(open_channel(s, err));
    return lj_sftp_hello(s, err);
}

lj_code lj_sftp_connect(lj_sftp *sftp, lj_sftp_session **ret_session, lj_error *err)
{
    lj_sftp_session *s = NULL;
    LJ_TRY(session_new(&sftp->config, sftp->cancel, &s, err));
    lj_code code = connect_steps(sftp, s, err);
    s->config = NULL;
    if (code != LJ_OK)
        lj_sftp_session_free(s);
    else
        *ret_session = s;
    return code;
}
