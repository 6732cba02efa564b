# The content of durable streams: which frames a page has, and their data as it was appended. It is
# written once, from the frames into the body of the answer.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.long cimport PyLong_AsUnsignedLongLong, PyLong_AsUnsignedLongLongMask
from cpython.ref cimport Py_DECREF
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memset

from fastsse._core cimport Frame
from fastsse.native.frame cimport FrameData, frame_body

from fastsse.events import DATA_BYTES

cdef extern from "Python.h":
    ctypedef struct PyObject
    # Bytes that nothing else refers to yet are written in place, and made shorter.
    PyObject* new_bytes "PyBytes_FromStringAndSize"(const char*, Py_ssize_t)
    char* new_begin "PyBytes_AS_STRING"(PyObject*)
    int _PyBytes_Resize(PyObject**, Py_ssize_t) except -1

cdef enum:
    FIELD_BYTES = 6            # `data: `
    END_BYTES = 2              # the blank line behind an event
    NO_DIGIT = 64

cdef uint8_t KIND_BYTES = DATA_BYTES
cdef uint8_t digits[256]
memset(digits, NO_DIGIT, 256)
cdef bytes alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
cdef int place
for place in range(64):
    digits[<uint8_t>alphabet[place]] = <uint8_t>place


cdef const char* data_at(FrameData* frame, const char* end) noexcept nogil:
    """Where the data of an event begins: behind the first `data: ` at the begin of a line; `end`
    for none."""
    cdef const char* at = frame_body(frame)
    while end - at >= FIELD_BYTES:
        if not memcmp(at, b"data: ", FIELD_BYTES):
            return at + FIELD_BYTES
        at = <const char*>memchr(at, c'\n', end - at)
        if at is NULL:
            break
        at += 1
    return end


cdef char* write_lines(char* out, const char* at, const char* end) noexcept nogil:
    """Writes the lines of the data without the names of their fields; returns the end."""
    cdef const char* line_feed
    while at < end:
        line_feed = <const char*>memchr(at, c'\n', end - at)
        if line_feed is NULL:
            memcpy(out, at, end - at)
            return out + (end - at)
        memcpy(out, at, line_feed + 1 - at)
        out += line_feed + 1 - at
        at = line_feed + 1
        if end - at >= FIELD_BYTES and not memcmp(at, b"data: ", FIELD_BYTES):
            at += FIELD_BYTES
    return out


cdef char* write_decoded(char* out, const char* at, const char* end) noexcept nogil:
    """Writes what base64 stands for; returns the end. Other characters are skipped."""
    cdef uint32_t bits = 0
    cdef int count = 0
    cdef uint8_t digit
    while at < end:
        digit = digits[<uint8_t>at[0]]
        at += 1
        if digit == NO_DIGIT:
            continue
        bits = bits << 6 | digit
        count += 1
        if count == 4:
            out[0], out[1], out[2] = <char>(bits >> 16), <char>(bits >> 8), <char>bits
            out += 3
            count = 0
    if count > 1:
        out[0] = <char>(bits >> (6 * count - 8))
        out += 1
    if count > 2:
        out[0] = <char>(bits >> 2)
        out += 1
    return out


cdef char* write_content(char* out, FrameData* frame) noexcept nogil:
    """Writes the data of one event as it was appended; returns the end. It is shorter than the
    frame."""
    cdef const char* end = frame_body(frame) + frame.body_bytes
    if frame.body_bytes < FIELD_BYTES + END_BYTES:
        return out
    end -= END_BYTES
    cdef const char* at = data_at(frame, end)
    if frame.data_kind == KIND_BYTES:
        return write_decoded(out, at, end)
    return write_lines(out, at, end)


cdef inline char* put(char* out, bytes text) noexcept:
    memcpy(out, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
    return out + PyBytes_GET_SIZE(text)


cdef inline bint is_behind(FrameData* frame, uint64_t ms, uint64_t n) noexcept nogil:
    return frame.position_ms > ms or (frame.position_ms == ms and frame.position_n > n)


cdef inline int64_t room_of(FrameData* frame) noexcept nogil:
    """What an event takes of a page, at most its size."""
    return frame.body_bytes * 3 // 4 if frame.data_kind == KIND_BYTES else frame.body_bytes


def take_content(frames, through, int64_t room_bytes, list taken not None, uint64_t now_ms=0):
    cdef uint64_t ms = PyLong_AsUnsignedLongLong(through >> 64)
    cdef uint64_t n = PyLong_AsUnsignedLongLongMask(through)
    cdef Frame frame
    cdef int64_t size
    for frame in frames:
        if is_behind(frame.data, ms, n):
            break
        if frame.data.events == 0 or (frame.data.expires_ms and frame.data.expires_ms <= now_ms):
            continue
        size = room_of(frame.data)
        if taken and size > room_bytes:
            return 0
        taken.append(frame)
        room_bytes -= size
        if room_bytes <= 0:
            break
    return room_bytes


def join_content(
    frames, bytes separator not None=b"", bytes opening not None=b"", bytes closing not None=b""
):
    cdef size_t total = PyBytes_GET_SIZE(opening) + PyBytes_GET_SIZE(closing)
    cdef Frame frame
    cdef bint is_first = True
    cdef PyObject* body
    cdef char* out
    for frame in frames:
        total += frame.data.body_bytes + PyBytes_GET_SIZE(separator)
    body = new_bytes(NULL, total)
    if body is NULL:
        raise MemoryError
    out = put(new_begin(body), opening)
    for frame in frames:
        if not is_first:
            out = put(out, separator)
        is_first = False
        out = write_content(out, frame.data)
    out = put(out, closing)
    _PyBytes_Resize(&body, out - new_begin(body))
    made = <object>body
    Py_DECREF(made)             # `made` has its own reference.
    return made
