"""NDJSON to a batch of events: the lines that most publishers send, without an `Event` for each."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem
from cpython.unicode cimport PyUnicode_AsUTF8String, PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memchr, memcmp, memset

from fastsse._batch cimport EventBatch, plain_event
from fastsse.native.frame cimport Text
from fastsse.native.json cimport Place, json_unescape, skip_blanks, string_end
from fastsse.native.utf8 cimport is_utf8

import orjson

from fastsse.events import DATA_JSON, DATA_TEXT, Event, check_topic
from fastsse.jsontext import is_whole

cdef object loads = orjson.loads
cdef object dumps = orjson.dumps
cdef unsigned char TEXT = DATA_TEXT
cdef unsigned char JSON = DATA_JSON


cdef struct Line:
    # The texts of a line; `at` is NULL for what it does not have.
    Text topic
    Text data
    Text event
    uint8_t is_escaped         # the data


# ---- lines of strings --------------------------------------------------------------------------

cdef inline Text* member_named(Line* line, const char* at, size_t size) noexcept nogil:
    """Where the value of a member goes; NULL for another name, and for one that stands twice."""
    cdef Text* member = NULL
    if size == 5 and memcmp(at, b"topic", 5) == 0:
        member = &line.topic
    elif size == 4 and memcmp(at, b"data", 4) == 0:
        member = &line.data
    elif size == 5 and memcmp(at, b"event", 5) == 0:
        member = &line.event
    return member if member is not NULL and member.at is NULL else NULL


cdef inline const char* read_member(Line* line, const char* at, const char* end) noexcept nogil:
    """Reads a name and its string from the name's quote; returns what lies behind them, or NULL."""
    cdef uint8_t is_escaped = False
    cdef const char* stop
    cdef Text* member
    if at >= end or at[0] != c'"':
        return NULL
    stop = string_end(at + 1, end, &is_escaped)
    if stop is NULL:
        return NULL
    member = member_named(line, at + 1, stop - at - 1)
    at = skip_blanks(stop + 1, end)
    if member is NULL or at >= end or at[0] != c':':
        return NULL
    at = skip_blanks(at + 1, end)
    if at >= end or at[0] != c'"':
        return NULL
    stop = string_end(at + 1, end, &is_escaped)
    if stop is NULL:
        return NULL
    member.at = at + 1
    member.size = stop - at - 1
    if is_escaped:
        if member is not &line.data:
            return NULL
        line.is_escaped = True
    return skip_blanks(stop + 1, end)


cdef bint read_line(Line* line, const char* at, const char* end) noexcept nogil:
    """Whether a line is an object of a topic, data, and perhaps an event type, each a string, of
    which only the data have escapes."""
    memset(line, 0, sizeof(Line))
    at = skip_blanks(at, end)
    if at >= end or at[0] != c'{':
        return False
    at = skip_blanks(at + 1, end)
    while True:
        at = read_member(line, at, end)
        if at is NULL or at >= end:
            return False
        if at[0] == c'}':
            break
        if at[0] != c',':
            return False
        at = skip_blanks(at + 1, end)
    return skip_blanks(at + 1, end) == end and line.topic.at is not NULL \
        and line.data.at is not NULL and is_utf8(line.data.at, line.data.size)


cdef bytes data_of(Line* line):
    """The data without their escapes; None where an escape names a code point: surrogates are
    orjson's to judge."""
    if not line.is_escaped:
        return PyBytes_FromStringAndSize(line.data.at, <Py_ssize_t>line.data.size)
    cdef bytes raw = PyBytes_FromStringAndSize(line.data.at, <Py_ssize_t>line.data.size)
    if b"\\u" in raw:
        return None
    cdef Place place
    memset(&place, 0, sizeof(Place))
    place.at = line.data.at
    place.size = <uint32_t>line.data.size
    cdef bytes text = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>line.data.size)
    cdef size_t size = json_unescape(&place, PyBytes_AS_STRING(text))
    return text[:size]


# ---- a body ------------------------------------------------------------------------------------

