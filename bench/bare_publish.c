/* The bare publish loop: the least that an answer to a small POST costs on this machine.
 *
 *     bare_publish
 *
 * One thread, one epoll: it receives, finds the blank line, and sends a constant answer for each
 * request whose body is there too. It reads no header, and keeps nothing but a part of a request.
 * Prints `listening on 127.0.0.1:<port>` and serves until it is killed; exits 1 with a message when
 * something can't be set up.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <signal.h>
#include <unistd.h>

enum { BATCH = 512, ROOM = 64 * 1024, DESCRIPTORS = 20000 };

static const char ANSWER[] =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n"
    "X-Content-Type-Options: nosniff\r\nCross-Origin-Resource-Policy: same-origin\r\n"
    "Content-Length: 25\r\n\r\n{\"id\":\"1795964378563-1\"}\n";

static struct part { char *bytes; size_t size; } parts[DESCRIPTORS];

static void fail(const char *what) {
    fprintf(stderr, "bare_publish: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int listen_anywhere(struct sockaddr_in *address) {
    socklen_t length = sizeof *address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    memset(address, 0, sizeof *address);
    address->sin_family = AF_INET;
    address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(fd, (struct sockaddr *)address, length) < 0 || listen(fd, 4096) < 0) fail("listen");
    getsockname(fd, (struct sockaddr *)address, &length);
    return fd;
}

static void accept_all(int epoll, int listener) {
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        if (fd >= DESCRIPTORS) { close(fd); continue; }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) fail("epoll_ctl");
    }
}

static size_t body_bytes(const char *head, size_t size) {
    const char *found = memmem(head, size, "Content-Length: ", 16);
    return found ? strtoul(found + 16, NULL, 10) : 0;
}

/* Answers the whole requests at `at`; returns what is left of them. */
static size_t answer(int fd, char *at, size_t size) {
    for (;;) {
        char *blank = memmem(at, size, "\r\n\r\n", 4);
        size_t whole = blank ? (size_t)(blank + 4 - at) : 0;
        if (blank) whole += body_bytes(at, whole);
        if (!blank || whole > size) break;
        if (send(fd, ANSWER, sizeof ANSWER - 1, MSG_NOSIGNAL) < 0) break;
        at += whole;
        size -= whole;
    }
    return size;
}

static void forget(int fd) {
    free(parts[fd].bytes);
    parts[fd] = (struct part){0};
    close(fd);
}

static void serve(int fd) {
    static char room[2 * ROOM];
    struct part *part = &parts[fd];
    ssize_t got;
    size_t size, left;
    if (part->size) memcpy(room, part->bytes, part->size);
    got = recv(fd, room + part->size, ROOM, 0);
    if (got <= 0) {
        if (got == 0 || errno != EAGAIN) forget(fd);
        return;
    }
    size = part->size + (size_t)got;
    left = answer(fd, room, size);
    if (left > ROOM) { forget(fd); return; }
    if (left) {
        part->bytes = realloc(part->bytes, left);
        if (!part->bytes) fail("memory");
        memcpy(part->bytes, room + size - left, left);
    }
    part->size = left;
}

int main(void) {
    struct sockaddr_in address;
    struct epoll_event events[BATCH], event = {.events = EPOLLIN};
    int listener = listen_anywhere(&address), epoll = epoll_create1(0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    event.data.fd = listener;
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) < 0) fail("epoll");
    printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        int ready = epoll_wait(epoll, events, BATCH, -1);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.fd == listener) accept_all(epoll, listener);
            else serve(events[i].data.fd);
        }
    }
}
