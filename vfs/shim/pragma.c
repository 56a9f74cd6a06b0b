/*
 * pragma.c - PRAGMA litejoin_status, litejoin_sync[=TIMEOUT], litejoin_snapshot[=TIMEOUT], litejoin_durability[=VALUE],
 * litejoin_wait='POSITION[,TIMEOUT]'.
 *
 * SQLite hands a pragma to the file while preparing it: args[1] is its name, args[2] its argument or NULL, and the answer (one
 * row, one column) or the error text goes to args[0], allocated by sqlite3_mprintf.
 *
 * Layer: shim.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "vfs/base/clock.h"
#include "vfs/base/str.h"
#include "vfs/capture/moved.h"
#include "vfs/shim/handle.h"

static int answer_error(char **args, const lj_error *err)
{
    char text[LJ_ERROR_TEXT_MAX];
    lj_error_format(err, text, sizeof(text));
    lj_last_error_set(err);
    args[0] = sqlite3_mprintf("litejoin: %s", text);
    return SQLITE_ERROR;
}

static int answer_not_replicated(char **args)
{
    lj_error err = LJ_ERROR_INIT;
    lj_error_set(&err, LJ_UNSUPPORTED, "this database is not replicated");
    lj_error_hint(&err, "name a replica: file:NAME?vfs=litejoin&replica_url=URL, "
                        "LITEJOIN_REPLICA_URL or litejoin.yaml");
    return answer_error(args, &err);
}

static int answer_position(lj_db *db, char **args)
{
    char text[LJ_POSITION_TEXT_MAX];
    pthread_mutex_lock(&db->mutex);
    lj_position_format(&db->pos, text);
    pthread_mutex_unlock(&db->mutex);
    args[0] = sqlite3_mprintf("%s", text);
    return SQLITE_OK;
}

static void position_text(const lj_db_status *s, uint32_t index, uint64_t offset,
                          char out[LJ_POSITION_TEXT_MAX])
{
    lj_position at = {.index = index, .offset = offset};
    memcpy(at.generation, s->generation, sizeof(at.generation));
    lj_position_format(&at, out);
}

static int pragma_status(lj_file *file, char **args)
{
    lj_db *db = lj_open_alive(file->open) ? file->open->db : NULL;
    lj_db_status s = {.text = "off"};
    char path[4200];
    char url[2100];
    char state[2 * sizeof(s.text)];
    char error[2 * LJ_ERROR_TEXT_MAX];
    char given_up[2 * sizeof(s.last_break)];
    char snapshot[LJ_CLOCK_TEXT_MAX] = "";
    if (db != NULL) {
        (void)lj_db_in_place(db); /* the state says if it is not */
        lj_db_get_status(db, &s);
    }
    lj_str_json(path, sizeof(path), db != NULL ? db->path : "");
    lj_str_json(url, sizeof(url), db != NULL ? db->replica_url : "");
    lj_str_json(state, sizeof(state), s.text);
    lj_str_json(error, sizeof(error), s.last_error);
    lj_str_json(given_up, sizeof(given_up), s.last_break);
    char local[LJ_POSITION_TEXT_MAX];
    char replica[LJ_POSITION_TEXT_MAX];
    position_text(&s, s.local_index, s.local_offset, local);
    position_text(&s, s.replica_index, s.replica_offset, replica);
    if (s.last_snapshot_ns != 0)
        lj_clock_format(s.last_snapshot_ns, snapshot);
    args[0] = sqlite3_mprintf(
        "{\"state\":%s,\"database\":%s,\"replica\":%s,\"generation\":\"%s\",\"local_index\":%u,"
        "\"local_offset\":%llu,\"replica_index\":%u,\"replica_offset\":%llu,\"lag_ms\":%lld,"
        "\"lag_frames\":%llu,\"spool_bytes\":%llu,\"segments\":%llu,\"snapshots\":%llu,"
        "\"shipped_bytes\":%llu,\"last_snapshot\":\"%s\",\"uploader\":%u,\"last_error\":%s,\"last_"
        "break\":%s,"
        "\"durability\":\"%s\",\"degraded\":%s,\"failed_commits\":%llu,"
        "\"local_position\":\"%s\",\"replica_position\":\"%s\"}",
        state, path, url, s.generation, s.local_index, (unsigned long long)s.local_offset,
        s.replica_index, (unsigned long long)s.replica_offset, (long long)s.lag_ms,
        (unsigned long long)s.lag_frames, (unsigned long long)s.spool_bytes,
        (unsigned long long)s.segments, (unsigned long long)s.snapshots,
        (unsigned long long)s.shipped_bytes, snapshot, (unsigned)s.uploader, error, given_up,
        lj_durable_name(file->durability), s.degraded ? "true" : "false",
        (unsigned long long)s.failed_commits, local, replica);
    return args[0] == NULL ? SQLITE_NOMEM : SQLITE_OK;
}

