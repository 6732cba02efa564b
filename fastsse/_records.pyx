"""Records: events and entries as bytes, one behind the other; see `fastsse.entries`.

Format 2, little-endian, packed. Every record begins with the number of bytes behind that number
(u32) and the CRC-32C (u32) of everything behind the checksum.

An entry: milliseconds (u64), n (u64), kind, flags, number of topics, 0, bytes of fields (u32); each
topic behind its length (u16); the fields; the frame's body, or what a control entry says. A draft:
flags, number of topics, data kind, 0, retry (u32), bytes of fields (u32); topics; fields; the data.

A field is a tag (u8), a length (u32) and its value; tags rise, so each stands once. Unknown tags are
skipped. Absent is what needs no word: a time that is the position's, an id that is the position's.

Format 1 had no checksum and no fields: `unpack_entries_1` reads what was stored in it.

Over 400 lines: packing and unpacking of one format are checked side by side.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fastsse._batch cimport EventBatch, SharedFields
from fastsse._core cimport Frame
from fastsse.native.crc cimport crc32c_by_table, crc32c_of, crc_begin
from fastsse.native.frame cimport FrameData, Text, frame_body
from fastsse.native.place cimport Place, set_place
from fastsse.native.record cimport (
    CONTROL, CONTROLS, CUT, DATA_KIND, ENTRY_HEAD, EVENT, EXPECT, EXPIRES, FIELD_HEAD, KEY, KIND_MAX,
    META, NUMBER_BYTES, OWN_ID, PAYLOAD, PRIVATE, PRODUCER, RECORD_HEAD, REQUEST, STREAM, TAGS,
    TIME, TRACE, TYPE, Field, Reader, find_fields, find_record, find_sealed)

from fastsse._core import load_frame
from fastsse.directives import BLANK, Directives, Producer, RequestKey, notice_of
from fastsse.events import EVENT_TOPICS_MAX, Event
from fastsse.streamstate import StreamAsk

cdef enum:
    DRAFT_HEAD = 20
    ENTRY_HEAD_1 = 22          # of format 1
    OWN_ID_1 = 2
    UUID = 8
    TOPICS_MAX = 255           # what fits; how many there may be is EVENT_TOPICS_MAX
    SIMPLE_TOPIC_MAX = 1024
    RETRY_LEAST = 1000
    RETRY_MOST = 3600000
    EXTRAS = 6                 # slots that are fields; behind them stands `control`

# The fields that are the slots of `Extras`, in its order; the data kind is the frame's.
cdef uint8_t[EXTRAS] EXTRA_TAGS = [EXPIRES, TYPE, PAYLOAD, KEY, META, TRACE]

cdef object NO_DIRECTIVES = Directives()
cdef uint64_t MS_MAX = (1 << 63) - 1
cdef int MOST_TOPICS = EVENT_TOPICS_MAX
cdef object new_event = Event.__new__
cdef object new_tuple = tuple.__new__
cdef object N_BITS = 64
cdef object N_MASK = (1 << 64) - 1

crc_begin()


def crc32c(data not None, bint by_table=False):
    """The CRC-32C of bytes; `by_table` does without the processor's instruction."""
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if by_table:
            return crc32c_by_table(<const char*>view.buf, view.len)
        return crc32c_of(<const char*>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)


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


cdef void seal(bytes record) noexcept:
    """Writes the checksum of a record that is complete."""
    cdef char* at = PyBytes_AS_STRING(record)
    cdef uint32_t crc = crc32c_of(at + RECORD_HEAD, PyBytes_GET_SIZE(record) - RECORD_HEAD)
    memcpy(at + 4, &crc, 4)


cdef inline Py_ssize_t field_size(value) except -1:
    """Bytes that a field takes, none when it is absent."""
    if value is None:
        return 0
    if isinstance(value, bytes):
        return FIELD_HEAD + PyBytes_GET_SIZE(value)
    return FIELD_HEAD + NUMBER_BYTES


cdef char* put_field(char* at, uint8_t tag, value) except NULL:
    """Writes a field, if there is one; returns where it ends."""
    cdef uint32_t size
    cdef uint64_t number
    if value is None:
        return at
    at[0] = <char>tag
    if isinstance(value, bytes):
        size = <uint32_t>PyBytes_GET_SIZE(value)
        memcpy(at + FIELD_HEAD, PyBytes_AS_STRING(value), size)
    else:
        size, number = NUMBER_BYTES, value
        memcpy(at + FIELD_HEAD, &number, NUMBER_BYTES)
    memcpy(at + 1, &size, 4)
    return at + FIELD_HEAD + size


