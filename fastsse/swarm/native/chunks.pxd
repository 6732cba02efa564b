# HTTP/1.1 chunked transfer coding (RFC 9112 section 7.1), decoded in place. The state is five
# bytes a connection: nothing is kept of a size line or a trailer that was cut by the network.

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memmove
from fastsse.native.hex cimport hex_digit

cdef enum:
    CHUNK_SIZE            # hex digits of a size
    CHUNK_SIZE_MORE       # at least one digit was seen
    CHUNK_EXTENSION
    CHUNK_SIZE_LF
    CHUNK_DATA
    CHUNK_DATA_CR
    CHUNK_DATA_LF
    CHUNK_TRAILER         # at the start of a line after the last chunk
    CHUNK_TRAILER_LINE
    CHUNK_TRAILER_LF
    CHUNK_END_LF
    CHUNK_END             # the body is complete
    CHUNK_BAD

cdef struct Chunks:
    uint32_t left         # bytes of this chunk still to come
    uint8_t state


cdef inline uint8_t chunk_size_byte(Chunks *chunks, char c) noexcept nogil:
    cdef int digit = hex_digit(c)
    if digit >= 0:
        if chunks.left >> 27:
            return CHUNK_BAD      # 2 GiB and more in one chunk
        chunks.left = (chunks.left << 4) | <uint32_t>digit
        return CHUNK_SIZE_MORE
    if chunks.state == CHUNK_SIZE:
        return CHUNK_BAD
    if c == c'\r':
        return CHUNK_SIZE_LF
    if c == c';' or c == c' ' or c == c'\t':
        return CHUNK_EXTENSION
    return CHUNK_BAD


cdef inline uint8_t chunk_frame_byte(Chunks *chunks, char c) noexcept nogil:
    """The state after one byte that is not chunk data."""
    cdef uint8_t state = chunks.state
    if state <= CHUNK_SIZE_MORE:
        return chunk_size_byte(chunks, c)
    if state == CHUNK_EXTENSION:
        return CHUNK_SIZE_LF if c == c'\r' else (CHUNK_BAD if c == c'\n' else CHUNK_EXTENSION)
    if state == CHUNK_SIZE_LF and c == c'\n':
        return CHUNK_DATA if chunks.left else CHUNK_TRAILER
    if state == CHUNK_DATA_CR and c == c'\r':
        return CHUNK_DATA_LF
    if state == CHUNK_DATA_LF and c == c'\n':
        return CHUNK_SIZE
    if state == CHUNK_TRAILER:
        return CHUNK_END_LF if c == c'\r' else (CHUNK_BAD if c == c'\n' else CHUNK_TRAILER_LINE)
    if state == CHUNK_TRAILER_LINE:
        return CHUNK_TRAILER_LF if c == c'\r' else (CHUNK_BAD if c == c'\n' else CHUNK_TRAILER_LINE)
    if state == CHUNK_TRAILER_LF and c == c'\n':
        return CHUNK_TRAILER
    if state == CHUNK_END_LF and c == c'\n':
        return CHUNK_END
    return CHUNK_BAD


cdef inline size_t chunks_decode(Chunks *chunks, char *at, size_t length) noexcept nogil:
    """Moves the body bytes among `length` coded ones to the front of `at`; returns how many.

    Ends early at CHUNK_END (whatever follows is not looked at) and at CHUNK_BAD.
    """
    cdef size_t i = 0, written = 0, run
    while i < length and chunks.state < CHUNK_END:
        if chunks.state == CHUNK_DATA:
            run = length - i
            if run > chunks.left:
                run = chunks.left
            memmove(at + written, at + i, run)
            written += run
            i += run
            chunks.left -= <uint32_t>run
            if chunks.left == 0:
                chunks.state = CHUNK_DATA_CR
        else:
            chunks.state = chunk_frame_byte(chunks, at[i])
            i += 1
    return written
