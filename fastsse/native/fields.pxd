# Reads type, head lines and data back from the bytes of a frame. The frame was encoded here, so its
# fields are in the encoder's order: event, retry, id, then the lines of data.

from libc.string cimport memchr, memcmp, memcpy

from fastsse.native.buffer cimport Buffer, buffer_clear, buffer_put, buffer_put_byte
from fastsse.native.frame cimport FrameData, Text, find_byte, frame_body


cdef struct EventText:
    Text head                  # the lines before the data
    Text type                  # absent: the default type
    Text id                    # absent: none
    Text data                  # lines joined with LF; absent: not an event
    Buffer joined              # holds the data where it has several lines


cdef inline Text text_at(const char* at, size_t size) noexcept nogil:
    cdef Text text
    text.at = at
    text.size = size
    return text


cdef inline bint begins_with(const char* at, const char* end, const char* name, size_t size) noexcept nogil:
    return <size_t>(end - at) >= size and memcmp(at, name, size) == 0


cdef inline bint text_equals(Text left, Text right) noexcept nogil:
    return left.size == right.size and (left.size == 0 or memcmp(left.at, right.at, left.size) == 0)


cdef inline Text type_of(FrameData* frame) noexcept nogil:
    """The event's type; absent for the default one. O(its length)."""
    cdef const char* body = frame_body(frame)
    cdef const char* end = body + frame.body_bytes
    if not begins_with(body, end, b"event: ", 7):
        return text_at(NULL, 0)
    return text_at(body + 7, find_byte(body, end, c'\n') - body - 7)


cdef inline void read_event(FrameData* frame, EventText* event) noexcept nogil:
    """Reads the fields of a frame. O(bytes). `event` must be zeroed, or filled by an earlier call."""
    cdef const char* at = frame_body(frame)
    cdef const char* end = at + frame.body_bytes
    cdef const char* begin = at
    cdef const char* line
    cdef bint is_first = True
    event.type = event.id = event.data = text_at(NULL, 0)
    buffer_clear(&event.joined)
    while at < end and at[0] != c'\n' and not begins_with(at, end, b"data:", 5):
        line = find_byte(at, end, c'\n')
        if begins_with(at, line, b"event: ", 7):
            event.type = text_at(at + 7, line - at - 7)
        elif begins_with(at, line, b"id: ", 4):
            event.id = text_at(at + 4, line - at - 4)
        at = line + 1
    event.head = text_at(begin, at - begin)
    while begins_with(at, end, b"data: ", 6):
        line = find_byte(at, end, c'\n')
        if is_first:
            event.data = text_at(at + 6, line - at - 6)
        else:
            if event.joined.size == 0:
                buffer_put(&event.joined, event.data)
            buffer_put_byte(&event.joined, c'\n')
            buffer_put(&event.joined, text_at(at + 6, line - at - 6))
        is_first = False
        at = line + 1
    if event.joined.size:
        event.data = text_at(event.joined.at, event.joined.size)
