# A frame: one event (or one page of them) encoded once, immutable, shared by all its receivers.
# It lies in memory as `hex CRLF body CRLF`: HTTP/1.1 clients get the whole, raw ones the body.
# The encoder is a security boundary: nothing that a publisher sends may end a field line early.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memchr, memcpy

from fastsse.native.memory cimport frames_alive, release, alloc
from fastsse.native.os cimport add_u32, relaxed_add

cdef enum:
    BODY_BYTES_MAX = 1 << 30
    NO_NOTICE_BYTES = 3        # the body of a control entry that says nothing to clients


cdef struct FrameData:
    uint32_t refs              # atomic: history, rings, private lists, Python
    uint16_t head_bytes        # "hex CRLF"; 0 in a wire frame, which has no trailing CRLF either
    uint8_t is_private         # for channels with a grant only
    uint8_t data_kind          # text, JSON or bytes: what the publisher sent
    uint32_t body_bytes
    uint32_t events            # events in it: 1, or as many as a page has, or 0
    uint64_t position_ms
    uint64_t position_n
    uint64_t time_ms           # when it was published, by the hub's clock; not its position
    uint64_t expires_ms        # unix time from which on it is not sent any more; 0: never
    # the bytes follow


cdef inline char* frame_wire(FrameData* frame) noexcept nogil:
    return <char*>frame + sizeof(FrameData)


cdef inline char* frame_body(FrameData* frame) noexcept nogil:
    return frame_wire(frame) + frame.head_bytes


cdef inline size_t frame_wire_bytes(FrameData* frame) noexcept nogil:
    return frame.head_bytes + frame.body_bytes + (2 if frame.head_bytes else 0)


cdef inline bint is_notice(FrameData* frame) noexcept nogil:
    """Whether it is a control entry that channels may ask for."""
    return frame.events == 0 and frame.body_bytes > NO_NOTICE_BYTES


cdef inline FrameData* frame_keep(FrameData* frame) noexcept nogil:
    add_u32(&frame.refs, 1)
    return frame


cdef inline void frame_drop(FrameData* frame) noexcept nogil:
    cdef size_t size
    if frame is not NULL and add_u32(&frame.refs, -1) == 0:
        size = sizeof(FrameData) + frame_wire_bytes(frame)
        relaxed_add(&frames_alive, -1)
        release(frame, size)


cdef inline size_t write_chunk_head(char* at, size_t body_bytes) noexcept nogil:
    """Writes "hex CRLF"; returns how long it is. For each event, so without snprintf."""
    cdef size_t digits = 1, index
    while body_bytes >> (4 * digits):
        digits += 1
    for index in range(digits):
        at[index] = b"0123456789abcdef"[body_bytes >> (4 * (digits - 1 - index)) & 15]
    memcpy(at + digits, b"\r\n", 2)
    return digits + 2


cdef inline FrameData* frame_new(size_t body_bytes, bint chunk) noexcept nogil:
    """A frame with its chunk framing written and its body still to be filled in; one reference."""
    cdef char head[16]
    cdef size_t head_bytes = write_chunk_head(head, body_bytes) if chunk else 0
    cdef size_t wire_bytes = head_bytes + body_bytes + (2 if chunk else 0)
    cdef FrameData* frame = <FrameData*>alloc(sizeof(FrameData) + wire_bytes)
    frame.refs = 1
    frame.head_bytes = <uint16_t>head_bytes
    frame.is_private = False
    frame.data_kind = 0
    frame.body_bytes = <uint32_t>body_bytes
    frame.events = 0
    frame.position_ms = frame.position_n = frame.time_ms = frame.expires_ms = 0
    relaxed_add(&frames_alive, 1)
    if chunk:
        memcpy(frame_wire(frame), head, head_bytes)
        memcpy(frame_body(frame) + body_bytes, b"\r\n", 2)
    return frame


cdef inline FrameData* frame_of_bytes(
        const char* body, size_t body_bytes, bint chunk) noexcept nogil:
    cdef FrameData* frame = frame_new(body_bytes, chunk)
    memcpy(frame_body(frame), body, body_bytes)
    return frame


cdef struct Text:
    const char* at             # NULL: the field is absent
    size_t size


cdef inline bint text_ends_a_line(Text text) noexcept nogil:
    """True when the text holds CR, LF or NUL, which no field but `data` may."""
    return text.at is not NULL and (
        memchr(text.at, c'\n', text.size) is not NULL
        or memchr(text.at, c'\r', text.size) is not NULL
        or memchr(text.at, 0, text.size) is not NULL)


