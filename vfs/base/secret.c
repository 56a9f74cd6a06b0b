/*
 * secret.c - see secret.h.
 */
#include "vfs/base/secret.h"

#include <stdlib.h>
#include <string.h>

void lj_wipe(void *data, size_t len)
{
    if (data != NULL)
        explicit_bzero(data, len);
}

void lj_wipe_freep(void *ptr_to_text)
{
    char **text = ptr_to_text;
    if (*text != NULL)
        lj_wipe(*text, strlen(*text));
    free(*text);
    *text = NULL;
}

void lj_secret_free(lj_secret *secret)
{
    lj_wipe(secret->bytes, secret->len);
    free(secret->bytes);
    *secret = (lj_secret)LJ_SECRET_NONE;
}

lj_code lj_secret_set_bytes(lj_secret *secret, const char *bytes, size_t len, lj_error *err)
{
    char *copy = malloc(len + 1);
    if (copy == NULL)
        return lj_error_nomem(err);
    memcpy(copy, bytes, len);
    copy[len] = 0;
    lj_secret_free(secret);
    secret->bytes = copy;
    secret->len = len;
    return LJ_OK;
}

lj_code lj_secret_set(lj_secret *secret, const char *text, lj_error *err)
{
    if (text != NULL)
        return lj_secret_set_bytes(secret, text, strlen(text), err);
    lj_secret_free(secret);
    return LJ_OK;
}

lj_code lj_secret_copy(lj_secret *secret, const lj_secret *from, lj_error *err)
{
    if (from->bytes != NULL)
        return lj_secret_set_bytes(secret, from->bytes, from->len, err);
    lj_secret_free(secret);
    return LJ_OK;
}

bool lj_secret_is_set(const lj_secret *secret)
{
    return secret->bytes != NULL && secret->len > 0;
}

const char *lj_secret_text(const lj_secret *secret)
{
    return secret->bytes != NULL ? secret->bytes : "";
}

bool lj_secret_eq(const lj_secret *a, const lj_secret *b)
{
    return a->len == b->len && (a->len == 0 || memcmp(a->bytes, b->bytes, a->len) == 0);
}
