# The content of durable streams: which events a page has, and their data as it was appended. It is
# written once, into the body of the answer: from frames, or from records as the store has them.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.long cimport PyLong_AsUnsignedLongLong, PyLong_AsUnsignedLongLongMask
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.ref cimport Py_DECREF
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memset

cimport cython
from fastsse._core cimport Frame
from fastsse.native.crc cimport crc_begin
from fastsse.native.frame cimport FrameData, frame_body
from fastsse.native.lines cimport unfold, unfolded_size
from fastsse.native.record cimport (
    CONTROL, DAMAGED, DATA_KIND, ENTRY_HEAD, EVENT, EXPIRES, KIND_MAX, NUMBER_BYTES, PRIVATE,
    RECORD_HEAD, TAGS, WHOLE, Field, Reader, find_fields, find_sealed)

from fastsse.events import DATA_BYTES, EVENT_TOPICS_MAX

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
    PLACE_BITS = 20            # of a place of the file, for the second number of its position

cdef uint8_t KIND_BYTES = DATA_BYTES
cdef int MOST_TOPICS = EVENT_TOPICS_MAX
crc_begin()
cdef uint8_t digits[256]
memset(digits, NO_DIGIT, 256)
cdef bytes alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
cdef int place
for place in range(64):
    digits[<uint8_t>alphabet[place]] = <uint8_t>place


# An event where it lies.
cdef struct Body:
    const char* at
    uint32_t size
    uint8_t kind
    uint8_t is_content         # 0: a control entry, or one that was deleted
    uint64_t ms
    uint64_t n
    uint64_t expires_ms
    size_t content_size        # of what was appended, where it is known


cdef inline Body body_of(FrameData* frame) noexcept nogil:
    return Body(
        frame_body(frame), frame.body_bytes, frame.data_kind, frame.events != 0,
        frame.position_ms, frame.position_n, frame.expires_ms, 0)


cdef inline uint64_t number_at(Field* field) noexcept nogil:
    """The number of a field, 0 when it is absent."""
    cdef uint64_t number = 0
    if field.at is not NULL:
        memcpy(&number, field.at, NUMBER_BYTES)
    return number


cdef inline bint is_number(Field* field) noexcept nogil:
    return field.at is NULL or field.size == NUMBER_BYTES


cdef bint has_topic(Reader* reader, int count, const char* topic, size_t size) noexcept nogil:
    """Moves behind the topics of a record; whether the wanted one is among them. False when they
    were cut."""
    cdef uint16_t length
    cdef bint is_found = False
    while count:
        if reader.end - reader.at < 2:
            return False
        memcpy(&length, reader.at, 2)
        if reader.end - reader.at - 2 < length:
            return False
        is_found |= length == size and not memcmp(reader.at + 2, topic, size)
        reader.at += 2 + length
        count -= 1
    return is_found


cdef int find_body(
    const char* buffer, Py_ssize_t* at, Py_ssize_t end, const char* topic, size_t topic_size,
    Body* body
) noexcept nogil:
    """The event of the record at a place, which is moved behind it. Not WHOLE when it is damaged,
    or another topic's."""
    cdef Reader reader
    cdef Field[TAGS] fields
    cdef uint32_t fields_bytes
    cdef uint8_t kind, flags, count, spare
    cdef int wrong = find_sealed(buffer, at, end, ENTRY_HEAD, &reader)
    if wrong:
        return wrong
    memcpy(&body.ms, reader.at, 8)
    memcpy(&body.n, reader.at + 8, 8)
    kind, flags = <uint8_t>reader.at[16], <uint8_t>reader.at[17]
    count, spare = <uint8_t>reader.at[18], <uint8_t>reader.at[19]
    memcpy(&fields_bytes, reader.at + 20, 4)
    reader.at += ENTRY_HEAD - RECORD_HEAD
    if body.ms >> 63 or kind > CONTROL or flags & ~PRIVATE or spare or count > MOST_TOPICS:
        return DAMAGED
    if not has_topic(&reader, count, topic, topic_size):
        return DAMAGED
    wrong = find_fields(&reader, fields_bytes, fields)
    if wrong or not is_number(&fields[DATA_KIND]) or not is_number(&fields[EXPIRES]):
        return DAMAGED
    body.at, body.size = reader.at, <uint32_t>(reader.end - reader.at)
    body.is_content = kind == EVENT
    if kind == EVENT and (
        body.size < END_BYTES or memcmp(reader.end - END_BYTES, b"\n\n", END_BYTES)
    ):
        return DAMAGED
    body.expires_ms = number_at(&fields[EXPIRES])
    body.kind = <uint8_t>number_at(&fields[DATA_KIND])
    if number_at(&fields[DATA_KIND]) > KIND_MAX:
        body.kind = 0          # One that is not known is text.
    return WHOLE


