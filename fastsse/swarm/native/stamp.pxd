# The due-time stamp of fastsse/stamp.py, read and written natively. That module documents the
# format; a test holds the two to the same answers.

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

cdef extern from "<string.h>" nogil:
    void *memmem(const void *haystack, size_t haystack_bytes, const void *needle,
                 size_t needle_bytes)

cdef enum:
    STAMP_BYTES_MIN = 80
    ENVELOPE_BYTES_MAX = 64

cdef struct Stamp:
    uint64_t due_us
    uint32_t source
    uint32_t count         # 0: not counted


cdef inline const char *expect(const char *at, const char *end,
                               const char *text, size_t length) noexcept nogil:
    """Where the input goes on after `text` and an optional space, NULL if it is not there."""
    if <size_t>(end - at) < length or memcmp(at, text, length) != 0:
        return NULL
    at += length
    if at < end and at[0] == c' ':
        at += 1
    return at


cdef inline const char *number(const char *at, const char *end, int most,
                               uint64_t *value) noexcept nogil:
    cdef const char *start = at
    cdef uint64_t total = 0
    while at < end and at - start < most and c'0' <= at[0] <= c'9':
        total = total * 10 + <uint64_t>(at[0] - c'0')
        at += 1
    value[0] = total
    return at if at > start else NULL


cdef inline bint stamp_read(Stamp *stamp, const char *at, size_t length) noexcept nogil:
    cdef const char *end = at + length
    cdef const char *after_due
    cdef uint64_t source = 0, count = 0
    stamp.source = stamp.count = 0
    if length > 7 and at[0] == c'{' and memcmp(at, b'{"due":', 7) != 0:
        at = <const char *>memmem(at, length if length < ENVELOPE_BYTES_MAX + 7
                                  else ENVELOPE_BYTES_MAX + 7, b'{"due":', 7)
        if at == NULL:
            return False
    at = expect(at, end, b'{"due":', 7)
    if at == NULL:
        return False
    after_due = number(at, end, 19, &stamp.due_us)
    if after_due == NULL or after_due == end:
        return False
    at = after_due
    if at[0] == c',':
        at += 2 if at + 1 < end and at[1] == c' ' else 1
        at = expect(at, end, b'"source":', 9)
        at = number(at, end, 10, &source) if at != NULL else NULL
        at = expect(at, end, b',', 1) if at != NULL else NULL
        at = expect(at, end, b'"count":', 8) if at != NULL else NULL
        at = number(at, end, 10, &count) if at != NULL else NULL
        if at != NULL and at < end and (at[0] == c',' or at[0] == c'}'):
            stamp.source = <uint32_t>source
            stamp.count = <uint32_t>count
    return after_due[0] == c',' or after_due[0] == c'}'


cdef inline char *put_number(char *at, uint64_t value) noexcept nogil:
    cdef char digits[20]
    cdef int length = 0
    while True:
        digits[length] = <char>(c'0' + value % 10)
        length += 1
        value //= 10
        if value == 0:
            break
    while length:
        length -= 1
        at[0] = digits[length]
        at += 1
    return at


cdef inline char *put_text(char *at, const char *text, size_t length) noexcept nogil:
    memcpy(at, text, length)
    return at + length


cdef inline void stamp_write(char *out, size_t size, uint64_t due_us,
                             uint32_t source, uint32_t count) noexcept nogil:
    """Writes exactly `size` bytes (at least STAMP_BYTES_MIN)."""
    cdef char *at = put_text(out, b'{"due":', 7)
    at = put_number(at, due_us)
    at = put_text(at, b',"source":', 10)
    at = put_number(at, source)
    at = put_text(at, b',"count":', 9)
    at = put_number(at, count)
    at = put_text(at, b',"pad":"', 8)
    memset(at, c'x', out + size - 2 - at)
    put_text(out + size - 2, b'"}', 2)
