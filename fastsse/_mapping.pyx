"""Maps messages that are JSON objects to events, by the templates of a source's rule.

It makes the same event as `sources/payloads.py`, or none: then Python looks at the message, and says what is wrong.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from fastsse._batch cimport plain_event

import orjson

from fastsse.errors import FastsseError
from fastsse.events import DATA_JSON, DATA_TEXT
from fastsse.meta import META_BYTES_MAX

cdef object loads = orjson.loads
cdef object dumps = orjson.dumps
cdef unsigned char TEXT = DATA_TEXT
cdef unsigned char JSON = DATA_JSON
cdef Py_ssize_t META_MAX = META_BYTES_MAX

cdef enum:
    # Topics and event types that are known to be right. Above it all are forgotten.
    KNOWN_MAX = 4096

cdef object MISSING = object()


cdef class Part:
    """A part of a template. Literals have only a text; the text of the others stands for a missing word."""

    cdef object name           # None: a literal
    cdef tuple path            # of a member of the payload; None: another word
    cdef object meta           # the name of a member of `meta`
    cdef object text


cdef list parts_of(parts):
    """A template, whose parts are texts, or names with the text that stands for a missing word."""
    cdef list found = []
    cdef Part one
    for part in parts:
        one = Part.__new__(Part)
        if isinstance(part, str):
            one.text = part
        else:
            one.name, one.text = part
            if one.name == "data" or one.name.startswith("data."):
                one.path = tuple(one.name.split(".")[1:])
            elif one.name.startswith("meta."):
                one.meta = one.name[5:]
        found.append(one)
    return found


cdef Part only_member(list parts):
    """The part of a template that is one member of the payload and nothing else; None: it is not."""
    cdef Part part
    if len(parts) == 1:
        part = parts[0]
        if part.path is not None:
            return part
    return None


cdef object member_at(object value, tuple path):
    """What a path leads to; MISSING: nothing. Raises ValueError for a list within it, which Python reads."""
    for name in path:
        if type(value) is not dict:
            if type(value) is list:
                raise ValueError("a list")
            return MISSING
        value = (<dict>value).get(name, MISSING)
    return value


cdef bint is_scalar(value):
    return type(value) is str or type(value) is int or type(value) is float or type(value) is bool


cdef object text_of_value(value):
    """A value within a text; MISSING: it has none."""
    if type(value) is str:
        return value
    return dumps(value).decode() if is_scalar(value) else MISSING


cdef class Mapping:
    cdef list topic
    cdef list event            # None, as the following: the rule has none
    cdef list own_id
    cdef list data
    cdef list meta             # of pairs of a name and its template
    cdef bint is_json          # what the rule says of the whole payload
    cdef bint private
    cdef object check_topic
    cdef object check_type
    cdef object check_id
    cdef dict topics
    cdef dict types

    def __init__(self, templates not None, bint is_json, bint private, checks not None):
        topic, event, own_id, data, meta = templates
        self.topic = parts_of(topic)
        self.event = None if event is None else parts_of(event)
        self.own_id = None if own_id is None else parts_of(own_id)
        self.data = None if data is None else parts_of(data)
        self.meta = [(name, parts_of(parts)) for name, parts in meta]
        self.is_json, self.private = is_json, private
        self.check_topic, self.check_type, self.check_id = checks
        self.topics, self.types = {}, {}

    def event_of(self, bytes payload not None, words not None):
        if PyBytes_GET_SIZE(payload) == 0 or PyBytes_AS_STRING(payload)[0] != c'{':
            return None
        try:
            return self.made(payload, loads(payload), words)
        except (ValueError, TypeError, FastsseError):
            return None  # Python says what is wrong.

    cdef object made(self, bytes payload, members, words):
        cdef dict meta = self.meta_of(members, words)
        cdef bytes data = payload
        cdef unsigned char kind = JSON if self.is_json else TEXT
        encoded = dumps(meta) if meta else None
        if encoded is not None and PyBytes_GET_SIZE(encoded) > META_MAX:
            return None
        if self.data is not None:
            data = self.data_of(members, meta, words, &kind)
        topics = self.topics_of(self.filled(self.topic, members, meta, words))
        event_type = None if self.event is None else self.type_of(self.filled(self.event, members, meta, words))
        own_id = None if self.own_id is None else self.check_id(self.filled(self.own_id, members, meta, words))
        event = plain_event(topics, data, kind)
        event.event = event_type
        event.id = own_id
        event.private = self.private
        event.meta = encoded
        return event

    cdef dict meta_of(self, members, words):
        """The members of `meta`; one whose words are missing is left out."""
        cdef dict meta = {}
        cdef Part part
        for name, parts in self.meta:
            part = only_member(parts)
            value = MISSING if part is None else member_at(members, part.path)
            if value is MISSING:
                value = self.text_of(parts, members, meta, words)
            if is_scalar(value):
                meta[name] = value
        return meta

    cdef bytes data_of(self, members, dict meta, words, unsigned char* kind):
        """The data that the rule makes, and its kind."""
        cdef Part part = only_member(self.data)
        value = MISSING if part is None else member_at(members, part.path)
        kind[0] = TEXT
        if value is not MISSING and type(value) is not str:
            kind[0] = JSON
            return dumps(value)
        return (<str>self.filled(self.data, members, meta, words)).encode()

    cdef tuple topics_of(self, str text):
        known = self.topics.get(text)
        if known is None:
            known = (self.check_topic(text),)
            if len(self.topics) >= KNOWN_MAX:
                self.topics.clear()
            self.topics[text] = known
        return known

    cdef object type_of(self, str text):
        known = self.types.get(text, MISSING)
        if known is MISSING:
            known = self.check_type(text)
            if len(self.types) >= KNOWN_MAX:
                self.types.clear()
            self.types[text] = known
        return known

    cdef str filled(self, list parts, members, dict meta, words):
        """The text of a template. Raises ValueError where a word is missing."""
        text = self.text_of(parts, members, meta, words)
        if text is MISSING:
            raise ValueError("a word is missing")
        return text

    cdef object text_of(self, list parts, members, dict meta, words):
        """The text of a template; MISSING: a word is."""
        cdef str text = ""
        cdef Part part
        for part in parts:
            found = MISSING
            if part.path is not None:
                found = text_of_value(member_at(members, part.path))
            elif part.meta is not None:
                found = text_of_value(meta.get(part.meta, MISSING))
            elif part.name is not None:
                try:
                    found = words[part.name]
                except KeyError:
                    pass
            if found is MISSING:
                found = part.text
                if found is None:
                    return MISSING
            text = <str>found if text == "" else text + <str>found
        return text
