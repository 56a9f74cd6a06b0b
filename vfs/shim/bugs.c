/*
 * bugs.c - see bugs.h. Knows no SQLite of its own, so that the table can be tested without one.
 */
#include "vfs/shim/bugs.h"

#include "vfs/base/log.h"

bool lj_bugs_wal_reset(int version)
{
    /* first version with the fix, and the first one behind it that has not got it */
    static const struct {
        int from, to;
    } fixed[] = {{3044006, 3045000}, {3050007, 3051000}, {3051003, 0x7fffffff}};
    for (unsigned i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++) {
        if (version >= fixed[i].from && version < fixed[i].to)
            return false;
    }
    return version >= 3007000;
}

void lj_bugs_warn_once(int version, const char *version_text)
{
    static bool told;
    if (!lj_bugs_wal_reset(version) || __atomic_exchange_n(&told, true, __ATOMIC_RELAXED))
        return;
    lj_log(LJ_LOG_WARN,
           "this program's SQLite is %s, which has the WAL-reset bug: when one connection "
           "checkpoints while another writes, the database can lose committed pages; upgrade to "
           "3.51.3 or later (or 3.50.7, 3.44.6), unless your distribution has the fix in its own "
           "package",
           version_text);
}