def pack_entry(entry not None):
    """An entry (position, topics, own id, frame, extras) as a record. O(bytes)."""
    cdef Place place
    position, topics, own_id, frame, extras = entry
    if frame is None:
        raise TypeError("an entry has a frame")
    set_place(&place, position)
    return pack_frame(place, topics, own_id, frame, extras)


cdef bytes pack_frame(Place place, tuple topics, bytes own_id, Frame frame, extras):
    """As `pack_entry`, of an entry in parts."""
    cdef FrameData* data = frame.data
    cdef bytes control = None
    time_ms = data.time_ms if data.time_ms != data.position_ms else None
    data_kind = data.data_kind or None
    cdef Py_ssize_t fields_size = field_size(time_ms) + field_size(own_id) + field_size(data_kind)
    cdef int slot
    if extras is not None:
        control = extras[EXTRAS]
        for slot in range(EXTRAS):
            fields_size += field_size(extras[slot])
    if control is None and data.events == 0:
        control = BLANK
    cdef Text body = Text(frame_body(data), data.body_bytes)
    if control is not None:
        body = Text(PyBytes_AS_STRING(control), PyBytes_GET_SIZE(control))
    cdef Py_ssize_t size = ENTRY_HEAD + topics_size(topics) + fields_size + body.size
    cdef bytes record = new_record(size)
    cdef char* at = PyBytes_AS_STRING(record)
    cdef uint32_t fields_bytes = <uint32_t>fields_size
    memcpy(at + 8, &place.ms, 8)
    memcpy(at + 16, &place.n, 8)
    at[24] = EVENT if control is None else CONTROL
    at[25] = PRIVATE if data.is_private else 0
    at[26] = <char><uint8_t>len(topics)
    at[27] = 0
    memcpy(at + 28, &fields_bytes, 4)
    at = put_topics(at + ENTRY_HEAD, topics)
    at = put_field(put_field(at, TIME, time_ms), OWN_ID, own_id)
    for slot in range(EXTRAS):
        if extras is not None:
            at = put_field(at, EXTRA_TAGS[slot], extras[slot])
        if EXTRA_TAGS[slot] == TYPE:
            at = put_field(at, DATA_KIND, data_kind)
    memcpy(at, body.at, body.size)
    seal(record)
    return record


def pack_events(events not None):
    """Events that have no position yet as records, one behind the other. O(bytes)."""
    cdef EventBatch batch
    cdef SharedFields shared
    cdef Py_ssize_t at
    cdef uint8_t kind
    cdef list records = []
    if type(events) is not EventBatch:
        return b"".join([pack_event(event) for event in events])
    batch = events
    for at in range(len(batch.data)):
        event = None if batch.events is None else batch.events[at]
        shared = None if batch.shared is None else batch.shared[at]
        own_id = None if batch.own_ids is None else batch.own_ids[at]
        kind = 0 if batch.kinds is None else batch.kinds[at]
        asked = None if batch.asked is None else batch.asked[at]
        if event is not None:
            records.append(pack_event(event))
        elif shared is None:
            records.append(draft_of(
                batch.topics[at], batch.data[at], own_id, None, None, asked, 0, 0, kind))
        else:
            records.append(draft_of(
                batch.topics[at], batch.data[at], own_id, shared.event_type, shared.meta, asked,
                (PRIVATE if shared.private else 0) | (UUID if shared.is_uuid else 0),
                shared.retry_ms, kind))
    return b"".join(records)


def pack_event(event not None):
    """One event as such a record."""
    cdef uint8_t flags = PRIVATE if event.private else 0
    if event.id_style == "uuid":
        flags |= UUID
    return draft_of(
        event.topics, event.data, event.id, event.event, event.meta, event.directives, flags,
        event.retry_ms, event.data_kind)


cdef bytes draft_of(
    tuple topics, bytes data, bytes own_id, bytes event_type, bytes meta, object directives,
    uint8_t flags, uint32_t retry_ms, uint8_t data_kind
):
    cdef Py_ssize_t data_size = PyBytes_GET_SIZE(data)
    cdef Py_ssize_t fields_size = field_size(own_id) + field_size(event_type) + field_size(meta)
    cdef bytes control = None, key = None, expect = None, request = None, producer = None
    cdef bytes stream = None
    cdef object ttl_ms = None
    if directives is not None:
        control, _, key, expect, asked, ttl_ms, appended, ask = directives[:8]
        request = None if asked is None else asked.encode()
        producer = None if appended is None else appended.encode()
        stream = None if ask is None else ask.encode()
        fields_size += field_size(control) + field_size(key) + field_size(expect)
        fields_size += field_size(request) + field_size(ttl_ms) + field_size(producer)
        fields_size += field_size(stream)
    cdef Py_ssize_t size = DRAFT_HEAD + topics_size(topics) + fields_size + data_size
    cdef uint32_t fields_bytes = <uint32_t>fields_size
    cdef bytes record = new_record(size)
    cdef char* at = PyBytes_AS_STRING(record)
    at[8] = <char>flags
    at[9] = <char><uint8_t>len(topics)
    at[10] = <char>data_kind
    at[11] = 0
    memcpy(at + 12, &retry_ms, 4)
    memcpy(at + 16, &fields_bytes, 4)
    at = put_topics(at + DRAFT_HEAD, topics)
    at = put_field(put_field(put_field(at, OWN_ID, own_id), EXPIRES, ttl_ms), TYPE, event_type)
    at = put_field(put_field(put_field(at, KEY, key), META, meta), CONTROLS, control)
    at = put_field(put_field(put_field(at, EXPECT, expect), REQUEST, request), PRODUCER, producer)
    at = put_field(at, STREAM, stream)
    memcpy(at, PyBytes_AS_STRING(data), data_size)
    seal(record)
    return record


