"""NDJSON to a batch of events: the lines that most publishers send, without an `Event` for each."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem
from cpython.unicode cimport PyUnicode_AsUTF8String
from libc.stdint cimport uint8_t

from fastsse._batch cimport EventBatch, plain_event

import orjson

from fastsse.events import DATA_JSON, DATA_TEXT, Event, check_topic
from fastsse.jsontext import is_whole

cdef object loads = orjson.loads
cdef object dumps = orjson.dumps
cdef unsigned char TEXT = DATA_TEXT
cdef unsigned char JSON = DATA_JSON


cdef class Reader:
    """What one body has said already: each topic and event type is checked once."""
    cdef EventBatch batch
    cdef dict topics           # by name: the tuple, and the colons of the name
    cdef dict types            # the same of event types

    def __cinit__(self):
        self.batch = EventBatch()
        self.topics = {}
        self.types = {}

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


def read_lines(list lines not None, event_of not None, bint escapes_colons):
    cdef Reader reader = Reader()
    cdef bytes line
    for line in lines:
        if not line:
            continue
        members = loads(line)
        if not escapes_colons and reader.take(line, members):
            continue
        if type(members) is not dict:
            return None
        event = event_of(members)
        if not is_whole(line, [members]):
            return None
        reader.batch.append(event)
    return reader.batch
