"""Records: events and entries as bytes, one behind the other; see `fastsse.entries`.

An entry: bytes behind this number (u32), milliseconds (u64), n (u64), flags, number of topics;
each topic behind its length (u16); the publisher's own id, if any, likewise; the frame's body.
A draft: bytes behind this number (u32), flags, number of topics, retry (u32); topics, own id and
event type behind their lengths; the data. All little-endian, packed.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy

from fastsse._core import encode_frame, load_frame
from fastsse.events import EVENT_TOPICS_MAX, Event
from fastsse.positions import uuid_of_position

cdef enum:
    ENTRY_HEAD = 22
    DRAFT_HEAD = 10
    PRIVATE = 1
    OWN_ID = 2
    TYPE = 4
    UUID = 8
    TOPICS_MAX = 255           # what fits; how many there may be is EVENT_TOPICS_MAX
    SIMPLE_TOPIC_MAX = 1024
    RETRY_LEAST = 1000
    RETRY_MOST = 3600000

cdef uint64_t MS_MAX = (1 << 63) - 1
cdef int MOST_TOPICS = EVENT_TOPICS_MAX
cdef object new_event = Event.__new__
cdef object new_tuple = tuple.__new__
cdef object N_BITS = 64
cdef object N_MASK = (1 << 64) - 1


# -- encoding -------------------------------------------------------------------------------------

def encode_entries(positions not None, events not None, entry_type not None):
    """Events that got their positions, each encoded and made an `entry_type`. O(bytes)."""
    cdef list entries = []
    cdef bytes own_id, event_id
    for position, event in zip(positions, events, strict=True):
        own_id = event_id = event.id
        if event_id is None:
            if event.id_style == "uuid":
                event_id = uuid_of_position(position)
            else:
                event_id = position_text(position >> N_BITS, position & N_MASK)
        frame = encode_frame(
            event.data, event.event, event_id, event.retry_ms, position, event.private
        )
        entries.append(new_tuple(entry_type, (position, event.topics, own_id, frame)))
    return entries


cdef bytes position_text(uint64_t ms, uint64_t n):
    """A position as an id."""
    cdef char text[48]
    cdef unsigned long long left = ms, right = n
    return text[:snprintf(text, sizeof(text), "%llu-%llu", left, right)]


# -- writing --------------------------------------------------------------------------------------

cdef inline char* put_text(char* at, const char* text, Py_ssize_t size) noexcept:
    """Writes a text behind its length; returns where it ends."""
    cdef uint16_t length = <uint16_t>size
    memcpy(at, &length, 2)
    memcpy(at + 2, text, size)
    return at + 2 + size


cdef Py_ssize_t topics_size(tuple topics) except -1:
    """Bytes that the topics take in a record."""
    cdef Py_ssize_t size = 0, one
    if not 0 < len(topics) <= TOPICS_MAX:
        raise ValueError("a record holds 1 to 255 topics")
    for topic in topics:
        PyUnicode_AsUTF8AndSize(topic, &one)
        check_short(one)
        size += 2 + one
    return size


cdef inline int check_short(Py_ssize_t size) except -1:
    if size > 0xFFFF:
        raise ValueError("a text of a record is too long")
    return 0


cdef char* put_topics(char* at, tuple topics) except NULL:
    cdef Py_ssize_t one
    cdef const char* text
    for topic in topics:
        text = PyUnicode_AsUTF8AndSize(topic, &one)
        at = put_text(at, text, one)
    return at


cdef bytes new_record(Py_ssize_t size):
    """A record of that size whose first number is written."""
    if size - 4 > 0xFFFFFFFFLL:
        raise ValueError("a record is too long")
    cdef bytes record = PyBytes_FromStringAndSize(NULL, size)
    cdef uint32_t behind = <uint32_t>(size - 4)
    memcpy(PyBytes_AS_STRING(record), &behind, 4)
    return record


def pack_entry(entry not None):
    """An entry (position, topics, own id, frame) as a record. O(bytes)."""
    cdef tuple topics
    cdef bytes own_id, body
    position, topics, own_id, frame = entry
    body = frame.body
    cdef Py_ssize_t own_size = 0, body_size = PyBytes_GET_SIZE(body)
    cdef Py_ssize_t size = ENTRY_HEAD + topics_size(topics) + body_size
    cdef uint64_t ms = position >> N_BITS, n = position & N_MASK
    cdef uint8_t flags = PRIVATE if frame.private else 0
    if own_id is not None:
        flags |= OWN_ID
        own_size = PyBytes_GET_SIZE(own_id)
        check_short(own_size)
        size += 2 + own_size
    cdef bytes record = new_record(size)
    cdef char* at = PyBytes_AS_STRING(record)
    memcpy(at + 4, &ms, 8)
    memcpy(at + 12, &n, 8)
    at[20] = flags
    at[21] = <char><uint8_t>len(topics)
    at = put_topics(at + ENTRY_HEAD, topics)
    if own_id is not None:
        at = put_text(at, PyBytes_AS_STRING(own_id), own_size)
    memcpy(at, PyBytes_AS_STRING(body), body_size)
    return record


def pack_event(event not None):
    """An event that has no position yet as a record. O(bytes)."""
    cdef tuple topics = event.topics
    cdef bytes data = event.data, own_id = event.id, kind = event.event
    cdef Py_ssize_t own_size = 0, kind_size = 0, data_size = PyBytes_GET_SIZE(data)
    cdef Py_ssize_t size = DRAFT_HEAD + topics_size(topics) + data_size
    cdef uint8_t flags = PRIVATE if event.private else 0
    cdef uint32_t retry_ms = event.retry_ms
    if event.id_style == "uuid":
        flags |= UUID
    if own_id is not None:
        flags |= OWN_ID
        own_size = PyBytes_GET_SIZE(own_id)
        check_short(own_size)
        size += 2 + own_size
    if kind is not None:
        flags |= TYPE
        kind_size = PyBytes_GET_SIZE(kind)
        check_short(kind_size)
        size += 2 + kind_size
    cdef bytes record = new_record(size)
    cdef char* at = PyBytes_AS_STRING(record)
    at[4] = flags
    at[5] = <char><uint8_t>len(topics)
    memcpy(at + 6, &retry_ms, 4)
    at = put_topics(at + DRAFT_HEAD, topics)
    if own_id is not None:
        at = put_text(at, PyBytes_AS_STRING(own_id), own_size)
    if kind is not None:
        at = put_text(at, PyBytes_AS_STRING(kind), kind_size)
    memcpy(at, PyBytes_AS_STRING(data), data_size)
    return record


# -- reading --------------------------------------------------------------------------------------

cdef struct Reader:
    const char* at
    const char* end


cdef object cut():
    return ValueError("a record was cut")


cdef int take(Reader* reader, const char** text, Py_ssize_t* size) except -1:
    """A text behind its length, from the front of what is left of a record."""
    cdef uint16_t length
    if reader.end - reader.at < 2:
        raise cut()
    memcpy(&length, reader.at, 2)
    if reader.end - reader.at - 2 < length:
        raise cut()
    text[0] = reader.at + 2
    size[0] = length
    reader.at += 2 + length
    return 0


cdef bytes take_bytes(Reader* reader):
    cdef const char* text = NULL
    cdef Py_ssize_t size = 0
    take(reader, &text, &size)
    return PyBytes_FromStringAndSize(text, size)


cdef object take_topic(Reader* reader):
    cdef const char* text = NULL
    cdef Py_ssize_t size = 0
    take(reader, &text, &size)
    return PyUnicode_DecodeUTF8(text, size, NULL)


cdef tuple take_topics(Reader* reader, int count):
    if not 0 < count <= MOST_TOPICS:
        raise ValueError(f"a record of {count} topics")
    if count == 1:
        return (take_topic(reader),)
    return tuple([take_topic(reader) for _ in range(count)])


cdef inline bytes rest(Reader* reader):
    return PyBytes_FromStringAndSize(reader.at, reader.end - reader.at)


cdef int next_record(
    const char* buffer, Py_ssize_t* at, Py_ssize_t end, int head, Reader* reader
) except -1:
    """Sets the reader on the record at a place, behind its first number, and moves the place."""
    cdef uint32_t behind
    if end - at[0] < head:
        raise cut()
    memcpy(&behind, buffer + at[0], 4)
    if behind < <uint32_t>head - 4 or end - at[0] - 4 < behind:
        raise cut()
    reader.at = buffer + at[0] + 4
    at[0] += 4 + <Py_ssize_t>behind
    reader.end = buffer + at[0]
    return 0


def unpack_entries(buffer not None, entry_type not None):
    """The entries of whole records, each made an `entry_type`. Raises ValueError. O(bytes)."""
    cdef Py_buffer view
    PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
    try:
        return entries_of(<const char*>view.buf, view.len, entry_type)
    finally:
        PyBuffer_Release(&view)


cdef list entries_of(const char* buffer, Py_ssize_t end, object entry_type):
    cdef list entries = []
    cdef Py_ssize_t at = 0
    cdef Reader reader
    cdef uint64_t ms, n, last_ms = MS_MAX
    cdef uint8_t flags
    cdef object base = MS_MAX << N_BITS, position
    cdef bytes own_id, body
    while at < end:
        next_record(buffer, &at, end, ENTRY_HEAD, &reader)
        memcpy(&ms, reader.at, 8)
        memcpy(&n, reader.at + 8, 8)
        flags = <uint8_t>reader.at[16]
        count = <uint8_t>reader.at[17]
        reader.at += ENTRY_HEAD - 4
        topics = take_topics(&reader, count)
        own_id = take_bytes(&reader) if flags & OWN_ID else None
        body = rest(&reader)
        if ms > MS_MAX or flags & ~(PRIVATE | OWN_ID) or not ends_an_event(body):
            raise ValueError("a damaged record")
        if ms != last_ms:
            last_ms = ms
            base = ms << N_BITS
        position = base | n
        frame = load_frame(body, position, (flags & PRIVATE) != 0)
        entries.append(new_tuple(entry_type, (position, topics, own_id, frame)))
    return entries


cdef inline bint ends_an_event(bytes body):
    cdef Py_ssize_t size = PyBytes_GET_SIZE(body)
    cdef const char* text = PyBytes_AS_STRING(body)
    return size >= 2 and text[size - 1] == b"\n" and text[size - 2] == b"\n"


def unpack_events(buffer not None):
    """The events of whole records, each validated again. Raises ValueError, or InvalidEvent.
    O(bytes)."""
    cdef Py_buffer view
    PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
    try:
        return events_of(<const char*>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)


cdef list events_of(const char* buffer, Py_ssize_t end):
    cdef list events = []
    cdef Py_ssize_t at = 0
    cdef Reader reader
    cdef uint32_t retry_ms
    cdef uint8_t flags
    while at < end:
        next_record(buffer, &at, end, DRAFT_HEAD, &reader)
        flags = <uint8_t>reader.at[0]
        count = <uint8_t>reader.at[1]
        memcpy(&retry_ms, reader.at + 2, 4)
        reader.at += DRAFT_HEAD - 4
        if flags & ~(PRIVATE | OWN_ID | TYPE | UUID):
            raise ValueError("a damaged record")
        if count == 1 and not flags & (OWN_ID | TYPE) and is_simple(&reader) and (
            retry_ms == 0 or RETRY_LEAST <= retry_ms <= RETRY_MOST
        ):
            events.append(simple_event(&reader, flags, retry_ms))
        else:
            events.append(any_event(&reader, flags, count, retry_ms))
    return events


cdef bint is_simple(Reader* reader) noexcept:
    """Whether the one topic and the data are printable ASCII, and ASCII: what `Event` lets pass
    at once. It looks closer at everything else."""
    cdef uint16_t length
    cdef const char* at = reader.at
    cdef const char* end
    cdef uint64_t eight
    if reader.end - at < 2:
        return False
    memcpy(&length, at, 2)
    at += 2
    if length == 0 or length > SIMPLE_TOPIC_MAX or reader.end - at < length or at[0] == b"$":
        return False
    end = at + length
    while at < end:
        if not 0x20 <= <uint8_t>at[0] < 0x7F:
            return False
        at += 1
    while reader.end - at >= 8:
        memcpy(&eight, at, 8)
        if eight & 0x8080808080808080ULL:
            return False
        at += 8
    while at < reader.end:
        if <uint8_t>at[0] >= 0x80:
            return False
        at += 1
    return True


cdef object simple_event(Reader* reader, uint8_t flags, uint32_t retry_ms):
    event = new_event(Event)
    event.topics = (take_topic(reader),)
    event.data = rest(reader)
    event.event = None
    event.id = None
    event.retry_ms = retry_ms
    event.private = (flags & PRIVATE) != 0
    event.id_style = "uuid" if flags & UUID else "position"
    return event


cdef object any_event(Reader* reader, uint8_t flags, int count, uint32_t retry_ms):
    topics = take_topics(reader, count)
    own_id = take_bytes(reader) if flags & OWN_ID else None
    kind = take_bytes(reader) if flags & TYPE else None
    return Event(
        topics,
        rest(reader),
        kind,
        own_id,
        retry_ms or None,
        private=(flags & PRIVATE) != 0,
        id_style="uuid" if flags & UUID else "position",
    )
