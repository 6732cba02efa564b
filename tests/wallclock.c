/* Loaded into a process under test (LD_PRELOAD): its wall clock is ahead of the machine's by what a
 * file says, which may change while it runs. As with a real clock that is set back, waits until a
 * time of that clock take longer. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#define NS_A_S 1000000000LL
/* In what glibc keeps of a condition: it waits by the clock that can't be set. */
#define IS_MONOTONIC 2

static const volatile int64_t *offset_ns;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("TEST_WALL_CLOCK");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *page = mmap(NULL, sizeof *offset_ns, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (page != MAP_FAILED)
        offset_ns = page;
}

static int64_t read_ns(clockid_t clock)
{
    struct timespec now = {0, 0};
    syscall(SYS_clock_gettime, clock, &now);
    int is_wall = clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE;
    return now.tv_sec * NS_A_S + now.tv_nsec + (is_wall && offset_ns ? *offset_ns : 0);
}

static struct timespec as_timespec(int64_t ns)
{
    return (struct timespec){ns / NS_A_S, ns % NS_A_S};
}

int clock_gettime(clockid_t clock, struct timespec *to)
{
    if (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)
        return syscall(SYS_clock_gettime, clock, to);
    *to = as_timespec(read_ns(clock));
    return 0;
}

int gettimeofday(struct timeval *restrict to, void *restrict zone)
{
    (void)zone;
    int64_t ns = read_ns(CLOCK_REALTIME);
    *to = (struct timeval){ns / NS_A_S, ns % NS_A_S / 1000};
    return 0;
}

time_t time(time_t *to)
{
    time_t now = read_ns(CLOCK_REALTIME) / NS_A_S;
    if (to)
        *to = now;
    return now;
}

int timespec_get(struct timespec *to, int base)
{
    if (base != TIME_UTC)
        return 0;
    *to = as_timespec(read_ns(CLOCK_REALTIME));
    return base;
}

int pthread_cond_timedwait(
    pthread_cond_t *restrict condition,
    pthread_mutex_t *restrict mutex,
    const struct timespec *restrict until)
{
    if (condition->__data.__wrefs & IS_MONOTONIC)
        return pthread_cond_clockwait(condition, mutex, CLOCK_MONOTONIC, until);
    for (;;) {
        int64_t left_ns = until->tv_sec * NS_A_S + until->tv_nsec - read_ns(CLOCK_REALTIME);
        if (left_ns <= 0)
            return ETIMEDOUT;
        struct timespec end = as_timespec(read_ns(CLOCK_MONOTONIC) + left_ns);
        int status = pthread_cond_clockwait(condition, mutex, CLOCK_MONOTONIC, &end);
        if (status != ETIMEDOUT)
            return status;
        /* It may have been set back meanwhile. */
    }
}

int cnd_timedwait(
    cnd_t *restrict condition, mtx_t *restrict mutex, const struct timespec *restrict until)
{
    /* In glibc these are the same as those of POSIX. */
    void *one = condition, *other = mutex;
    int status = pthread_cond_timedwait(one, other, until);
    return status == 0 ? thrd_success : status == ETIMEDOUT ? thrd_timedout : thrd_error;
}
