/* The bare loop: the least that a fan-out over loopback TCP costs on this machine.
 *
 *     bare_loop CONNECTIONS ROUNDS_A_SECOND SECONDS FRAME_BYTES SENDER_CPU SINK_CPU
 *
 * One thread sends the same bytes on each of CONNECTIONS sockets, round after round, and does nothing
 * else: no HTTP, no topics, no list of clients beyond an array. Another process reads them with epoll.
 * A cpu below 0 leaves the scheduler its choice. When a round takes longer than its time the next one
 * begins at once. Prints one JSON object; exits 1 with a message when something can't be set up.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTIONS_A_SOURCE = 4000, BATCH = 512, READ_BYTES = 256 * 1024 };

struct totals {
    unsigned long long reads, bytes, cpu_us;
};

static void fail(const char *what) {
    fprintf(stderr, "bare_loop: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now_s(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void use_cpu(int cpu) {
    cpu_set_t set;
    if (cpu < 0) return;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) < 0) fail("cpu");
}

static void use_all_descriptors(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

/* --- the sink: another process, one epoll ------------------------------------------------------ */

static int dial(struct sockaddr_in *target, int number) {
    struct sockaddr_in source = {.sin_family = AF_INET};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0) fail("socket");
    source.sin_addr.s_addr = htonl(0x7f020001u + (unsigned)(number / CONNECTIONS_A_SOURCE));
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&source, sizeof source) < 0) fail("bind");
    if (connect(fd, (struct sockaddr *)target, sizeof *target) < 0) fail("connect");
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static void open_all(int epoll, struct sockaddr_in *target, int connections) {
    for (int i = 0; i < connections; i++) {
        struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET};
        event.data.fd = dial(target, i);
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, event.data.fd, &event) < 0) fail("epoll_ctl");
    }
}

static ssize_t receive(int fd, struct totals *totals) {
    static char buffer[READ_BYTES];
    ssize_t got = recv(fd, buffer, sizeof buffer, 0);
    if (got > 0) {
        totals->reads++;
        totals->bytes += (unsigned long long)got;
    }
    return got;
}

static void read_until_closed(int epoll, int connections, struct totals *totals) {
    struct epoll_event events[BATCH];
    while (connections > 0) {
        int ready = epoll_wait(epoll, events, BATCH, -1);
        for (int i = 0; i < ready; i++) {
            receive(events[i].data.fd, totals);
            /* The end may come together with the last bytes: no other event would tell of it. */
            if (!(events[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))) continue;
            while (receive(events[i].data.fd, totals) > 0) continue;
            close(events[i].data.fd);
            connections--;
        }
    }
}

static void sink(struct sockaddr_in *target, int connections, int cpu, int report) {
    struct totals totals = {0};
    int epoll = epoll_create1(0);
    double before;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    use_cpu(cpu);
    open_all(epoll, target, connections);
    before = now_s(CLOCK_PROCESS_CPUTIME_ID);
    read_until_closed(epoll, connections, &totals);
    totals.cpu_us = (unsigned long long)((now_s(CLOCK_PROCESS_CPUTIME_ID) - before) * 1e6);
    if (write(report, &totals, sizeof totals) != sizeof totals) fail("report");
    _exit(0);
}

/* --- the sender -------------------------------------------------------------------------------- */

static int listen_on(struct sockaddr_in *address) {
    socklen_t length = sizeof *address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    memset(address, 0, sizeof *address);
    address->sin_family = AF_INET;
    address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(fd, (struct sockaddr *)address, length) < 0 || listen(fd, 4096) < 0) fail("listen");
    getsockname(fd, (struct sockaddr *)address, &length);
    return fd;
}

static int *accept_all(int listener, int connections) {
    int on = 1, *fds = calloc((size_t)connections, sizeof *fds);
    if (!fds) fail("memory");
    for (int i = 0; i < connections; i++) {
        fds[i] = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        if (fds[i] < 0) fail("accept");
        setsockopt(fds[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    return fds;
}

static void sleep_until(double when_s) {
    struct timespec when = {.tv_sec = (time_t)when_s};
    when.tv_nsec = (long)((when_s - (double)when.tv_sec) * 1e9);
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL);
}

static unsigned long long send_rounds(const int *fds, int connections, const char *frame,
                                      size_t bytes, double rate, double seconds,
                                      unsigned long long *failed) {
    double began = now_s(CLOCK_MONOTONIC);
    unsigned long long sends = 0;
    for (long round = 0; now_s(CLOCK_MONOTONIC) < began + seconds; round++) {
        sleep_until(began + (double)round / rate);
        for (int i = 0; i < connections; i++) {
            sends++;
            if (send(fds[i], frame, bytes, MSG_NOSIGNAL) != (ssize_t)bytes) (*failed)++;
        }
    }
    return sends;
}

int main(int argc, char **argv) {
    struct sockaddr_in address;
    struct totals totals = {0};
    int connections, report[2], listener, *fds;
    unsigned long long sends, failed = 0;
    double cpu_before, wall_before, cpu_s, wall_s;
    char *frame;
    size_t bytes;
    pid_t child;

    if (argc != 7) {
        fprintf(stderr, "usage: bare_loop CONNECTIONS RATE SECONDS FRAME_BYTES SENDER_CPU SINK_CPU\n");
        return 1;
    }
    connections = atoi(argv[1]);
    bytes = (size_t)atol(argv[4]);
    frame = malloc(bytes);
    if (!frame || pipe(report) < 0) fail("set-up");
    memset(frame, 'x', bytes);
    use_all_descriptors();
    listener = listen_on(&address);
    child = fork();
    if (child == 0) sink(&address, connections, atoi(argv[6]), report[1]);
    use_cpu(atoi(argv[5]));
    fds = accept_all(listener, connections);

    cpu_before = now_s(CLOCK_PROCESS_CPUTIME_ID);
    wall_before = now_s(CLOCK_MONOTONIC);
    sends = send_rounds(fds, connections, frame, bytes, atof(argv[2]), atof(argv[3]), &failed);
    cpu_s = now_s(CLOCK_PROCESS_CPUTIME_ID) - cpu_before;
    wall_s = now_s(CLOCK_MONOTONIC) - wall_before;

    for (int i = 0; i < connections; i++) close(fds[i]);
    if (read(report[0], &totals, sizeof totals) != sizeof totals) fail("sink");
    waitpid(child, NULL, 0);
    printf("{\"connections\": %d, \"frame_bytes\": %zu, \"sends\": %llu, \"failed\": %llu, "
           "\"wall_s\": %.4f, \"cpu_us_a_send\": %.4f, \"sink_reads\": %llu, \"sink_bytes\": %llu, "
           "\"sink_cpu_us_a_send\": %.4f}\n",
           connections, bytes, sends, failed, wall_s, cpu_s * 1e6 / (double)(sends ? sends : 1),
           totals.reads, totals.bytes, (double)totals.cpu_us / (double)(sends ? sends : 1));
    return 0;
}
