/*
 * auth.c - logging in: every way that is configured, in the order of sftp.h, and what to say when none works.
 *
 * Layer: storage. Thread-safety: a session has one owner.
 * Invariants: secrets go to libssh2 and nowhere else; what was read of a key file is wiped. Nothing is ever asked
 * for on a terminal.
 */
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/io.h"
#include "vfs/base/str.h"
#include "vfs/storage/sftp/internal.h"

#define KEY_FILE_MAX ((size_t)64 * 1024)
#define BLOB_MAX     ((size_t)16 * 1024)
#define METHODS_MAX  160

typedef struct {
    lj_sftp_session *s;
    const lj_sftp_config *config;
    lj_sftp_tried tried;
    char methods[METHODS_MAX]; /* what the server offers */
    bool in;                   /* logged in */
} login_state;

static bool offers(const login_state *login, const char *method)
{
    size_t len = strlen(method);
    for (const char *at = login->methods; (at = strstr(at, method)) != NULL; at += len)
        if ((at == login->methods || at[-1] == ',') && (at[len] == ',' || at[len] == 0))
            return true;
    return false;
}

static unsigned user_len(const login_state *login)
{
    return (unsigned)strlen(login->config->user);
}

/* Asks what the server offers; one that wants nothing lets us in at once. */
static lj_code ask_methods(login_state *login, lj_error *err)
{
    lj_sftp_session *s = login->s;
    for (;;) {
        const char *list = libssh2_userauth_list(s->ssh, login->config->user, user_len(login));
        if (list != NULL) {
            snprintf(login->methods, sizeof(login->methods), "%s", list);
            return LJ_OK;
        }
        if (libssh2_userauth_authenticated(s->ssh) != 0) {
            login->in = true;
            return LJ_OK;
        }
        int rc = libssh2_session_last_errno(s->ssh);
        if (rc != LIBSSH2_ERROR_EAGAIN)
            return lj_sftp_ssh_error(s, rc, "SSH login", err);
        LJ_TRY(lj_sftp_wait(s, err));
    }
}

/* ---- key files ---- */

static void pkey_freep(EVP_PKEY **key)
{
    EVP_PKEY_free(*key);
}

static lj_code try_by_libssh2(login_state *login, const char *path, const char *how, lj_error *err)
{
    lj_sftp_session *s = login->s;
    int rc;
    for (;;) {
        /* never NULL: OpenSSL would ask for it on the terminal */
        rc = libssh2_userauth_publickey_fromfile_ex(s->ssh, login->config->user, user_len(login),
                                                    NULL, path,
                                                    lj_secret_text(&login->config->key_passphrase));
        if (rc != LIBSSH2_ERROR_EAGAIN)
            break;
        LJ_TRY(lj_sftp_wait(s, err));
    }
    login->in = rc == 0;
    if (rc == LIBSSH2_ERROR_AUTHENTICATION_FAILED)
        lj_sftp_tried_add(&login->tried, "key %s%s: refused", path, how);
    else if (rc == LIBSSH2_ERROR_PUBLICKEY_UNVERIFIED)
        lj_sftp_tried_add(&login->tried, "key %s%s: signature refused", path, how);
    else if (rc == LIBSSH2_ERROR_FILE || rc == LIBSSH2_ERROR_KEYFILE_AUTH_FAILED ||
             rc == LIBSSH2_ERROR_METHOD_NOT_SUPPORTED)
        lj_sftp_tried_add(&login->tried,
                          "key %s: it cannot be read: wrong key-passphrase, damaged, or of a kind "
                          "that libssh2 does not know",
                          path);
    else if (rc != 0)
        return lj_sftp_ssh_error(s, rc, "SSH login", err);
    return LJ_OK;
}

/*
 * libssh2 before 1.11 cannot sign with SHA-2: it is done by us. Afterwards with SHA-1, for servers that know nothing
 * better, and for key files that only libssh2 can read.
 */
static lj_code try_rsa(login_state *login, const char *path, const char *text, lj_error *err)
{
    LJ_CLEANUP(pkey_freep) EVP_PKEY *key = NULL;
    LJ_CLEANUP(lj_buf_free) lj_buf blob = LJ_BUF_INIT(BLOB_MAX);
    lj_error why = LJ_ERROR_INIT;
    LJ_CLEANUP(lj_freep) char *what = lj_str_printf("key %s", path);
    if (what == NULL)
        return lj_error_nomem(err);
    lj_code code = lj_sftp_rsa_load(text, &login->config->key_passphrase, &key, &why);
    if (code == LJ_OK)
        code = lj_sftp_rsa_public(key, &blob, &why);
    if (code != LJ_OK) {
        lj_sftp_tried_add(&login->tried, "%s: %s", what, why.message);
    } else {
        const lj_hostkey pub = {.blob = blob.data, .len = blob.len};
        LJ_TRY(lj_sftp_offer_key(login->s, &pub, lj_sftp_rsa_sign, key, what, &login->tried,
                                 &login->in, err));
    }
    if (login->in || (code != LJ_OK && code != LJ_UNSUPPORTED))
        return LJ_OK;
    return try_by_libssh2(login, path, " with SHA-1", err);
}

