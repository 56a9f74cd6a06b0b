/*
 * agent.c - a client of the SSH agent: which keys it has, and signatures.
 *
 * libssh2's own client blocks without a deadline, and up to 1.10 asks for RSA signatures with SHA-1 only.
 *
 * Layer: storage. Thread-safety: one owner. Source: draft-miller-ssh-agent.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "vfs/base/io.h"
#include "vfs/storage/sftp/internal.h"

#define MESSAGE_MAX ((size_t)256 * 1024)

enum {
    REQUEST_IDENTITIES = 11,
    IDENTITIES_ANSWER = 12,
    SIGN_REQUEST = 13,
    SIGN_RESPONSE = 14,
    RSA_SHA2_256 = 2,
    RSA_SHA2_512 = 4,
};

/* Sends or receives exactly `len` bytes. */
static lj_code transfer(lj_sftp_agent *agent, bool sending, uint8_t *data, size_t len,
                        lj_error *err)
{
    while (len > 0) {
        ssize_t n =
            sending ? send(agent->fd, data, len, MSG_NOSIGNAL) : recv(agent->fd, data, len, 0);
        if (n > 0) {
            agent->session->stalled_ns = 0;
            data += n;
            len -= (size_t)n;
        } else if (n == 0) {
            return lj_error_set(err, LJ_UNAVAILABLE, "the SSH agent closed the connection");
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            lj_code code =
                lj_sftp_wait_fd(agent->session, agent->fd, sending ? POLLOUT : POLLIN, err);
            if (code != LJ_OK) {
                (void)lj_error_context(err, "SSH agent");
                return code;
            }
        } else if (errno != EINTR) {
            return lj_error_errno(err, errno, "cannot talk to the SSH agent");
        }
    }
    return LJ_OK;
}

/* Sends `request` (without its length) and reads the answer, which must be of this type. */
static lj_code exchange(lj_sftp_agent *agent, const lj_buf *request, uint8_t type, lj_buf *answer,
                        lj_error *err)
{
    uint8_t length[4];
    lj_put_be32(length, (uint32_t)request->len);
    LJ_TRY(transfer(agent, true, length, sizeof(length), err));
    LJ_TRY(transfer(agent, true, request->data, request->len, err));
    LJ_TRY(transfer(agent, false, length, sizeof(length), err));
    uint32_t len = lj_get_be32(length);
    if (len < 1 || len > MESSAGE_MAX)
        return lj_error_set(err, LJ_IO, "the SSH agent's answer has an impossible length");
    lj_buf_clear(answer);
    LJ_TRY(lj_buf_reserve(answer, len, err));
    LJ_TRY(transfer(agent, false, answer->data, len, err));
    answer->len = len;
    if (answer->data[0] != type)
        return lj_error_set(err, LJ_DENIED, "the SSH agent refused");
    return LJ_OK;
}

static lj_code connect_agent(lj_sftp_agent *agent, const char *path, lj_error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path))
        return lj_error_set(err, LJ_INVALID, "the path of the SSH agent's socket is too long");
    memcpy(address.sun_path, path, strlen(path) + 1);
    agent->fd = lj_io_above_stdio(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (agent->fd < 0)
        return lj_error_errno(err, errno, "cannot make a socket");
    if (connect(agent->fd, (const struct sockaddr *)&address, sizeof(address)) != 0)
        return lj_error_errno(err, errno, "cannot connect to the SSH agent at %s", path);
    return LJ_OK;
}

lj_code lj_sftp_agent_open(lj_sftp_session *session, lj_sftp_agent *agent, lj_error *err)
{
    *agent = (lj_sftp_agent){.session = session, .fd = -1, .answer = LJ_BUF_INIT(MESSAGE_MAX)};
    LJ_TRY(connect_agent(agent, session->config->agent_path, err));
    LJ_CLEANUP(lj_buf_free) lj_buf request = LJ_BUF_INIT(16);
    LJ_TRY(lj_buf_append(&request, &(uint8_t){REQUEST_IDENTITIES}, 1, err));
    LJ_TRY(exchange(agent, &request, IDENTITIES_ANSWER, &agent->answer, err));
    lj_fx_reader reader = lj_fx_reader_new(agent->answer.data + 1, agent->answer.len - 1);
    uint32_t count = lj_fx_read_u32(&reader);
    for (uint32_t i = 0; i < count && agent->count < LJ_SFTP_AGENT_KEYS; i++) {
        lj_hostkey key = {.blob = NULL};
        size_t ignored = 0;
        key.blob = lj_fx_read_string(&reader, &key.len);
        (void)lj_fx_read_string(&reader, &ignored);
        if (reader.bad)
            return lj_error_set(err, LJ_IO, "the SSH agent's list of keys is cut off");
        char type[LJ_HOSTKEY_TYPE_MAX];
        lj_hostkey_type(&key, type);
        if (lj_hostkey_kind(type, strlen(type)) != 0)
            agent->keys[agent->count++] = key;
    }
    return LJ_OK;
}

void lj_sftp_agent_close(lj_sftp_agent *agent)
{
    if (agent->session == NULL)
        return;
    lj_closep(&agent->fd);
    lj_buf_free(&agent->answer);
}

lj_code lj_sftp_agent_sign(lj_sftp_agent *agent, const lj_hostkey *key, const char *algorithm,
                           const void *data, size_t len, lj_buf *ret_signature, lj_error *err)
{
    uint32_t flags = 0;
    if (strcmp(algorithm, "rsa-sha2-512") == 0)
        flags = RSA_SHA2_512;
    else if (strcmp(algorithm, "rsa-sha2-256") == 0)
        flags = RSA_SHA2_256;
    LJ_CLEANUP(lj_buf_free) lj_buf request = LJ_BUF_INIT(MESSAGE_MAX);
    LJ_CLEANUP(lj_buf_free) lj_buf answer = LJ_BUF_INIT(MESSAGE_MAX);
    LJ_TRY(lj_buf_append(&request, &(uint8_t){SIGN_REQUEST}, 1, err));
    lj_fx_writer w = {.buf = &request, .start = 0, .failed = false};
    lj_fx_string(&w, key->blob, key->len);
    lj_fx_string(&w, data, len);
    lj_fx_u32(&w, flags);
    if (w.failed)
        return lj_error_nomem(err);
    LJ_TRY(exchange(agent, &request, SIGN_RESPONSE, &answer, err));
    lj_fx_reader outer = lj_fx_reader_new(answer.data + 1, answer.len - 1);
    size_t inner_len = 0;
    const uint8_t *inner = lj_fx_read_string(&outer, &inner_len);
    lj_fx_reader reader = lj_fx_reader_new(inner, inner_len);
    size_t name_len = 0;
    const uint8_t *name = lj_fx_read_string(&reader, &name_len);
    size_t signature_len = 0;
    const uint8_t *signature = lj_fx_read_string(&reader, &signature_len);
    if (outer.bad || reader.bad || signature_len == 0)
        return lj_error_set(err, LJ_IO, "the SSH agent's signature is cut off");
    if (name_len != strlen(algorithm) || memcmp(name, algorithm, name_len) != 0)
        return lj_error_set(err, LJ_UNSUPPORTED, "the SSH agent cannot sign with %s", algorithm);
    return lj_buf_append(ret_signature, signature, signature_len, err);
}
