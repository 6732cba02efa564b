"""Appends to durable streams, judged and packed in columns.

Where all appends of a batch may be stored, none costs a call of Python. Any other batch is left to
`backbone/judge.py` and `backbone/stream_rows.py`, which say what is wrong with it: what is judged
here must have the same result there.
"""

from cpython.bytearray cimport (
    PyByteArray_AS_STRING, PyByteArray_FromStringAndSize, PyByteArray_GET_SIZE, PyByteArray_Resize)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.object cimport Py_LT, PyObject_RichCompareBool
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_SET_ITEM
from cpython.type cimport PyType_GenericAlloc
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy

from fastsse._batch cimport Entries, EventBatch
from fastsse._core cimport Frame
from fastsse._positions cimport Positions
from fastsse._records cimport pack_frame
from fastsse.native.place cimport Place, int_of

from fastsse.directives import Directives, Producer
from fastsse.events import DATA_JSON, as_header_value
from fastsse.streamstate import ENTRY_COST_BYTES, StreamAsk, StreamConfig, StreamRow, kind_of

# The slots of the tuples that are read and made here. The asserts below hold their order.
cdef enum:
    ASKED_PRODUCER = 6
    ASKED_STREAM = 7
    ASK_OP = 0
    ASK_GENERATION = 1
    ASK_SEQ = 2
    ROW_GENERATION = 0
    ROW_CONFIG = 1
    ROW_TAIL = 2
    ROW_CLOSED = 3
    ROW_SEQ = 4
    ROW_FORKS = 5
    ROW_HIDDEN = 6
    ROW_TOUCHED = 7
    ROW_BYTES = 8
    ROW_SLOTS = 9
    CONFIG_TYPE = 0
    CONFIG_TTL = 1
    CONFIG_EXPIRES = 2
    # Content types of which it is known whether they are JSON. A full table is emptied.
    TYPES_MAX = 1024

assert Directives._fields[6:8] == ("producer", "stream")
assert StreamAsk._fields == ("op", "generation", "seq")
assert StreamConfig._fields[:3] == ("content_type", "ttl_s", "expires_ms")
assert StreamRow._fields == (
    "generation", "config", "tail", "closed", "seq", "forks", "is_hidden", "touched_ms", "size_bytes")
assert Producer._fields == ("key", "epoch", "sequence", "refuses_gaps")

cdef uint8_t KIND_JSON = DATA_JSON
cdef int64_t COST_BYTES = ENTRY_COST_BYTES
cdef dict json_types = {}


cdef inline object slot(one, Py_ssize_t at):
    """Of a named tuple, which Cython does not take for a tuple."""
    return <object>PyTuple_GET_ITEM(one, at)


cdef inline void put(one, Py_ssize_t at, value) noexcept:
    """Fills an empty slot of a tuple that nothing else has yet."""
    Py_INCREF(value)
    PyTuple_SET_ITEM(one, at, value)


cdef object row_like(row):
    """A row with what an append does not change, as `tuple.__new__` makes it but without a tuple in
    between. The other slots are empty: `put` must fill them."""
    new = PyType_GenericAlloc(StreamRow, ROW_SLOTS)
    put(new, ROW_GENERATION, slot(row, ROW_GENERATION))
    put(new, ROW_CONFIG, slot(row, ROW_CONFIG))
    put(new, ROW_CLOSED, slot(row, ROW_CLOSED))
    put(new, ROW_FORKS, slot(row, ROW_FORKS))
    put(new, ROW_HIDDEN, slot(row, ROW_HIDDEN))
    return new


cdef bint takes_only_json(config) except -1:
    content_type = slot(config, CONFIG_TYPE)
    found = json_types.get(content_type)
    if found is None:
        if len(json_types) >= TYPES_MAX:
            json_types.clear()
        found = json_types[content_type] = kind_of(content_type) == "json"
    return found


