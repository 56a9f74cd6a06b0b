/*
 * claim.c - see claim.h.
 */
#include "vfs/shim/claim.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/base/str.h"
#include "vfs/shim/handle.h"

#define NAMES_HINT "give one of the two a replica_name or replica_url of its own"

static struct {
    pthread_mutex_t mutex;
    lj_table by_url; /* of the claims without a rival */
} claims = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static lj_file_id id_of(const struct stat *st)
{
    return (lj_file_id){.device = (uint64_t)st->st_dev, .inode = (uint64_t)st->st_ino};
}

static bool is_same(const lj_file_id *one, const lj_file_id *two)
{
    return one->inode != 0 && one->inode == two->inode && one->device == two->device;
}

static bool is_same_database(const lj_claim *one, const lj_claim *two)
{
    return strcmp(one->path, two->path) == 0 || is_same(&one->file, &two->file) ||
           (is_same(&one->folder, &two->folder) &&
            strcmp(lj_str_basename(one->path), lj_str_basename(two->path)) == 0);
}

/* It is being opened, or is the file that has its name. What cannot be told counts as in its place. */
static bool is_in_place(const lj_claim *claim)
{
    struct stat st;
    if (claim->file.inode == 0)
        return true;
    if (stat(claim->path, &st) != 0)
        return errno != ENOENT && errno != ENOTDIR;
    lj_file_id now = id_of(&st);
    return is_same(&now, &claim->file);
}

static const lj_claim *rival_locked(const lj_claim *claim, uint64_t hash)
{
    for (lj_link *link = lj_table_first(&claims.by_url, hash); link != NULL;
         link = lj_table_next(link)) {
        const lj_claim *other = link->owner;
        if (strcmp(other->url, claim->url) == 0 && !is_same_database(other, claim) &&
            is_in_place(other))
            return other;
    }
    return NULL;
}

static lj_code enter(lj_claim *claim, lj_error *err)
{
    lj_code code = LJ_OK;
    uint64_t hash = lj_hash_text(claim->url);
    pthread_mutex_lock(&claims.mutex);
    const lj_claim *rival = rival_locked(claim, hash);
    if (rival == NULL)
        lj_table_add(&claims.by_url, &claim->by_url, claim, hash);
    else if ((claim->rival = lj_str_dup(rival->path)) == NULL)
        code = lj_error_nomem(err);
    pthread_mutex_unlock(&claims.mutex);
    return code;
}

lj_code lj_claim_new(const char *path, const lj_config *config, lj_claim **ret_claim, lj_error *err)
{
    LJ_CLEANUP(lj_claim_freep) lj_claim *claim = calloc(1, sizeof(*claim));
    LJ_CLEANUP(lj_freep) char *folder = lj_str_dirname(path);
    if (claim == NULL || folder == NULL)
        return lj_error_nomem(err);
    claim->epoch = lj_process_epoch;
    LJ_TRY(lj_config_replica_url(config, path, &claim->url, err));
    claim->path = lj_str_dup(path);
    if (claim->path == NULL)
        return lj_error_nomem(err);
    /* an empty file may be replaced by what is restored */
    struct stat st;
    if (stat(path, &st) == 0 && st.st_size > 0)
        claim->file = id_of(&st);
    if (stat(folder, &st) == 0)
        claim->folder = id_of(&st);
    LJ_TRY(enter(claim, err));
    *ret_claim = claim;
    claim = NULL;
    return LJ_OK;
}

void lj_claim_free(lj_claim *claim)
{
    if (claim == NULL)
        return;
    if (claim->epoch == lj_process_epoch) {
        pthread_mutex_lock(&claims.mutex);
        lj_table_remove(&claims.by_url, &claim->by_url);
        pthread_mutex_unlock(&claims.mutex);
    }
    free(claim->url);
    free(claim->path);
    free(claim->rival);
    free(claim);
}

void lj_claim_freep(lj_claim **claim)
{
    lj_claim_free(*claim);
}

void lj_claim_settle(lj_claim *claim, const struct stat *st)
{
    pthread_mutex_lock(&claims.mutex);
    claim->file = id_of(st);
    pthread_mutex_unlock(&claims.mutex);
}

lj_code lj_claim_not_replicated(const lj_claim *claim, const char *url, lj_error *err)
{
    lj_error_set(err, LJ_CONFLICT,
                 "not replicating: the replica %s belongs to %s, which this process has open too",
                 url, claim->rival);
    return lj_error_hint(err, NAMES_HINT);
}

lj_code lj_claim_not_restored(const lj_claim *claim, const char *url, lj_error *err)
{
    lj_error_set(err, LJ_CONFLICT,
                 "%s is missing or empty, and what it would be restored from, %s, is the replica "
                 "of %s, which this process has open",
                 claim->path, url, claim->rival);
    return lj_error_hint(err, NAMES_HINT
                         "; a copy that is not to be replicated, as of VACUUM INTO, opens with "
                         "vfs=unix: 'file:copy.db?vfs=unix'");
}

void lj_claim_in_child(void)
{
    pthread_mutex_init(&claims.mutex, NULL);
    memset(&claims.by_url, 0, sizeof(claims.by_url));
}
