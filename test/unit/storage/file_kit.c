/* file_kit.c - see file_kit.h. */
#include "test/unit/storage/file_kit.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vfs/base/io.h"
#include "vfs/base/str.h"

#define NOBODY 65534

int file_set_up(void **state)
{
    lj_error err = LJ_ERROR_INIT;
    file_fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    snprintf(f->folder, sizeof(f->folder), "/tmp/file_test.XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    snprintf(f->root, sizeof(f->root), "%s/r", f->folder);
    LJ_CLEANUP(lj_freep) char *url = lj_str_printf("file://%s", f->root);
    assert_ok(lj_storage_open(url, NULL, &f->storage, &err), &err);
    *state = f;
    return 0;
}

int file_tear_down(void **state)
{
    file_fixture *f = *state;
    lj_storage_close(f->storage);
    LJ_CLEANUP(lj_freep)
    char *command = lj_str_printf("chmod -R u+rwx '%s' && rm -rf '%s'", f->folder, f->folder);
    int rc = system(command);
    free(f);
    return rc;
}

const char *file_in(const file_fixture *f, const char *name)
{
    static char ring[4][512];
    static unsigned next;
    char *out = ring[next++ % 4];
    snprintf(out, sizeof(ring[0]), "%s/%s", f->folder, name);
    return out;
}

void file_write(const char *path)
{
    lj_error err = LJ_ERROR_INIT;
    assert_ok(lj_io_replace_file(path, "x", 1, 0644, false, &err), &err);
}

size_t file_entries(const char *folder)
{
    LJ_CLEANUP(lj_freep) char *command = lj_str_printf("ls -A '%s' | wc -l", folder);
    FILE *pipe = popen(command, "r");
    unsigned long n = 0;
    assert_int_equal(fscanf(pipe, "%lu", &n), 1);
    pclose(pipe);
    return n;
}

bool file_become_nobody(void)
{
    if (geteuid() == 0 && seteuid(NOBODY) != 0) {
        print_message("skipped: cannot become another user: %s\n", strerror(errno));
        return false;
    }
    return true;
}

void file_become_myself(void)
{
    assert_int_equal(seteuid(getuid()), 0);
}