cdef class Appends:
    """A batch in columns of which every event may be stored."""

    cdef EventBatch batch
    cdef list asked
    cdef dict found                     # rows by topic, as they were
    cdef dict appended                  # of each producer: the place of its last append
    cdef readonly dict producers        # rows by key, as they were; None: there was none
    cdef readonly list new_keys
    cdef readonly int64_t size_bytes
    cdef readonly bint is_whole

    @property
    def before(self):
        return list(self.found.items())

    def rows(self, positions not None, now_ms):
        """The new rows of the streams, by topic."""
        cdef dict rows = {}
        cdef Positions in_row = positions if type(positions) is Positions else None
        cdef Py_ssize_t at
        cdef int64_t size_bytes
        for at in range(len(self.asked)):
            if self.asked[at] is None:
                continue
            topic = slot(self.batch.topics[at], 0)
            row = rows.get(topic)
            if row is None:
                row = self.found[topic]
            ask = slot(self.asked[at], ASKED_STREAM)
            seq = slot(ask, ASK_SEQ)
            size_bytes = slot(row, ROW_BYTES)
            new = row_like(row)
            put(new, ROW_TAIL, positions[at] if in_row is None else int_of(in_row.at(at)))
            put(new, ROW_SEQ, slot(row, ROW_SEQ) if seq is None else seq)
            put(new, ROW_TOUCHED, now_ms)
            put(new, ROW_BYTES, size_bytes + len(<bytes>self.batch.data[at]) + COST_BYTES)
            rows[topic] = new
        return rows

    def numbers(self, positions not None):
        """The newest append of each producer: key, epoch, sequence and position."""
        cdef list numbers = []
        for key, at in self.appended.items():
            _, epoch, sequence, _ = slot(self.asked[at], ASKED_PRODUCER)
            numbers.append((key, epoch, sequence, positions[at]))
        return numbers

    def forget_keys(self):
        """Has entries carry nothing of what was judged but the `Stream-Seq`."""
        cdef Py_ssize_t at
        cdef list left = None
        for at in range(len(self.asked)):
            asked = self.asked[at]
            if asked is None:
                continue
            if self.batch.events is not None:
                self.batch.events[at] = None
            ask = slot(asked, ASKED_STREAM)
            if slot(ask, ASK_SEQ) is not None:
                if left is None:
                    left = [None] * len(self.asked)
                left[at] = Directives(stream=ask)
        self.batch.asked = left


def judge_appends(events not None, find, ended_at, find_producer, now_ms, int64_t room_bytes):
    """What a batch changes, when all of it may be stored; else None."""
    cdef EventBatch batch
    cdef Appends appends
    cdef Py_ssize_t at
    if type(events) is not EventBatch or (<EventBatch>events).asked is None:
        return None
    batch = events
    appends = Appends.__new__(Appends)
    appends.batch, appends.asked = batch, batch.asked
    appends.found, appends.appended, appends.producers, appends.new_keys = {}, {}, {}, []
    appends.is_whole = True
    for at in range(len(batch.data)):
        if appends.asked[at] is None:
            appends.is_whole = False
            if not is_free(appends, at, find, ended_at):
                return None
        elif not may_append(appends, at, find, ended_at, now_ms):
            return None
        elif not has_its_number(appends, at, find_producer):
            return None
    return appends if appends.size_bytes <= room_bytes else None


cdef bint is_free(Appends appends, Py_ssize_t at, find, ended_at) except -1:
    """Whether an event of which nothing is asked has open topics, none of which is a stream."""
    cdef EventBatch batch = appends.batch
    if batch.events is not None and batch.events[at] is not None:
        return False
    for topic in <tuple>batch.topics[at]:
        if find(topic) is not None or (ended_at is not None and ended_at(topic)):
            return False
    return True


cdef bint may_append(Appends appends, Py_ssize_t at, find, ended_at, now_ms) except -1:
    """Whether an append fits its stream: as `stream_rows.check` says."""
    cdef EventBatch batch = appends.batch
    cdef tuple topics = batch.topics[at]
    ask = slot(appends.asked[at], ASKED_STREAM)
    if type(ask) is not StreamAsk or len(topics) != 1 or slot(ask, ASK_OP) != "append":
        return False
    topic = slot(topics, 0)
    row = appends.found.get(topic)
    if row is None:
        row = find(topic)
        if row is None or slot(row, ROW_HIDDEN) or slot(row, ROW_CLOSED):
            return False
        if ended_at is not None and ended_at(topic):
            return False
        config = slot(row, ROW_CONFIG)
        if slot(config, CONFIG_TTL) is not None or slot(config, CONFIG_EXPIRES) is not None:
            if row.is_expired(now_ms):
                return False
        appends.found[topic] = row
    elif slot(ask, ASK_SEQ) is not None:
        return False                    # The one before it may have changed the last one.
    if slot(row, ROW_GENERATION) != slot(ask, ASK_GENERATION):
        return False
    seq = slot(ask, ASK_SEQ)
    if seq is not None and slot(row, ROW_SEQ) is not None:
        if not PyObject_RichCompareBool(slot(row, ROW_SEQ), seq, Py_LT):
            return False
    if batch.kinds is None or batch.kinds[at] != KIND_JSON:
        if takes_only_json(slot(row, ROW_CONFIG)):
            return False
    appends.size_bytes += len(<bytes>batch.data[at]) + COST_BYTES
    return True