cdef class Reader:
    """What one body has said already: each topic and event type is checked once."""
    cdef EventBatch batch
    cdef dict topics           # by name: the tuple, and the colons of the name
    cdef dict types            # the same of event types
    cdef Text newest_topic     # of the line before that was read natively, and its tuple
    cdef tuple newest_topics

    def __cinit__(self):
        self.batch = EventBatch()
        self.topics = {}
        self.types = {}

    cdef bint take_plain(self, Line* line) except -1:
        """Adds the event of a line that `read_line` took. False: nothing was done."""
        cdef Text* topic = &line.topic
        cdef bytes data = data_of(line)
        if data is None:
            return False
        if self.newest_topics is None or topic.size != self.newest_topic.size \
                or memcmp(topic.at, self.newest_topic.at, topic.size) != 0:
            name = PyUnicode_DecodeUTF8(topic.at, <Py_ssize_t>topic.size, NULL)
            self.newest_topics = <tuple>self.names(name)[0]
            self.newest_topic = topic[0]
        kind = None
        if line.event.at is not NULL:
            text = PyUnicode_DecodeUTF8(line.event.at, <Py_ssize_t>line.event.size, NULL)
            kind = self.event_type(text)[0]
        if kind is None:
            self.batch.add(self.newest_topics, data, TEXT)
            return True
        made = plain_event(self.newest_topics, data, TEXT)
        made.event = kind
        self.batch.append(made)
        return True

    cdef bint take(self, bytes line, members) except -1:
        """Adds the event of a line that has a topic, data and perhaps a type, and of which orjson
        lost nothing. False: nothing was done."""
        cdef void* topic
        cdef void* value
        cdef void* event
        cdef bytes data
        if type(members) is not dict:
            return False
        topic = <void*>PyDict_GetItem(members, "topic")
        value = <void*>PyDict_GetItem(members, "data")
        event = <void*>PyDict_GetItem(members, "event")
        if topic is NULL or value is NULL or type(<object>topic) is not str \
                or (event is not NULL and type(<object>event) is not str) \
                or len(<dict>members) != 2 + (event is not NULL):
            return False
        cdef bint is_text = type(<object>value) is str
        data = PyUnicode_AsUTF8String(<object>value) if is_text else dumps(<object>value)
        cdef tuple names = self.names(<object>topic)
        # Every pair is written with a colon, so a name that stands twice leaves one too many.
        cdef Py_ssize_t colons = len(<dict>members) + <Py_ssize_t>names[1] + colons_in(data)
        if event is not NULL:
            kind, event_colons = self.event_type(<object>event)
            colons += <Py_ssize_t>event_colons
        # A whole number over 64 bits is a float to orjson, written with an exponent.
        if colons_in(line) != colons or (not is_text and b"e+" in data):
            return False
        if event is NULL or kind is None:
            self.batch.add(<tuple>names[0], data, TEXT if is_text else JSON)
            return True
        made = plain_event(<tuple>names[0], data, TEXT if is_text else JSON)
        made.event = kind
        self.batch.append(made)
        return True

    cdef tuple names(self, name):
        cdef void* found = <void*>PyDict_GetItem(self.topics, name)
        if found is not NULL:
            return <tuple>found
        known = self.topics[name] = ((check_topic(name),), name.count(":"))
        return known

    cdef tuple event_type(self, text):
        cdef void* found = <void*>PyDict_GetItem(self.types, text)
        if found is not NULL:
            return <tuple>found
        known = self.types[text] = (Event("any", event=text).event, text.count(":"))
        return known


cdef enum:
    COUNT_BYTES = 255          # as many as a sum of one byte can count


cdef Py_ssize_t colons_in(bytes text) noexcept:
    """Sums of one byte are what a compiler adds up sixteen at a time."""
    cdef const char* at = PyBytes_AS_STRING(text)
    cdef const char* end = at + PyBytes_GET_SIZE(text)
    cdef Py_ssize_t count = 0
    cdef int index
    cdef uint8_t some
    while end - at >= COUNT_BYTES:
        some = 0
        for index in range(COUNT_BYTES):
            some += at[index] == c':'
        count += some
        at += COUNT_BYTES
    some = 0
    for index in range(<int>(end - at)):
        some += at[index] == c':'
    return count + some


cdef bint read_one(Reader reader, const char* at, Py_ssize_t size, event_of) except -1:
    """Adds the event of one line. False: a part of it would be lost, or it is no object."""
    cdef Line line
    if size == 0 or (read_line(&line, at, at + size) and reader.take_plain(&line)):
        return True
    cdef bytes text = PyBytes_FromStringAndSize(at, size)
    members = loads(text)
    # An escaped colon would make the count of colons wrong.
    if b"\\u003" not in text and reader.take(text, members):
        return True
    if type(members) is not dict:
        return False
    event = event_of(members)
    if not is_whole(text, [members]):
        return False
    reader.batch.append(event)
    return True


def read_lines(body not None, event_of not None):
    cdef Reader reader = Reader()
    cdef Py_buffer view
    cdef const char* at
    cdef const char* end
    cdef const char* stop
    PyObject_GetBuffer(body, &view, PyBUF_SIMPLE)
    try:
        at = <const char*>view.buf
        end = at + view.len
        while at < end:
            stop = <const char*>memchr(at, c'\n', end - at)
            if stop is NULL:
                stop = end
            if not read_one(reader, at, stop - at, event_of):
                return None
            at = stop + 1
        return reader.batch
    finally:
        PyBuffer_Release(&view)
