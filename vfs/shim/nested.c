/*
 * nested.c - see nested.h.
 *
 * Source: "URI Filenames" of SQLite's documentation, section 3 (what has to be escaped).
 */
#include "vfs/shim/nested.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "file:PATH?psow=N" */
static char *uri_of(const char *path, bool psow0)
{
    char *uri = malloc(strlen(path) * 3 + 20);
    if (uri == NULL)
        return NULL;
    memcpy(uri, "file:", 5);
    char *to = uri + 5;
    for (const char *from = path; *from != 0; from++) {
        if (*from == '%' || *from == '?' || *from == '#') {
            *to++ = '%';
            *to++ = "0123456789abcdef"[(unsigned char)*from >> 4];
            *to++ = "0123456789abcdef"[(unsigned char)*from & 15];
        } else {
            *to++ = *from;
        }
    }
    memcpy(to, psow0 ? "?psow=0" : "?psow=1", 8);
    return uri;
}

int lj_nested_open(const lj_open *open, bool psow0, sqlite3 **ret_db)
{
    *ret_db = NULL;
    /* by name, because that is all sqlite3_open_v2 takes: another VFS may have that name by now */
    if (sqlite3_vfs_find(open->base->zName) != open->base)
        return SQLITE_ERROR;
    char *uri = uri_of(open->db->path, psow0);
    if (uri == NULL)
        return SQLITE_NOMEM;
    sqlite3 *db = NULL;
    /* a cache of its own: an open with a shared one waits for a mutex that our caller may hold */
    int rc = sqlite3_open_v2(uri, &db,
                             SQLITE_OPEN_READWRITE | SQLITE_OPEN_URI | SQLITE_OPEN_PRIVATECACHE,
                             open->base->zName);
    free(uri);
    int now = 0;
    if (rc == SQLITE_OK)
        rc = sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, &now);
    if (rc == SQLITE_OK && now != 1)
        rc = SQLITE_ERROR;
    if (rc != SQLITE_OK) {
        sqlite3_close(db);
        return rc;
    }
    *ret_db = db;
    return SQLITE_OK;
}

int lj_nested_ask(sqlite3 *db, const char *sql, char *out, size_t size)
{
    sqlite3_stmt *stmt = NULL;
    out[0] = 0;
    int rc = sqlite3_prepare_v2(db, sql, -1, &stmt, NULL);
    if (rc != SQLITE_OK)
        return rc;
    rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW) {
        const unsigned char *text = sqlite3_column_text(stmt, 0);
        snprintf(out, size, "%s", text != NULL ? (const char *)text : "");
        rc = SQLITE_DONE;
    }
    int end = sqlite3_finalize(stmt);
    return rc == SQLITE_DONE ? end : rc;
}