cdef bint has_its_number(Appends appends, Py_ssize_t at, find_producer) except -1:
    """Whether an append of a producer is its next one: as `producers.judge_producer` says. One
    without a producer is."""
    producer = slot(appends.asked[at], ASKED_PRODUCER)
    if producer is None:
        return True
    key, epoch, sequence, refuses_gaps = producer
    last = appends.appended.get(key)
    if last is not None:
        _, before, number, _ = slot(appends.asked[last], ASKED_PRODUCER)
        row = (before, number)
    else:
        row = appends.producers[key] = find_producer(key)
        if row is None:
            appends.new_keys.append(key)
        elif row[2] < slot(slot(appends.asked[at], ASKED_STREAM), ASK_GENERATION):
            row = None                  # It appended to an earlier stream of this name.
    if not refuses_gaps or (row is not None and epoch < row[0]):
        return False
    if sequence != (0 if row is None or epoch > row[0] else row[1] + 1):
        return False
    appends.appended[key] = at
    return True


# -- for a file -----------------------------------------------------------------------------------

def pack_appends(Entries entries not None, int64_t first_place, int64_t cost_bytes,
                 list plain not None, list named not None, dict kept not None):
    """Adds appends to what is to be stored of events (`NewEvents`), and of topics; returns the bytes
    of both."""
    cdef Place place
    cdef Frame frame
    cdef tuple topics
    cdef bytes own_id, record
    cdef list values
    cdef int64_t total_bytes = 0
    cdef int64_t[2] one
    cdef Py_ssize_t at
    for at in range(len(entries.frames)):
        frame, topics = entries.frames[at], entries.topics[at]
        own_id = None if entries.own_ids is None else entries.own_ids[at]
        place = Place(frame.data.position_ms, frame.data.position_n)
        record = pack_frame(
            place, topics, own_id, frame, None if entries.extras is None else entries.extras[at])
        one[0], one[1] = first_place + at, PyBytes_GET_SIZE(record) + cost_bytes
        total_bytes += one[1]
        values = plain if own_id is None else named
        values.append(one[0])
        if own_id is not None:
            values.append(as_header_value(own_id))
        values.append(
            PyByteArray_FromStringAndSize(PyBytes_AS_STRING(record), PyBytes_GET_SIZE(record)))
        add_pair(kept, topics[0], one)
    return total_bytes


cdef int add_pair(dict kept, topic, int64_t* one) except -1:
    """Puts two numbers behind those of a topic."""
    cdef bytearray pairs = kept.get(topic)
    cdef Py_ssize_t size
    if pairs is None:
        pairs = kept[topic] = bytearray()
    size = PyByteArray_GET_SIZE(pairs)
    PyByteArray_Resize(pairs, size + 2 * sizeof(int64_t))
    memcpy(PyByteArray_AS_STRING(pairs) + size, one, 2 * sizeof(int64_t))
    return 0


def add_rows(bytearray pairs not None, number, list values not None):
    """Adds the rows of a topic's events, as `pack_appends` noted them, to what is to be stored;
    returns the bytes that they count."""
    cdef const char* begin = PyByteArray_AS_STRING(pairs)
    cdef Py_ssize_t at
    cdef int64_t total_bytes = 0
    cdef int64_t[2] one
    if PyByteArray_GET_SIZE(pairs) % sizeof(one):
        raise ValueError("pairs of numbers")
    for at in range(0, PyByteArray_GET_SIZE(pairs), sizeof(one)):
        memcpy(one, begin + at, sizeof(one))
        total_bytes += one[1]
        values.append(number)
        values.append(one[0])
        values.append(one[1])
        values.append(0)
    return total_bytes
