/*
 * seat.c - see seat.h.
 */
#include "vfs/capture/seat.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "vfs/base/clock.h"
#include "vfs/base/io.h"

#define BYTE_PAGE     0
#define BYTE_PRESENCE 1
#define BYTE_PENDS    2
#define SPINS         64
#define PAUSE_NS      (200 * INT64_C(1000))

static bool lock_byte(int fd, int command, off_t byte, short type)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    return fcntl(fd, command, &lock) == 0;
}

lj_code lj_seat_open(const char *path, int *ret_fd, lj_error *err)
{
    return lj_io_open(path, O_RDWR | O_CREAT, 0600, ret_fd, err);
}

void lj_seat_leave(int fd)
{
    if (fd < 0)
        return;
    /* a child of fork may still have the descriptor, so closing it would not be enough */
    (void)flock(fd, LOCK_UN);
    lj_seat_part(fd);
    lj_seat_pends(fd, false);
    lj_seat_unlock_page(fd);
    close(fd);
}

bool lj_seat_lead(int fd)
{
    return flock(fd, LOCK_EX | LOCK_NB) == 0;
}

bool lj_seat_alone(int fd)
{
    return lock_byte(fd, F_OFD_SETLK, BYTE_PRESENCE, F_WRLCK);
}

bool lj_seat_join(int fd)
{
    return lock_byte(fd, F_OFD_SETLK, BYTE_PRESENCE, F_RDLCK);
}

void lj_seat_part(int fd)
{
    (void)lock_byte(fd, F_OFD_SETLK, BYTE_PRESENCE, F_UNLCK);
}

/* By another one. */
static bool byte_locked(int fd, off_t byte)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

bool lj_seat_company(int fd)
{
    return byte_locked(fd, BYTE_PRESENCE);
}

void lj_seat_pends(int fd, bool pends)
{
    (void)lock_byte(fd, F_OFD_SETLK, BYTE_PENDS, pends ? F_WRLCK : F_UNLCK);
}

bool lj_seat_other_pends(int fd)
{
    return byte_locked(fd, BYTE_PENDS);
}

bool lj_seat_lock_page(int fd, int64_t timeout_ns)
{
    if (lock_byte(fd, F_OFD_SETLK, BYTE_PAGE, F_WRLCK))
        return true;
    int64_t deadline_ns = lj_clock_mono_ns() + timeout_ns;
    for (int tries = 0; lj_clock_mono_ns() < deadline_ns; tries++) {
        struct timespec pause = {.tv_nsec = PAUSE_NS};
        if (tries < SPINS)
            sched_yield();
        else
            nanosleep(&pause, NULL);
        if (lock_byte(fd, F_OFD_SETLK, BYTE_PAGE, F_WRLCK))
            return true;
    }
    return false;
}

void lj_seat_unlock_page(int fd)
{
    (void)lock_byte(fd, F_OFD_SETLK, BYTE_PAGE, F_UNLCK);
}
