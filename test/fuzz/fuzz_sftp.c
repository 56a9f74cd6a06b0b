/*
 * fuzz_sftp.c - what an SFTP server and the files of SSH say. The first byte chooses: 0 a packet with names and attributes, 1 a
 * known_hosts file, 2 a pin, 3 a private key.
 */
#include "test/fuzz/fuzz.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/storage/sftp/hostkey.h"
#include "vfs/storage/sftp/internal.h"
#include "vfs/storage/sftp/packet.h"

static const uint8_t KEY[] = "\0\0\0\x0bssh-ed25519\0\0\0\x20"
                             "0123456789abcdef0123456789abcdef";

static char *text_of(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    if (text == NULL)
        abort();
    if (size > 0)
        memcpy(text, data, size);
    text[size] = 0;
    return text;
}

/* Attributes that were read, written and read again are the same. */
static void check_attrs(const lj_fx_attrs *attrs)
{
    const uint32_t kept = LJ_FXA_SIZE | LJ_FXA_PERMISSIONS | LJ_FXA_TIMES;
    lj_fx_attrs plain = *attrs;
    plain.flags &= kept;
    lj_buf buf = LJ_BUF_INIT(4096);
    lj_error err = LJ_ERROR_INIT;
    lj_fx_writer writer = lj_fx_begin(&buf, LJ_FXP_FSETSTAT, 1);
    lj_fx_attrs_write(&writer, &plain);
    FUZZ_CHECK(lj_fx_end(&writer, &err) == LJ_OK);
    lj_fx_reader reader = lj_fx_reader_new(buf.data, buf.len);
    FUZZ_CHECK(lj_fx_read_u32(&reader) == buf.len - 4);
    FUZZ_CHECK(lj_fx_read_u8(&reader) == LJ_FXP_FSETSTAT && lj_fx_read_u32(&reader) == 1);
    lj_fx_attrs back;
    lj_fx_read_attrs(&reader, &back);
    FUZZ_CHECK(!reader.bad && reader.left == 0 && back.flags == plain.flags);
    FUZZ_CHECK((plain.flags & LJ_FXA_SIZE) == 0 || back.size == plain.size);
    FUZZ_CHECK((plain.flags & LJ_FXA_PERMISSIONS) == 0 || back.permissions == plain.permissions);
    FUZZ_CHECK((plain.flags & LJ_FXA_TIMES) == 0 || back.mtime == plain.mtime);
    lj_buf_free(&buf);
}

static void read_names(const uint8_t *data, size_t size)
{
    lj_fx_reader reader = lj_fx_reader_new(data, size);
    uint32_t count = lj_fx_read_u32(&reader);
    for (uint32_t i = 0; i < count && !reader.bad; i++) {
        size_t name_len = 0;
        size_t long_len = 0;
        const uint8_t *name = lj_fx_read_string(&reader, &name_len);
        const uint8_t *ignored = lj_fx_read_string(&reader, &long_len);
        lj_fx_attrs attrs;
        lj_fx_read_attrs(&reader, &attrs);
        FUZZ_CHECK(name != NULL && ignored != NULL);
        FUZZ_CHECK(reader.left <= size);
        if (!reader.bad) {
            FUZZ_CHECK(name_len == 0 || (name >= data && name + name_len <= data + size));
            check_attrs(&attrs);
        }
    }
    if (reader.bad)
        FUZZ_CHECK(lj_fx_read_u64(&reader) == 0 && lj_fx_read_u8(&reader) == 0);
}

static void read_known_hosts(const char *text)
{
    const lj_hostkey key = {.blob = KEY, .len = sizeof(KEY) - 1};
    lj_error err = LJ_ERROR_INIT;
    lj_known known;
    static const char *const names[] = {"example.com", "[example.com]:2222", "10.0.0.1"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(names); i++) {
        if (lj_known_hosts_find(text, names[i], &key, &known, &err) == LJ_OK) {
            FUZZ_CHECK(known.result <= LJ_KNOWN_REVOKED);
            FUZZ_CHECK((known.result == LJ_KNOWN_NOT) == (known.line == 0));
        }
        FUZZ_CHECK((lj_known_hosts_kinds(text, names[i]) &
                    ~(unsigned)(LJ_HOSTKEY_ED25519 | LJ_HOSTKEY_ECDSA | LJ_HOSTKEY_RSA)) == 0);
    }
    /* the text as a key of the wire */
    char type[LJ_HOSTKEY_TYPE_MAX];
    char fingerprint[LJ_FINGERPRINT_MAX];
    const lj_hostkey strange = {.blob = (const uint8_t *)text, .len = strlen(text)};
    lj_hostkey_type(&strange, type);
    lj_hostkey_fingerprint(&strange, fingerprint);
    FUZZ_CHECK(type[0] != 0 && fingerprint[0] != 0);
}

static void read_pin(const char *text)
{
    const lj_hostkey key = {.blob = KEY, .len = sizeof(KEY) - 1};
    lj_error err = LJ_ERROR_INIT;
    bool matches = false;
    if (lj_hostkey_pin_check(text, &err) == LJ_OK) {
        FUZZ_CHECK(lj_hostkey_pin_matches(text, &key, &matches, &err) != LJ_INVALID);
    } else {
        FUZZ_CHECK(err.code == LJ_INVALID || err.code == LJ_NOMEM);
    }
}

static void read_key(const char *text)
{
    lj_error err = LJ_ERROR_INIT;
    lj_secret none = {0};
    EVP_PKEY *key = NULL;
    if (lj_sftp_rsa_load(text, &none, &key, &err) != LJ_OK)
        return;
    FUZZ_CHECK(key != NULL);
    lj_buf blob = LJ_BUF_INIT(65536);
    if (lj_sftp_rsa_public(key, &blob, &err) == LJ_OK)
        FUZZ_CHECK(blob.len > 4);
    lj_buf_free(&blob);
    EVP_PKEY_free(key);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (data[0] % 4 == 0) {
        read_names(data + 1, size - 1);
        return 0;
    }
    char *text = text_of(data + 1, size - 1);
    if (data[0] % 4 == 1)
        read_known_hosts(text);
    else if (data[0] % 4 == 2)
        read_pin(text);
    else
        read_key(text);
    free(text);
    return 0;
}