/* A key file that is not `named` by the configuration may be missing. */
static lj_code try_key_file(login_state *login, const char *path, bool named, lj_error *err)
{
    LJ_CLEANUP(lj_wipe_freep) char *text = NULL;
    size_t len = 0;
    lj_error why = LJ_ERROR_INIT;
    lj_sftp_key_info info;
    lj_code code = lj_io_read_file(path, KEY_FILE_MAX, &text, &len, &why);
    if (code != LJ_OK && !named)
        return LJ_OK;
    if (code == LJ_OK)
        code = lj_sftp_key_inspect(text, &info, &why);
    if (code != LJ_OK) {
        lj_sftp_tried_add(&login->tried, "key-path %s: %s", path, why.message);
        return LJ_OK;
    }
    if (info.encrypted && !lj_secret_is_set(&login->config->key_passphrase)) {
        lj_sftp_tried_add(&login->tried, "key %s: encrypted, and there is no key-passphrase", path);
        return LJ_OK;
    }
    if (info.rsa && libssh2_version(0x010b00) == NULL) {
        EVP_PKEY *probe = NULL;
        /* a PEM file may turn out to be of another kind */
        bool other =
            !info.openssh &&
            lj_sftp_rsa_load(text, &login->config->key_passphrase, &probe, NULL) == LJ_OK &&
            EVP_PKEY_get_base_id(probe) != EVP_PKEY_RSA;
        EVP_PKEY_free(probe);
        if (!other)
            return try_rsa(login, path, text, err);
    }
    return try_by_libssh2(login, path, "", err);
}

static lj_code try_default_keys(login_state *login, lj_error *err)
{
    static const char *const names[] = {"id_ed25519", "id_ecdsa", "id_rsa"};
    if (login->config->home == NULL)
        return LJ_OK;
    for (size_t i = 0; i < LJ_ARRAY_LEN(names) && !login->in; i++) {
        LJ_CLEANUP(lj_freep)
        char *path = lj_str_printf("%s/.ssh/%s", login->config->home, names[i]);
        if (path == NULL)
            return lj_error_nomem(err);
        bool twice = login->config->key_path != NULL && strcmp(path, login->config->key_path) == 0;
        if (!twice)
            LJ_TRY(try_key_file(login, path, false, err));
    }
    return LJ_OK;
}

/* ---- the agent ---- */

typedef struct {
    lj_sftp_agent *agent;
    const lj_hostkey *key;
} agent_signer;

static lj_code sign_by_agent(void *ctx, const char *algorithm, const void *data, size_t len,
                             lj_buf *ret_signature, lj_error *err)
{
    const agent_signer *signer = ctx;
    return lj_sftp_agent_sign(signer->agent, signer->key, algorithm, data, len, ret_signature, err);
}

static lj_code try_agent(login_state *login, lj_error *err)
{
    if (login->config->agent_path == NULL)
        return LJ_OK;
    LJ_CLEANUP(lj_sftp_agent_close) lj_sftp_agent agent = {.session = NULL};
    lj_error why = LJ_ERROR_INIT;
    if (lj_sftp_agent_open(login->s, &agent, &why) != LJ_OK) {
        if (login->s->broken) { /* cancelled, or out of time */
            if (err != NULL)
                *err = why;
            return why.code;
        }
        lj_sftp_tried_add(&login->tried, "agent: %s", why.message);
        return LJ_OK;
    }
    if (agent.count == 0)
        lj_sftp_tried_add(&login->tried, "agent: it has no keys");
    for (size_t i = 0; i < agent.count && !login->in; i++) {
        agent_signer signer = {.agent = &agent, .key = &agent.keys[i]};
        LJ_TRY(lj_sftp_offer_key(login->s, signer.key, sign_by_agent, &signer, "agent key",
                                 &login->tried, &login->in, err));
    }
    return LJ_OK;
}

/* ---- the password ---- */

