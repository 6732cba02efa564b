/* The health check of the container: exits with 0 if the server answers /healthz with 200. A static
 * program, so that the image needs no shell and no Python for it: a Python that starts every ten
 * seconds costs more than many idle streams.
 *
 * It tries the ports that this user listens on in this network, so it needs no configuration. A
 * container has a network of its own; with host networking set FASTSSE_PORT.
 *
 *     musl-gcc -static -Os -s -Wall -Wextra -o health health.c
 */

#include <arpa/inet.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static const char REQUEST[] = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
static const char ANSWER[] = "HTTP/1.1 200";
enum { TIMEOUT_S = 4, LISTENING = 0x0A };

/* Reads until the status is there; it may come in pieces. */
static bool says_200(int fd) {
    char head[sizeof ANSWER - 1];
    size_t size = 0;
    while (size < sizeof head) {
        ssize_t got = recv(fd, head + size, sizeof head - size, 0);
        if (got <= 0)
            return false;
        size += (size_t)got;
    }
    return memcmp(head, ANSWER, sizeof head) == 0;
}

static bool answers(const struct sockaddr *address, socklen_t length) {
    const struct timeval timeout = {.tv_sec = TIMEOUT_S};
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    /* SO_SNDTIMEO bounds the connect too. */
    bool healthy = setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) == 0 &&
                   setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout) == 0 &&
                   connect(fd, address, length) == 0 &&
                   send(fd, REQUEST, sizeof REQUEST - 1, MSG_NOSIGNAL) == sizeof REQUEST - 1 &&
                   says_200(fd);
    close(fd);
    return healthy;
}

/* 0.0.0.0 and :: are no places to connect to; the loopback address is one of theirs. */
static bool answers4(struct in_addr host, unsigned port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = host.s_addr == INADDR_ANY ? htonl(INADDR_LOOPBACK) : host.s_addr;
    return answers((const struct sockaddr *)&address, sizeof address);
}

static bool answers6(struct in6_addr host, unsigned port) {
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    address.sin6_addr = IN6_IS_ADDR_UNSPECIFIED(&host) ? in6addr_loopback : host;
    return answers((const struct sockaddr *)&address, sizeof address);
}

/* The address stands there as hexadecimal words of 32 bits, as they are in memory. */
static bool row_answers(const char *row, int words) {
    char host[33];
    unsigned port, state, user;
    if (sscanf(row, " %*u: %32[0-9A-F]:%x %*[0-9A-F]:%*x %x %*x:%*x %*x:%*x %*x %u", host, &port, &state, &user) != 4)
        return false;
    if (state != LISTENING || user != geteuid() || strlen(host) != (size_t)words * 8)
        return false;
    uint32_t parts[4];
    for (int i = 0; i < words; i++) {
        char word[9] = {0};
        memcpy(word, host + i * 8, 8);
        parts[i] = (uint32_t)strtoul(word, NULL, 16);
    }
    if (words == 1) {
        struct in_addr address;
        memcpy(&address, parts, sizeof address);
        return answers4(address, port);
    }
    struct in6_addr address;
    memcpy(&address, parts, sizeof address);
    return answers6(address, port);
}

static bool table_answers(const char *path, int words) {
    char row[512];
    bool healthy = false;
    FILE *table = fopen(path, "re");
    if (table == NULL)
        return false;
    if (fgets(row, sizeof row, table) != NULL) {
        /* Listeners come first; a hundred thousand other connections may follow. */
        while (!healthy && fgets(row, sizeof row, table) != NULL && strstr(row, " 0A ") != NULL)
            healthy = row_answers(row, words);
    }
    fclose(table);
    return healthy;
}

static bool named_port_answers(void) {
    const char *text = getenv("FASTSSE_PORT");
    char *end;
    if (text == NULL)
        return false;
    unsigned long port = strtoul(text, &end, 10);
    struct in_addr any = {.s_addr = INADDR_ANY};
    return *text != '\0' && *end == '\0' && port > 0 && port < 65536 && answers4(any, (unsigned)port);
}

int main(void) {
    if (named_port_answers() || table_answers("/proc/net/tcp", 1) || table_answers("/proc/net/tcp6", 4))
        return EXIT_SUCCESS;
    fputs("no listener of this user answers /healthz with 200\n", stderr);
    return EXIT_FAILURE;
}