# -- reading --------------------------------------------------------------------------------------

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


cdef inline int checked(int wrong) except -1:
    if wrong == CUT:
        raise cut()
    if wrong:
        raise damaged()
    return 0


cdef object damaged():
    return ValueError("a damaged record")


cdef bytes bytes_of(Field* field):
    if field.at is NULL:
        return None
    return PyBytes_FromStringAndSize(field.at, field.size)


cdef object number_of(Field* field):
    cdef uint64_t number
    if field.at is NULL:
        return None
    if field.size != NUMBER_BYTES:
        raise damaged()
    memcpy(&number, field.at, NUMBER_BYTES)
    return number


cdef uint8_t kind_of(Field* field) except? 255:
    """A data kind; one that is not known is text."""
    number = number_of(field)
    return number if number is not None and number <= KIND_MAX else 0


cdef object extras_of(Field* fields, bytes control, object extras_type):
    """The optional fields that an entry has, None when it has none."""
    cdef int slot
    for slot in range(EXTRAS):
        if fields[EXTRA_TAGS[slot]].at is not NULL:
            break
    else:
        if control is None:
            return None
    return new_tuple(extras_type, (
        number_of(&fields[EXPIRES]),
        bytes_of(&fields[TYPE]),
        bytes_of(&fields[PAYLOAD]),
        bytes_of(&fields[KEY]),
        bytes_of(&fields[META]),
        bytes_of(&fields[TRACE]),
        control,
    ))


def unpack_entries(buffer not None, entry_type not None, extras_type not None):
    """The entries of whole records, each made an `entry_type`. Raises ValueError. O(bytes)."""
    cdef Py_buffer view
    PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
    try:
        return entries_of(<const char*>view.buf, view.len, entry_type, extras_type)
    finally:
        PyBuffer_Release(&view)


cdef list entries_of(
    const char* buffer, Py_ssize_t end, object entry_type, object extras_type
):
    cdef list entries = []
    cdef Py_ssize_t at = 0
    cdef Reader reader
    cdef Field[TAGS] fields
    cdef uint64_t ms, n, last_ms = MS_MAX
    cdef uint32_t fields_bytes
    cdef uint8_t kind, flags
    cdef object base = MS_MAX << N_BITS, position
    cdef bytes body, control
    while at < end:
        checked(find_sealed(buffer, &at, end, ENTRY_HEAD, &reader))
        memcpy(&ms, reader.at, 8)
        memcpy(&n, reader.at + 8, 8)
        kind, flags, count = reader.at[16], reader.at[17], <uint8_t>reader.at[18]
        if ms > MS_MAX or kind > CONTROL or flags & ~PRIVATE or reader.at[19]:
            raise damaged()
        memcpy(&fields_bytes, reader.at + 20, 4)
        reader.at += ENTRY_HEAD - RECORD_HEAD
        topics = take_topics(&reader, count)
        checked(find_fields(&reader, fields_bytes, fields))
        if ms != last_ms:
            last_ms = ms
            base = ms << N_BITS
        position = base | n
        body, control = rest(&reader), None
        if kind == CONTROL:
            control = None if body == BLANK else body
            body = notice_of(body, topics, position)
        elif not ends_an_event(body):
            raise damaged()
        frame = load_frame(
            body, position, (flags & PRIVATE) != 0, number_of(&fields[TIME]), kind == EVENT,
            kind_of(&fields[DATA_KIND]), number_of(&fields[EXPIRES]) or 0,
        )
        entries.append(new_tuple(entry_type, (
            position, topics, bytes_of(&fields[OWN_ID]), frame,
            extras_of(fields, control, extras_type),
        )))
    return entries


