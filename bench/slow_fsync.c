/* A disk whose syncs take longer: fsync and fdatasync sleep FSYNC_DELAY_US after their work.
 * Loaded with LD_PRELOAD; see bench/slow_disk.py. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

typedef int (*sync_call)(int);

static useconds_t delay_us(void) {
    static long delay = -1;
    if (delay < 0) {
        const char *text = getenv("FSYNC_DELAY_US");
        delay = text ? atol(text) : 0;
    }
    return (useconds_t)delay;
}

int fsync(int fd) {
    static sync_call real;
    if (!real) real = (sync_call)dlsym(RTLD_NEXT, "fsync");
    int result = real(fd);
    usleep(delay_us());
    return result;
}

int fdatasync(int fd) {
    static sync_call real;
    if (!real) real = (sync_call)dlsym(RTLD_NEXT, "fdatasync");
    int result = real(fd);
    usleep(delay_us());
    return result;
}
