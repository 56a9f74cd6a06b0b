/*
 * extension.c - the entry point of the loadable extension.
 *
 * SQLite calls it at every load_extension; registering again is harmless. The library stays loaded for good
 * (SQLITE_OK_LOAD_PERMANENTLY, and the linker's nodelete), because its VFS is in SQLite's list.
 *
 * Layer: shim. Source: "Run-Time Loadable Extensions", sections 3 and 5 of SQLite's documentation.
 */
#include <sqlite3ext.h>
SQLITE_EXTENSION_INIT1

#include "litejoin_vfs.h"

#include "vfs/shim/handle.h"

static void sql_last_error(sqlite3_context *context, int argc, sqlite3_value **argv)
{
    (void)argc;
    (void)argv;
    sqlite3_result_text(context, litejoin_last_error(), -1, SQLITE_TRANSIENT);
}

/* Every new connection gets litejoin_last_error(): after a failed open it is the way to ask from SQL. */
static int add_functions(sqlite3 *db, char **ret_message, const sqlite3_api_routines *api)
{
    (void)ret_message;
    (void)api;
    return sqlite3_create_function(db, "litejoin_last_error", 0, SQLITE_UTF8 | SQLITE_DIRECTONLY,
                                   NULL, sql_last_error, NULL, NULL);
}

LITEJOIN_API int sqlite3_litejoinvfs_init(sqlite3 *db, char **ret_message,
                                          const sqlite3_api_routines *api);

LITEJOIN_API int sqlite3_litejoinvfs_init(sqlite3 *db, char **ret_message,
                                          const sqlite3_api_routines *api)
{
    SQLITE_EXTENSION_INIT2(api);
    if (sqlite3_libversion_number() < 3040000) {
        *ret_message = sqlite3_mprintf("litejoin needs SQLite 3.40.0 or later, this is %s",
                                       sqlite3_libversion());
        return SQLITE_ERROR;
    }
    int rc = litejoin_vfs_register(NULL);
    if (rc != SQLITE_OK) {
        *ret_message = sqlite3_mprintf("litejoin: %s", litejoin_last_error());
        return rc;
    }
    if (db != NULL)
        add_functions(db, NULL, api);
    sqlite3_auto_extension((void (*)(void))add_functions);
    return SQLITE_OK_LOAD_PERMANENTLY;
}