def unpack_entries_1(buffer not None, entry_type not None):
    """The entries of whole records of format 1. Raises ValueError. O(bytes)."""
    cdef Py_buffer view
    PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
    try:
        return entries_of_1(<const char*>view.buf, view.len, entry_type)
    finally:
        PyBuffer_Release(&view)


cdef list entries_of_1(const char* buffer, Py_ssize_t end, object entry_type):
    """Bytes behind the number (u32), milliseconds (u64), n (u64), flags, number of topics; topics
    and own id behind their lengths (u16); the frame's body."""
    cdef list entries = []
    cdef Py_ssize_t at = 0
    cdef Reader reader
    cdef uint64_t ms, n
    cdef uint8_t flags
    cdef bytes own_id, body
    while at < end:
        checked(find_record(buffer, &at, end, ENTRY_HEAD_1, &reader))
        memcpy(&ms, reader.at, 8)
        memcpy(&n, reader.at + 8, 8)
        flags = <uint8_t>reader.at[16]
        count = <uint8_t>reader.at[17]
        reader.at += ENTRY_HEAD_1 - 4
        topics = take_topics(&reader, count)
        own_id = take_bytes(&reader) if flags & OWN_ID_1 else None
        body = rest(&reader)
        if ms > MS_MAX or flags & ~(PRIVATE | OWN_ID_1) or not ends_an_event(body):
            raise damaged()
        position = (<object>ms << N_BITS) | n
        frame = load_frame(body, position, (flags & PRIVATE) != 0)
        entries.append(new_tuple(entry_type, (position, topics, own_id, frame, None)))
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


cdef EventBatch events_of(const char* buffer, Py_ssize_t end):
    cdef EventBatch events = EventBatch()
    cdef Py_ssize_t at = 0
    cdef Reader reader
    cdef uint32_t retry_ms, fields_bytes
    cdef uint8_t flags, data_kind, spare
    cdef bint is_usual
    while at < end:
        checked(find_sealed(buffer, &at, end, DRAFT_HEAD, &reader))
        flags = <uint8_t>reader.at[0]
        count = <uint8_t>reader.at[1]
        data_kind, spare = <uint8_t>reader.at[2], <uint8_t>reader.at[3]
        memcpy(&retry_ms, reader.at + 4, 4)
        memcpy(&fields_bytes, reader.at + 8, 4)
        reader.at += DRAFT_HEAD - RECORD_HEAD
        if flags & ~(PRIVATE | UUID) or data_kind > KIND_MAX or spare:
            raise damaged()
        is_usual = count == 1 and fields_bytes == 0 and is_simple(&reader)
        if is_usual and flags == 0 and retry_ms == 0:
            topics = (take_topic(&reader),)
            events.add(topics, rest(&reader), data_kind)
        elif is_usual and (retry_ms == 0 or RETRY_LEAST <= retry_ms <= RETRY_MOST):
            events.append(simple_event(&reader, flags, retry_ms, data_kind))
        else:
            events.append(any_event(&reader, flags, count, retry_ms, fields_bytes, data_kind))
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


cdef object simple_event(Reader* reader, uint8_t flags, uint32_t retry_ms, int data_kind):
    event = new_event(Event)
    event.topics = (take_topic(reader),)
    event.data = rest(reader)
    event.event = None
    event.id = None
    event.retry_ms = retry_ms
    event.private = (flags & PRIVATE) != 0
    event.id_style = "uuid" if flags & UUID else "position"
    event.meta = None
    event.data_kind = data_kind
    event.directives = None
    return event


cdef object any_event(
    Reader* reader, uint8_t flags, int count, uint32_t retry_ms, uint32_t fields_bytes, int data_kind
):
    cdef Field[TAGS] fields
    topics = take_topics(reader, count)
    checked(find_fields(reader, fields_bytes, fields))
    return Event(
        topics,
        rest(reader),
        bytes_of(&fields[TYPE]),
        bytes_of(&fields[OWN_ID]),
        retry_ms or None,
        private=(flags & PRIVATE) != 0,
        id_style="uuid" if flags & UUID else "position",
        meta=bytes_of(&fields[META]),
        data_kind=data_kind,
        directives=directives_of(fields),
    )


cdef object directives_of(Field* fields):
    request = bytes_of(&fields[REQUEST])
    producer = bytes_of(&fields[PRODUCER])
    stream = bytes_of(&fields[STREAM])
    directives = Directives(
        bytes_of(&fields[CONTROLS]), False, bytes_of(&fields[KEY]), bytes_of(&fields[EXPECT]),
        None if request is None else RequestKey.decode(request), number_of(&fields[EXPIRES]),
        None if producer is None else Producer.decode(producer),
        None if stream is None else StreamAsk.decode(stream))
    return None if directives == NO_DIRECTIVES else directives