cdef const char* data_at(const char* at, const char* end) noexcept nogil:
    """Where the data of an event begins: behind the first `data: ` at the begin of a line; `end`
    for none."""
    while end - at >= FIELD_BYTES:
        if not memcmp(at, b"data: ", FIELD_BYTES):
            return at + FIELD_BYTES
        at = <const char*>memchr(at, c'\n', end - at)
        if at is NULL:
            break
        at += 1
    return end


cdef size_t size_of_content(Body* body) noexcept nogil:
    """The bytes of one event as it was appended; for base64 that is not clean, at least those."""
    if body.size < FIELD_BYTES + END_BYTES:
        return 0
    cdef const char* end = body.at + body.size - END_BYTES
    cdef const char* at = data_at(body.at, end)
    cdef int padding = 0
    if body.kind != KIND_BYTES:
        return unfolded_size(at, end)
    while padding < 2 and end - padding > at and end[-padding - 1] == c'=':
        padding += 1
    return <size_t>(end - padding - at) * 3 // 4


@cython.final
cdef class StoredContent:
    cdef list records          # have the bodies
    cdef Body* bodies
    cdef readonly Py_ssize_t count

    def __cinit__(self, list records not None, str topic not None, list places not None):
        cdef Py_ssize_t size, index = 0, count = len(places)
        cdef const char* text = PyUnicode_AsUTF8AndSize(topic, &size)
        cdef bytes some
        self.records = records
        self.bodies = <Body*>PyMem_RawMalloc((count or 1) * sizeof(Body))
        if self.bodies is NULL:
            raise MemoryError
        for some in records:
            index += self.find(some, index, count, text, size)
        if index != count:
            raise ValueError("a record is missing")
        for index in range(count):
            place = <object>self.bodies[index].ms << PLACE_BITS | self.bodies[index].n
            if place != places[index]:
                raise ValueError("a record has another place")
        self.count = count

    cdef Py_ssize_t find(
        self, bytes records, Py_ssize_t first, Py_ssize_t count, const char* topic, size_t size
    ) except -1:
        """Notes the events of records; returns how many."""
        cdef const char* buffer = PyBytes_AS_STRING(records)
        cdef Py_ssize_t at = 0, index = first, end = PyBytes_GET_SIZE(records)
        cdef int wrong = WHOLE
        with nogil:
            while at < end and index < count and wrong == WHOLE:
                wrong = find_body(buffer, &at, end, topic, size, &self.bodies[index])
                if wrong == WHOLE:  # Now, because the checksum has it in the cache.
                    self.bodies[index].content_size = size_of_content(&self.bodies[index])
                index += 1
        if wrong != WHOLE or at < end:
            raise ValueError("a record is damaged, another's, or one too many")
        return index - first

    def __dealloc__(self):
        PyMem_RawFree(self.bodies)


@cython.final
cdef class ContentRun:
    """The first events of what was stored."""
    cdef StoredContent stored
    cdef Py_ssize_t count
    cdef uint64_t now_ms

    @property
    def position(self):
        cdef Body* last = &self.stored.bodies[self.count - 1]
        return <object>last.ms << 64 | last.n


cdef char* write_decoded(char* out, const char* at, const char* end) noexcept nogil:
    """Writes what base64 stands for; returns the end. Other characters are skipped."""
    cdef uint32_t bits = 0
    cdef int count = 0
    cdef uint8_t digit, one, two, three, four
    while end - at >= 4:
        one, two = digits[<uint8_t>at[0]], digits[<uint8_t>at[1]]
        three, four = digits[<uint8_t>at[2]], digits[<uint8_t>at[3]]
        if (one | two | three | four) & NO_DIGIT:
            break
        bits = <uint32_t>one << 18 | <uint32_t>two << 12 | <uint32_t>three << 6 | four
        out[0], out[1], out[2] = <char>(bits >> 16), <char>(bits >> 8), <char>bits
        out += 3
        at += 4
    bits = 0
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


cdef char* write_content(char* out, const char* room, Body* body) noexcept nogil:
    """Writes the data of one event as it was appended, of `size_of_content` bytes at most; returns
    the end. `room`: up to where may be written."""
    if body.size < FIELD_BYTES + END_BYTES:
        return out
    cdef const char* end = body.at + body.size - END_BYTES
    cdef const char* at = data_at(body.at, end)
    if body.kind == KIND_BYTES:
        return write_decoded(out, at, end)
    return unfold(out, room, at, end)


