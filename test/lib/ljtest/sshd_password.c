/*
 * sshd_password.c - preloaded into the tests' sshd: every account has the password whose hash is in LJ_SSHD_HASH.
 *
 * sshd asks getspnam() for the hash to compare with, and whether the account is locked. No account of the system is touched.
 */
#include <shadow.h>
#include <stdlib.h>

struct spwd *getspnam(const char *name)
{
    static struct spwd entry;
    char *hash = getenv("LJ_SSHD_HASH");

    if (hash == NULL)
        return NULL;
    entry.sp_namp = (char *)name;
    entry.sp_pwdp = hash;
    entry.sp_lstchg = 20000;
    entry.sp_min = entry.sp_max = entry.sp_warn = entry.sp_inact = entry.sp_expire = -1;
    return &entry;
}
