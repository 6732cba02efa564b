# The event stream format (WHATWG HTML, "Interpreting an event stream"), one block at a time.
# A block is what stands before a blank line. Nothing is copied: fields point into the bytes given,
# and an unfinished block is simply given again with what came after it.

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memset

cdef enum:
    BLOCK_UNFINISHED      # no blank line yet
    BLOCK_FINISHED        # ended by a blank line; `has_data` says whether it is an event

cdef struct Block:
    const char *data           # first data line
    const char *kind           # event type
    const char *id
    size_t data_length         # of the first data line
    size_t data_bytes          # of all data lines, joined by LF
    size_t kind_length
    size_t id_length
    uint64_t retry_ms
    uint32_t data_lines
    bint has_id
    bint has_retry
    bint ended_by_cr           # the blank line's CR was the last byte: a LF may still belong to it
    size_t taken               # bytes that need not be given again


cdef inline const char *line_end(const char *at, const char *end) noexcept nogil:
    """The first CR or LF in [at, end), NULL when there is none."""
    cdef const char *lf = <const char *>memchr(at, c'\n', end - at)
    cdef const char *cr = <const char *>memchr(at, c'\r', (lf if lf != NULL else end) - at)
    return cr if cr != NULL else lf


cdef inline bint read_digits(const char *at, size_t length, uint64_t *value) noexcept nogil:
    """`length` ASCII digits as a number; False when there is another byte, none, or too many."""
    cdef size_t i
    cdef uint64_t total = 0
    if length == 0 or length > 19:
        return False
    for i in range(length):
        if not c'0' <= at[i] <= c'9':
            return False
        total = total * 10 + <uint64_t>(at[i] - c'0')
    value[0] = total
    return True


cdef inline void take_value(Block *block, const char *name, size_t name_length,
                            const char *value, size_t length) noexcept nogil:
    if name_length == 4 and memcmp(name, b"data", 4) == 0:
        if block.data_lines == 0:
            block.data = value
            block.data_length = length
            block.data_bytes = length
        else:
            block.data_bytes += 1 + length
        block.data_lines += 1
    elif name_length == 2 and memcmp(name, b"id", 2) == 0:
        if length == 0 or memchr(value, 0, length) == NULL:
            block.id = value
            block.id_length = length
            block.has_id = True
    elif name_length == 5 and memcmp(name, b"event", 5) == 0:
        block.kind = value
        block.kind_length = length
    elif name_length == 5 and memcmp(name, b"retry", 5) == 0:
        if read_digits(value, length, &block.retry_ms):
            block.has_retry = True


cdef inline void take_line(Block *block, const char *at, size_t length) noexcept nogil:
    """One line that is neither blank nor a comment."""
    cdef const char *colon = <const char *>memchr(at, c':', length)
    cdef const char *value
    if colon == NULL:
        take_value(block, at, length, at + length, 0)
        return
    value = colon + 1
    if value < at + length and value[0] == c' ':
        value += 1
    take_value(block, at, colon - at, value, at + length - value)


cdef inline int read_block(Block *block, const char *at, const char *end) noexcept nogil:
    """Reads lines from `at` up to a blank one; clears `block` first.

    BLOCK_UNFINISHED leaves in `taken` what need not be kept: leading comments and `retry` lines,
    which act at once, so that heartbeats do not pile up between events.
    """
    cdef const char *start = at
    cdef const char *stop
    cdef bint held = False     # a line that must be seen again with the rest of its block
    memset(block, 0, sizeof(Block))
    while at < end:
        stop = line_end(at, end)
        if stop == NULL:
            break
        if stop == at:
            block.ended_by_cr = stop[0] == c'\r' and stop + 1 == end
            if stop[0] == c'\r' and stop + 1 < end and stop[1] == c'\n':
                stop += 1
            block.taken = stop + 1 - start
            return BLOCK_FINISHED
        if at[0] != c':':
            take_line(block, at, stop - at)
            held = held or block.data_lines > 0 or block.has_id or block.kind_length > 0
        if stop[0] == c'\r':
            if stop + 1 == end:
                break          # a LF may still belong to this line's end
            if stop[1] == c'\n':
                stop += 1
        at = stop + 1
        if not held:
            block.taken = at - start
    return BLOCK_UNFINISHED