# Walks the lines of `data`. CR, LF and CRLF each end one (WHATWG HTML 9.2.5, end-of-line); the
# next CR and the next LF are looked up with memchr only when the walk has passed them.
cdef struct Lines:
    const char* at
    const char* end            # one past the data
    const char* line_feed      # next LF, or end
    const char* carriage_return
    bint done


cdef inline const char* find_byte(const char* at, const char* end, int byte) noexcept nogil:
    cdef const void* found = memchr(at, byte, end - at) if at < end else NULL
    return <const char*>found if found is not NULL else end


cdef inline Lines lines_of(Text data) noexcept nogil:
    cdef Lines lines
    lines.at = data.at
    lines.end = data.at + data.size
    lines.line_feed = find_byte(lines.at, lines.end, c'\n')
    lines.carriage_return = find_byte(lines.at, lines.end, c'\r')
    lines.done = False
    return lines


cdef inline Text lines_next(Lines* lines) noexcept nogil:
    """The next line without its end; an absent text after the last. Data of n line ends has
    n + 1 lines, so that what a client joins with LF is what was published."""
    cdef Text line
    cdef const char* stop
    if lines.done:
        line.at = NULL
        line.size = 0
        return line
    stop = lines.line_feed if lines.line_feed < lines.carriage_return else lines.carriage_return
    line.at = lines.at
    line.size = stop - lines.at
    if stop == lines.end:
        lines.done = True
        return line
    lines.at = stop + 1
    if stop == lines.carriage_return and lines.at == lines.line_feed and lines.at < lines.end:
        lines.at += 1
    if lines.line_feed < lines.at:
        lines.line_feed = find_byte(lines.at, lines.end, c'\n')
    if lines.carriage_return < lines.at:
        lines.carriage_return = find_byte(lines.at, lines.end, c'\r')
    return line


cdef inline size_t encoded_bytes(Text data, Text event, Text id, size_t retry_digits) noexcept nogil:
    cdef size_t total = 1
    cdef Lines lines = lines_of(data)
    cdef Text line = lines_next(&lines)
    while line.at is not NULL:
        total += 6 + line.size + 1
        line = lines_next(&lines)
    if event.at is not NULL:
        total += 7 + event.size + 1
    if id.at is not NULL:
        total += 4 + id.size + 1
    if retry_digits:
        total += 7 + retry_digits + 1
    return total


cdef inline char* put_field(char* at, const char* name, size_t name_bytes, Text value) noexcept nogil:
    memcpy(at, name, name_bytes)
    at += name_bytes
    memcpy(at, value.at, value.size)
    at += value.size
    at[0] = c'\n'
    return at + 1


cdef inline FrameData* encode_event(
        Text data, Text event, Text id, uint64_t retry_ms) noexcept nogil:
    """One event as a frame with one reference: event, retry, id, data lines, blank line.
    NULL when a body of that size is not allowed. `data.at` must not be NULL."""
    cdef char digits[24]
    cdef Text retry
    retry.at = digits
    retry.size = snprintf(digits, sizeof(digits), b"%llu", <unsigned long long>retry_ms) \
        if retry_ms else 0
    cdef size_t total = encoded_bytes(data, event, id, retry.size)
    if total > BODY_BYTES_MAX:
        return NULL
    cdef FrameData* frame = frame_new(total, True)
    cdef char* at = frame_body(frame)
    if event.at is not NULL:
        at = put_field(at, b"event: ", 7, event)
    if retry.size:
        at = put_field(at, b"retry: ", 7, retry)
    if id.at is not NULL:
        at = put_field(at, b"id: ", 4, id)
    cdef Lines lines = lines_of(data)
    cdef Text line = lines_next(&lines)
    while line.at is not NULL:
        at = put_field(at, b"data: ", 6, line)
        line = lines_next(&lines)
    at[0] = c'\n'
    frame.events = 1
    return frame


cdef inline FrameData* join(FrameData** frames, size_t count) noexcept nogil:
    """One page: the bodies one after another under one chunk head. NULL when it would be over
    BODY_BYTES_MAX. Its position is the last one's."""
    cdef size_t index
    cdef size_t total = 0
    for index in range(count):
        total += frames[index].body_bytes
    if total > BODY_BYTES_MAX:
        return NULL
    cdef FrameData* page = frame_new(total, True)
    cdef char* at = frame_body(page)
    for index in range(count):
        memcpy(at, frame_body(frames[index]), frames[index].body_bytes)
        at += frames[index].body_bytes
        page.events += frames[index].events
        if frames[index].expires_ms and (
                page.expires_ms == 0 or frames[index].expires_ms < page.expires_ms):
            page.expires_ms = frames[index].expires_ms
    if count:
        page.position_ms = frames[count - 1].position_ms
        page.position_n = frames[count - 1].position_n
        page.time_ms = frames[count - 1].time_ms
    return page
