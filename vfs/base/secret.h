/*
 * secret.h - a text that must not be seen: wiped when it is freed, and with no way to print it by accident.
 *
 * A struct and not a char *, so that "%s" of it is a warning of the compiler. Who really needs the bytes (a signature, a
 * request header) calls lj_secret_text and hands them on at once.
 *
 * Layer: base. Thread-safety: one owner; reading is free for all.
 */
#ifndef LJ_SECRET_H
#define LJ_SECRET_H

#include "vfs/base/error.h"

typedef struct {
    char *bytes; /* NUL-terminated; NULL: not set */
    size_t len;
} lj_secret;

#define LJ_SECRET_NONE                                                                             \
    {                                                                                              \
        .bytes = NULL, .len = 0                                                                    \
    }

/* Replaces the content by a copy of `text` (NULL: nothing); what was there is wiped. LJ_NOMEM leaves it as it was. */
LJ_WARN_UNUSED lj_code lj_secret_set(lj_secret *secret, const char *text, lj_error *err);
/* The same for `len` bytes. */
LJ_WARN_UNUSED lj_code lj_secret_set_bytes(lj_secret *secret, const char *bytes, size_t len,
                                           lj_error *err);
LJ_WARN_UNUSED lj_code lj_secret_copy(lj_secret *secret, const lj_secret *from, lj_error *err);
bool lj_secret_is_set(const lj_secret *secret);
/* The bytes, "" when not set. Valid until the secret changes. */
const char *lj_secret_text(const lj_secret *secret);
bool lj_secret_eq(const lj_secret *a, const lj_secret *b);
/* Wipes and frees. For LJ_CLEANUP too. */
void lj_secret_free(lj_secret *secret);

/* Overwrites memory in a way the compiler does not leave out. */
void lj_wipe(void *data, size_t len);
/* For LJ_CLEANUP on a `char *` that holds a text with a secret: wipes up to the NUL and frees. */
void lj_wipe_freep(void *ptr_to_text);

#endif