static int pragma_wait(lj_file *file, char **args, bool snapshot)
{
    if (!lj_open_alive(file->open))
        return answer_not_replicated(args);
    lj_db *db = file->open->db;
    lj_error err = LJ_ERROR_INIT;
    int64_t timeout_ns = db->options.shutdown_timeout_ns;
    lj_code code = LJ_OK;
    if (args[2] != NULL)
        code = lj_clock_parse_duration(args[2], &timeout_ns, &err);
    if (code == LJ_OK)
        lj_event_look(file);
    if (code == LJ_OK)
        code = snapshot ? lj_db_wait_snapshot(db, timeout_ns, &err)
                        : lj_db_wait(db, timeout_ns, false, &err);
    return code == LJ_OK ? answer_position(db, args) : answer_error(args, &err);
}

static int pragma_durability(lj_file *file, char **args)
{
    if (args[2] != NULL) {
        lj_durability wanted = LJ_DURABILITY_LOCAL;
        lj_error err = LJ_ERROR_INIT;
        if (!lj_open_alive(file->open))
            return answer_not_replicated(args);
        if (!lj_durable_parse(args[2], &wanted)) {
            lj_error_set(&err, LJ_INVALID,
                         "litejoin_durability = '%.40s': allowed: local, remote, ack", args[2]);
            return answer_error(args, &err);
        }
        file->durability = wanted;
        file->waited = false; /* of a COMMIT that failed in another database, maybe */
    }
    args[0] = sqlite3_mprintf("%s", lj_durable_name(file->durability));
    return args[0] == NULL ? SQLITE_NOMEM : SQLITE_OK;
}

/* 'POSITION' or 'POSITION,TIMEOUT' */
static int pragma_wait_position(lj_file *file, char **args)
{
    if (!lj_open_alive(file->open))
        return answer_not_replicated(args);
    lj_db *db = file->open->db;
    lj_error err = LJ_ERROR_INIT;
    char text[LJ_POSITION_TEXT_MAX + 1] = "";
    const char *given = args[2] != NULL ? args[2] : "";
    size_t len = strcspn(given, ", ");
    const char *rest = given + len;
    rest += strspn(rest, ", ");
    if (len < sizeof(text)) {
        memcpy(text, given, len);
        text[len] = 0;
    }
    lj_position at;
    int64_t timeout_ns = file->remote_timeout_ns;
    lj_code code = lj_durable_position(text, &at, &err);
    if (code == LJ_OK && rest[0] != 0)
        code = lj_clock_parse_duration(rest, &timeout_ns, &err);
    if (code == LJ_OK)
        code = lj_db_wait_position(db, &at, timeout_ns, &err);
    return code == LJ_OK ? answer_position(db, args) : answer_error(args, &err);
}

int lj_pragma(lj_file *file, char **args)
{
    static const char prefix[] = "litejoin_";
    const char *name = args[1];
    if (sqlite3_strnicmp(name, prefix, (int)strlen(prefix)) != 0)
        return SQLITE_NOTFOUND;
    name += strlen(prefix);
    if (sqlite3_stricmp(name, "status") == 0)
        return pragma_status(file, args);
    if (sqlite3_stricmp(name, "sync") == 0)
        return pragma_wait(file, args, false);
    if (sqlite3_stricmp(name, "snapshot") == 0)
        return pragma_wait(file, args, true);
    if (sqlite3_stricmp(name, "durability") == 0)
        return pragma_durability(file, args);
    if (sqlite3_stricmp(name, "wait") == 0)
        return pragma_wait_position(file, args);
    lj_error err = LJ_ERROR_INIT;
    lj_error_set(&err, LJ_INVALID, "unknown pragma litejoin_%s", name);
    lj_error_hint(
        &err,
        "there are litejoin_status, litejoin_sync, litejoin_snapshot, litejoin_durability and "
        "litejoin_wait");
    return answer_error(args, &err);
}
