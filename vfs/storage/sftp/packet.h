/*
 * packet.h - the packets of SFTP version 3 as bytes: building requests, reading answers.
 *
 * Layer: storage. Thread-safety: pure. Source: draft-ietf-secsh-filexfer-02; OpenSSH's PROTOCOL section 4 for extensions.
 */
#ifndef LJ_SFTP_PACKET_H
#define LJ_SFTP_PACKET_H

#include "vfs/base/buf.h"

#define LJ_FX_VERSION 3

enum {
    LJ_FXP_INIT = 1,
    LJ_FXP_VERSION = 2,
    LJ_FXP_OPEN = 3,
    LJ_FXP_CLOSE = 4,
    LJ_FXP_READ = 5,
    LJ_FXP_WRITE = 6,
    LJ_FXP_LSTAT = 7,
    LJ_FXP_FSTAT = 8,
    LJ_FXP_FSETSTAT = 10,
    LJ_FXP_OPENDIR = 11,
    LJ_FXP_READDIR = 12,
    LJ_FXP_REMOVE = 13,
    LJ_FXP_MKDIR = 14,
    LJ_FXP_RMDIR = 15,
    LJ_FXP_STAT = 17,
    LJ_FXP_RENAME = 18,
    LJ_FXP_STATUS = 101,
    LJ_FXP_HANDLE = 102,
    LJ_FXP_DATA = 103,
    LJ_FXP_NAME = 104,
    LJ_FXP_ATTRS = 105,
    LJ_FXP_EXTENDED = 200,
    LJ_FXP_EXTENDED_REPLY = 201,
};

/* Status codes; those from 10 on come from later drafts, and some servers send them. */
enum {
    LJ_FX_OK = 0,
    LJ_FX_EOF = 1,
    LJ_FX_NO_SUCH_FILE = 2,
    LJ_FX_PERMISSION_DENIED = 3,
    LJ_FX_FAILURE = 4,
    LJ_FX_OP_UNSUPPORTED = 8,
    LJ_FX_NO_SUCH_PATH = 10,
    LJ_FX_FILE_ALREADY_EXISTS = 11,
    LJ_FX_WRITE_PROTECT = 12,
    LJ_FX_NO_SPACE = 14,
    LJ_FX_QUOTA_EXCEEDED = 15,
};

enum { LJ_FXF_READ = 1, LJ_FXF_WRITE = 2, LJ_FXF_CREAT = 8, LJ_FXF_TRUNC = 16, LJ_FXF_EXCL = 32 };

enum { LJ_FXA_SIZE = 1, LJ_FXA_UIDGID = 2, LJ_FXA_PERMISSIONS = 4, LJ_FXA_TIMES = 8 };
#define LJ_FXA_EXTENDED UINT32_C(0x80000000)

/* Only the fields that `flags` names mean something. */
typedef struct {
    uint32_t flags;
    uint64_t size;
    uint32_t permissions; /* with the type bits of stat(2) */
    uint32_t atime;
    uint32_t mtime;
} lj_fx_attrs;

/* ---- reading: once something is missing, `bad` stays set and all values are 0 ---- */

typedef struct {
    const uint8_t *data;
    size_t left;
    bool bad;
} lj_fx_reader;

lj_fx_reader lj_fx_reader_new(const void *data, size_t len);
uint8_t lj_fx_read_u8(lj_fx_reader *reader);
uint32_t lj_fx_read_u32(lj_fx_reader *reader);
uint64_t lj_fx_read_u64(lj_fx_reader *reader);
/* Points into the data; *ret_len is 0 when bad. The result is never NULL. */
const uint8_t *lj_fx_read_string(lj_fx_reader *reader, size_t *ret_len);
void lj_fx_read_attrs(lj_fx_reader *reader, lj_fx_attrs *ret_attrs);

/* ---- building: a failure (out of memory, too long) is kept until lj_fx_end ---- */

typedef struct {
    lj_buf *buf;
    size_t start; /* of the packet's length field */
    bool failed;
} lj_fx_writer;

/* Begins a packet at the end of `buf`; INIT has its version where others have their id. */
lj_fx_writer lj_fx_begin(lj_buf *buf, uint8_t type, uint32_t id);
void lj_fx_u32(lj_fx_writer *writer, uint32_t value);
void lj_fx_u64(lj_fx_writer *writer, uint64_t value);
void lj_fx_string(lj_fx_writer *writer, const void *data, size_t len);
void lj_fx_text(lj_fx_writer *writer, const char *text);
void lj_fx_attrs_write(lj_fx_writer *writer, const lj_fx_attrs *attrs);
/* Fills in the length. On failure `buf` is as it was before the packet: LJ_NOMEM. */
LJ_WARN_UNUSED lj_code lj_fx_end(lj_fx_writer *writer, lj_error *err);

#endif
