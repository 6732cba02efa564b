"""Reads NDJSON into a batch of events. Usual lines are read natively, without an `Event` each."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.dict cimport PyDict_GetItem
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint32_t
from libc.string cimport memchr, memcmp, memset

from fastsse._batch cimport EventBatch, plain_event
from fastsse.native.regular cimport is_regular, put_regular
from fastsse.native.frame cimport Text
from fastsse.native.json cimport (
    JSON_OBJECT, JSON_STRING, Json, Place, json_free, json_read, json_unescape)
from fastsse.native.utf8 cimport is_utf8

import orjson

from fastsse.events import DATA_JSON, DATA_TEXT, Event, check_topic
from fastsse.jsontext import is_whole

cdef object loads = orjson.loads
cdef unsigned char TEXT = DATA_TEXT
cdef unsigned char JSON = DATA_JSON


cdef struct Line:
    # The places of the values. 0 means "none", because place 0 is the object of the line.
    uint32_t topic
    uint32_t data
    uint32_t event


# ---- lines that are read natively ---------------------------------------------------------------

cdef inline uint32_t* member_named(Line* line, Place* name) noexcept nogil:
    """Where the place of a member's value is kept; NULL for another name or a repeated one."""
    cdef uint32_t* member = NULL
    if name.size == 5 and memcmp(name.at, b"topic", 5) == 0:
        member = &line.topic
    elif name.size == 4 and memcmp(name.at, b"data", 4) == 0:
        member = &line.data
    elif name.size == 5 and memcmp(name.at, b"event", 5) == 0:
        member = &line.event
    return member if member is not NULL and member[0] == 0 else NULL


cdef inline bint is_plain_text(Place* place) noexcept nogil:
    return place.kind == JSON_STRING and not place.is_escaped


cdef bint read_line(Json* json, Line* line, const char* at, size_t size) noexcept nogil:
    """Whether a line can be read natively: an object with a topic, data and maybe an event type,
    whose data can be kept as they are written."""
    cdef uint32_t index = 1
    cdef uint32_t* member
    cdef Text text
    text.at = at
    text.size = size
    memset(line, 0, sizeof(Line))
    if not is_utf8(at, size) or not json_read(json, text) or json.places[0].kind != JSON_OBJECT:
        return False
    while index < json.count:
        member = member_named(line, &json.places[index])
        if member is NULL:
            return False
        member[0] = index + 1
        index = json.places[index + 1].behind
    if line.topic == 0 or line.data == 0 or not is_plain_text(&json.places[line.topic]):
        return False
    if line.event != 0 and not is_plain_text(&json.places[line.event]):
        return False
    return is_regular(json, line.data)


cdef bytes data_of(Place* place):
    """The data of the event: the text of a string; any other value as orjson would write it."""
    if place.kind == JSON_STRING and not place.is_escaped:
        return PyBytes_FromStringAndSize(place.at, place.size)
    cdef bytes room = PyBytes_FromStringAndSize(NULL, place.size)
    cdef size_t size
    if place.kind == JSON_STRING:
        size = json_unescape(place, PyBytes_AS_STRING(room))
    else:
        size = put_regular(place.at, place.size, PyBytes_AS_STRING(room))
    return room if size == place.size else room[:size]


cdef inline str text_of(Place* place):
    return PyUnicode_DecodeUTF8(place.at, place.size, NULL)


# ---- a body ------------------------------------------------------------------------------------

cdef class Reader:
    """The state of one body. Each topic and event type is checked once."""
    cdef EventBatch batch
    cdef dict topics           # name -> tuple of the name
    cdef dict types            # text -> event type as an event has it
    cdef Json json             # the newest line
    cdef Text newest_topic     # topic of the newest line that was read natively, and its tuple
    cdef tuple newest_topics

    def __cinit__(self):
        self.batch = EventBatch()
        self.topics = {}
        self.types = {}

    def __dealloc__(self):
        json_free(&self.json)

    cdef bint take_native(self, const char* at, size_t size) except -1:
        """Adds the event of a line. Returns False, without a change, if it can't be read
        natively."""
        cdef Line line
        if not read_line(&self.json, &line, at, size):
            return False
        cdef Place* places = self.json.places
        cdef unsigned char data_kind = TEXT if places[line.data].kind == JSON_STRING else JSON
        cdef bytes data = data_of(&places[line.data])
        cdef tuple topics = self.topics_of(&places[line.topic])
        kind = None
        if line.event != 0:
            kind = self.event_type(text_of(&places[line.event]))
        if kind is None:
            self.batch.add(topics, data, data_kind)
            return True
        made = plain_event(topics, data, data_kind)
        made.event = kind
        self.batch.append(made)
        return True

    cdef tuple topics_of(self, Place* name):
        if self.newest_topics is None or name.size != self.newest_topic.size \
                or memcmp(name.at, self.newest_topic.at, name.size) != 0:
            text = text_of(name)
            known = self.topics.get(text)
            if known is None:
                known = self.topics[text] = (check_topic(text),)
            self.newest_topics = known
            self.newest_topic = Text(name.at, name.size)
        return self.newest_topics

    cdef event_type(self, text):
        cdef void* found = <void*>PyDict_GetItem(self.types, text)
        if found is not NULL:
            return <object>found
        known = self.types[text] = Event("any", event=text).event
        return known


cdef bint read_one(Reader reader, const char* at, Py_ssize_t size, event_of) except -1:
    """Adds the event of one line. False: a part of it would be lost, or it is no object."""
    if size == 0 or reader.take_native(at, size):
        return True
    cdef bytes text = PyBytes_FromStringAndSize(at, size)
    members = loads(text)
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