static lj_code try_password(login_state *login, lj_error *err)
{
    lj_sftp_session *s = login->s;
    const lj_secret *password = &login->config->password;
    int rc;
    for (;;) {
        rc = libssh2_userauth_password_ex(s->ssh, login->config->user, user_len(login),
                                          lj_secret_text(password), (unsigned)password->len, NULL);
        if (rc != LIBSSH2_ERROR_EAGAIN)
            break;
        LJ_TRY(lj_sftp_wait(s, err));
    }
    login->in = rc == 0;
    if (rc == LIBSSH2_ERROR_PASSWORD_EXPIRED)
        lj_sftp_tried_add(&login->tried, "password: it has expired");
    else if (rc == LIBSSH2_ERROR_AUTHENTICATION_FAILED)
        lj_sftp_tried_add(&login->tried, "password: refused");
    else if (rc != 0)
        return lj_sftp_ssh_error(s, rc, "SSH login", err);
    return LJ_OK;
}

/* Answers every question that is not to be seen on a screen with the password. */
static void answer_questions(const char *name, int name_len, const char *instruction,
                             int instruction_len, int count,
                             const LIBSSH2_USERAUTH_KBDINT_PROMPT *prompts,
                             LIBSSH2_USERAUTH_KBDINT_RESPONSE *responses, void **abstract)
{
    (void)name, (void)name_len, (void)instruction, (void)instruction_len;
    const lj_sftp_session *s = *abstract;
    for (int i = 0; i < count; i++) {
        bool hidden = prompts[i].echo == 0 || count == 1;
        const char *text = hidden ? lj_secret_text(&s->config->password) : "";
        responses[i].text = strdup(text); /* freed by libssh2 */
        responses[i].length = responses[i].text != NULL ? (unsigned)strlen(text) : 0;
    }
}

static lj_code try_questions(login_state *login, lj_error *err)
{
    lj_sftp_session *s = login->s;
    int rc;
    for (;;) {
        rc = libssh2_userauth_keyboard_interactive_ex(s->ssh, login->config->user, user_len(login),
                                                      answer_questions);
        if (rc != LIBSSH2_ERROR_EAGAIN)
            break;
        LJ_TRY(lj_sftp_wait(s, err));
    }
    login->in = rc == 0;
    if (rc == LIBSSH2_ERROR_AUTHENTICATION_FAILED)
        lj_sftp_tried_add(&login->tried, "password (keyboard-interactive): refused");
    else if (rc != 0)
        return lj_sftp_ssh_error(s, rc, "SSH login", err);
    return LJ_OK;
}

/* ---- in order ---- */

static lj_code try_keys(login_state *login, lj_error *err)
{
    if (!offers(login, "publickey")) {
        if (login->config->key_path != NULL)
            lj_sftp_tried_add(&login->tried, "key-path: the server takes no keys");
        return LJ_OK;
    }
    if (login->config->key_path != NULL)
        LJ_TRY(try_key_file(login, login->config->key_path, true, err));
    if (!login->in)
        LJ_TRY(try_agent(login, err));
    return login->in ? LJ_OK : try_default_keys(login, err);
}

static lj_code try_everything(login_state *login, lj_error *err)
{
    LJ_TRY(ask_methods(login, err));
    if (!login->in)
        LJ_TRY(try_keys(login, err));
    if (login->in)
        return LJ_OK;
    if (!lj_secret_is_set(&login->config->password))
        return LJ_OK;
    /* also where only keys are offered: the server may want both, one after the other */
    if (offers(login, "password") || !offers(login, "keyboard-interactive"))
        LJ_TRY(try_password(login, err));
    if (!login->in && offers(login, "keyboard-interactive"))
        LJ_TRY(try_questions(login, err));
    return LJ_OK;
}

lj_code lj_sftp_login(lj_sftp_session *s, lj_error *err)
{
    login_state login = {.s = s, .config = s->config};
    lj_code code = try_everything(&login, err);
    if (code == LJ_OK && login.in)
        return LJ_OK;
    if (code != LJ_OK) {
        if (login.tried.text[0] != 0)
            (void)lj_error_context(err, "login as %s (tried before: %s)", s->config->user,
                                   login.tried.text);
        return code;
    }
    s->broken = true;
    lj_error_set(err, LJ_DENIED, "%s does not let %s log in; it offers %s; tried: %s",
                 s->config->host, s->config->user, login.methods,
                 login.tried.text[0] != 0 ? login.tried.text : "nothing, as nothing is configured");
    (void)lj_error_hint(err, "give a key with key-path, load one into the SSH agent, or give a "
                             "password (LITEJOIN_SFTP_PASSWORD); the public key must be in the "
                             "server's authorized_keys");
    return lj_error_retryable(err, true);
}