cdef inline char* put(char* out, bytes text) noexcept:
    memcpy(out, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
    return out + PyBytes_GET_SIZE(text)


cdef inline bint is_behind(Body* body, uint64_t ms, uint64_t n) noexcept nogil:
    return body.ms > ms or (body.ms == ms and body.n > n)


cdef inline int64_t room_of(Body* body) noexcept nogil:
    """What an event takes of a page, at most its size."""
    return <int64_t>body.size * 3 // 4 if body.kind == KIND_BYTES else body.size


cdef inline bint is_shown(Body* body, uint64_t now_ms) noexcept nogil:
    return body.is_content and not (body.expires_ms and body.expires_ms <= now_ms)


def take_content(frames, through, int64_t room_bytes, list taken not None, uint64_t now_ms=0):
    cdef uint64_t ms = PyLong_AsUnsignedLongLong(through >> 64)
    cdef uint64_t n = PyLong_AsUnsignedLongLongMask(through)
    cdef Frame frame
    cdef Body body
    cdef int64_t size
    for frame in frames:
        body = body_of(frame.data)
        if is_behind(&body, ms, n):
            break
        if not is_shown(&body, now_ms):
            continue
        size = room_of(&body)
        if taken and size > room_bytes:
            return 0
        taken.append(frame)
        room_bytes -= size
        if room_bytes <= 0:
            break
    return room_bytes


def take_stored(
    StoredContent stored not None, through, int64_t room_bytes, list taken not None,
    uint64_t now_ms=0
):
    cdef uint64_t ms = PyLong_AsUnsignedLongLong(through >> 64)
    cdef uint64_t n = PyLong_AsUnsignedLongLongMask(through)
    cdef ContentRun run = ContentRun.__new__(ContentRun)
    cdef Py_ssize_t index, last = 0
    cdef Body* body
    cdef int64_t size
    cdef bint is_full = False
    run.stored, run.now_ms = stored, now_ms
    for index in range(stored.count):
        body = &stored.bodies[index]
        if is_behind(body, ms, n):
            break
        if not is_shown(body, now_ms):
            continue
        size = room_of(body)
        if (taken or last) and size > room_bytes:
            is_full = True
            break
        last = index + 1
        room_bytes -= size
        if room_bytes <= 0:
            break
    if last:
        run.count = last
        taken.append(run)
    return 0 if is_full else room_bytes


# What a page is written to.
cdef struct Page:
    char* out
    const char* room           # where it ends
    const char* separator
    size_t separator_bytes
    bint is_first


cdef inline void put_body(Page* page, Body* body) noexcept nogil:
    if not page.is_first:
        memcpy(page.out, page.separator, page.separator_bytes)
        page.out += page.separator_bytes
    page.is_first = False
    page.out = write_content(page.out, page.room, body)


cdef void put_run(Page* page, ContentRun run) noexcept:
    cdef Py_ssize_t index
    for index in range(run.count):
        if is_shown(&run.stored.bodies[index], run.now_ms):
            put_body(page, &run.stored.bodies[index])


cdef size_t size_of(contents, size_t separator_bytes) except? 0:
    """The bytes of the content and its separators, or a few more. It should not be much more: memory
    of a page that is made smaller goes back to the system, which clears it for the next one."""
    cdef size_t total = 0
    cdef Py_ssize_t index
    cdef ContentRun run
    cdef Body body
    for one in contents:
        if type(one) is ContentRun:
            run = one
            for index in range(run.count):
                if is_shown(&run.stored.bodies[index], run.now_ms):
                    total += run.stored.bodies[index].content_size + separator_bytes
        else:
            body = body_of((<Frame?>one).data)
            total += size_of_content(&body) + separator_bytes
    return total - separator_bytes if total else 0


def join_content(
    contents, bytes separator not None=b"", bytes opening not None=b"", bytes closing not None=b""
):
    cdef size_t total = PyBytes_GET_SIZE(opening) + PyBytes_GET_SIZE(closing)
    cdef Page page = Page(
        NULL, NULL, PyBytes_AS_STRING(separator), PyBytes_GET_SIZE(separator), True)
    cdef Body one_body
    cdef PyObject* body
    total += size_of(contents, page.separator_bytes)
    body = new_bytes(NULL, total)
    if body is NULL:
        raise MemoryError
    page.room = new_begin(body) + total
    page.out = put(new_begin(body), opening)
    for one in contents:
        if type(one) is ContentRun:
            put_run(&page, one)
        else:
            one_body = body_of((<Frame>one).data)
            put_body(&page, &one_body)
    page.out = put(page.out, closing)
    if page.out != page.room:
        _PyBytes_Resize(&body, page.out - new_begin(body))
    made = <object>body
    Py_DECREF(made)             # `made` has its own reference.
    return made
