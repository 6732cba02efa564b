# An HTTP/1.1 response head: status, content type, coding and length, nothing else.

from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memchr, memcmp
from fastsse.swarm.native.events cimport read_digits

cdef extern from "<string.h>" nogil:
    void *memmem(const void *at, size_t length, const void *what, size_t size)

cdef extern from "<strings.h>" nogil:
    int strncasecmp(const char *a, const char *b, size_t length)

cdef struct Head:
    int status
    bint chunked
    bint event_stream
    bint closes              # `Connection: close`
    int64_t length           # Content-Length, -1 when there is none
    size_t taken             # bytes up to the body


cdef inline bint is_name(const char *at, size_t length, const char *name, size_t size) noexcept nogil:
    return length == size and strncasecmp(at, name, size) == 0


cdef inline bint holds(const char *value, size_t length, const char *word, size_t size) noexcept nogil:
    """Whether the header value begins with `word`, in any case."""
    return length >= size and strncasecmp(value, word, size) == 0


cdef inline void take_header(Head *head, const char *at, size_t length) noexcept nogil:
    cdef const char *colon = <const char *>memchr(at, c':', length)
    cdef const char *value
    cdef size_t size
    cdef uint64_t number = 0
    if colon == NULL:
        return
    value = colon + 1
    while value < at + length and (value[0] == c' ' or value[0] == c'\t'):
        value += 1
    size = at + length - value
    if is_name(at, colon - at, b"content-type", 12):
        head.event_stream = holds(value, size, b"text/event-stream", 17)
    elif is_name(at, colon - at, b"transfer-encoding", 17):
        head.chunked = holds(value, size, b"chunked", 7)
    elif is_name(at, colon - at, b"connection", 10):
        head.closes = holds(value, size, b"close", 5)
    elif is_name(at, colon - at, b"content-length", 14) and read_digits(value, size, &number):
        head.length = <int64_t>number


cdef inline int read_head(Head *head, const char *at, size_t length) noexcept nogil:
    """1: complete, `head` is filled; 0: the end has not come yet; -1: not an HTTP response."""
    cdef const char *end = <const char *>memmem(at, length, b"\r\n\r\n", 4)
    cdef const char *line
    cdef uint64_t status = 0
    if length >= 5 and memcmp(at, b"HTTP/", 5) != 0:
        return -1
    if end == NULL:
        return 0
    if end - at < 12 or at[8] != c' ' or not read_digits(at + 9, 3, &status):
        return -1
    head.status = <int>status
    head.chunked = head.event_stream = head.closes = False
    head.length = -1
    head.taken = end + 4 - at
    line = <const char *>memchr(at, c'\n', end - at)
    while line != NULL:
        at = line + 1
        line = <const char *>memmem(at, end + 2 - at, b"\r\n", 2)
        if line != NULL:
            take_header(head, at, line - at)
            line = line + 1 if line < end else NULL
    return 1
