"""Batches in columns: events that have no position yet, and entries.

A Python object for each event (`Event`, `Entry`) is made only for those that ask for it. Over 400 lines: the columns of a
batch are filled, read and joined here, without a call between files.
"""

from collections.abc import Sequence

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t

from fastsse._core cimport Frame, encode_at
from fastsse.native.frame cimport Text
from fastsse._positions cimport Positions
from fastsse.native.place cimport Place, int_of, set_place
from fastsse.native.position_id cimport PositionId, write_id

from fastsse._core import load_frame
from fastsse.directives import BLANK, Directives, RequestKey, notice_of, stored_key
from fastsse.events import Event
from fastsse.positions import uuid_of_position

cdef object new_event = Event.__new__
cdef object new_tuple = tuple.__new__
cdef Py_ssize_t PRODUCER = Directives._fields.index("producer")
cdef Py_ssize_t STREAM = Directives._fields.index("stream")


# -- events that have no position yet -------------------------------------------------------------

cdef class SharedFields:
    def __init__(self, event not None):
        if event.directives is not None:
            raise ValueError("an event with directives is added as it is")
        self.event_type, self.meta = event.event, event.meta
        self.retry_ms, self.private = event.retry_ms, event.private
        self.is_uuid = event.id_style == "uuid"


cdef class EventBatch:
    def __init__(self, list topics=None, list data=None):
        self.topics = [] if topics is None else topics
        self.data = [] if data is None else data
        if len(self.topics) != len(self.data):
            raise ValueError("as many topics as data")

    cpdef object add(
        self, tuple topics, bytes data, unsigned char kind=0, SharedFields shared=None,
        bytes own_id=None, asked=None
    ):
        if asked is not None and type(asked) is not Directives:
            raise TypeError("what is asked is Directives")
        if kind and self.kinds is None:
            self.kinds = bytearray(len(self.data))
        self.shared = added(self.shared, shared, len(self.data))
        self.own_ids = added(self.own_ids, own_id, len(self.data))
        self.asked = added(self.asked, asked, len(self.data))
        self.topics.append(topics)
        self.data.append(data)
        if self.kinds is not None:
            self.kinds.append(kind)
        if self.events is not None:
            self.events.append(None)

    def append(self, event not None):
        if self.events is None:
            self.events = [None] * len(self.data)
        self.shared = added(self.shared, None, len(self.data))
        self.own_ids = added(self.own_ids, None, len(self.data))
        self.asked = added(self.asked, None, len(self.data))
        self.topics.append(event.topics)
        self.data.append(event.data)
        self.events.append(event)
        if self.kinds is not None:
            self.kinds.append(event.data_kind)

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return list(self)[index]
        cdef Py_ssize_t at = index
        if at < 0:
            at += len(self.data)
        if not 0 <= at < len(self.data):
            raise IndexError("no such event")
        return event_at(self, at)

    def __iter__(self):
        cdef Py_ssize_t at
        return iter([event_at(self, at) for at in range(len(self.data))])


cdef object event_at(EventBatch batch, Py_ssize_t at):
    """One event as an object. What is in the columns was checked. One of which something is asked
    stays: who judges it may change that."""
    cdef SharedFields shared = None if batch.shared is None else batch.shared[at]
    event = None if batch.events is None else batch.events[at]
    if event is not None:
        return event
    event = plain_event(batch.topics[at], batch.data[at], kind_at(batch, at))
    if batch.own_ids is not None:
        event.id = batch.own_ids[at]
    if shared is not None:
        event.event, event.meta = shared.event_type, shared.meta
        event.retry_ms, event.private = shared.retry_ms, shared.private
        event.id_style = "uuid" if shared.is_uuid else "position"
    if batch.asked is not None and batch.asked[at] is not None:
        event.directives = batch.asked[at]
        if batch.events is None:
            batch.events = [None] * len(batch.data)
        batch.events[at] = event
    return event


cdef object plain_event(tuple topics, bytes data, unsigned char kind):
    event = new_event(Event)
    event.topics = topics
    event.data = data
    event.event = event.id = None
    event.retry_ms = 0
    event.private = False
    event.id_style = "position"
    event.meta = event.directives = None
    event.data_kind = kind
    return event


cdef inline uint8_t kind_at(EventBatch batch, Py_ssize_t at) except? 255:
    return 0 if batch.kinds is None else batch.kinds[at]


def kinds_of(events not None):
    """The distinct pairs of topics and event type."""
    cdef dict kinds = {}
    cdef EventBatch batch
    cdef SharedFields shared
    cdef Py_ssize_t at
    if type(events) is not EventBatch:
        return list(dict.fromkeys([(event.topics, event.event) for event in events]))
    batch = events
    last = None
    for at in range(len(batch.data)):
        event = None if batch.events is None else batch.events[at]
        topics = batch.topics[at]
        shared = None if batch.shared is None else batch.shared[at]
        if event is not None:
            kinds[topics, event.event] = None
        elif shared is not None:
            kinds[topics, shared.event_type] = None
        elif topics is not last:
            kinds[topics, None] = None
            last = topics
    return list(kinds)


def sizes(events not None):
    """The bytes of data of the largest event, and of all."""
    cdef Py_ssize_t largest = 0, total = 0, size
    cdef list data
    data = (<EventBatch>events).data if type(events) is EventBatch else [e.data for e in events]
    for one in data:
        size = len(<bytes?>one)
        total += size
        if size > largest:
            largest = size
    return largest, total


def has_repeated_numbers(events not None):
    """Whether a number of a producer stands twice in columns."""
    cdef EventBatch batch
    cdef set seen = set()
    cdef Py_ssize_t count = 0
    if type(events) is KeyedBatch:
        events = (<KeyedBatch>events).events
    if type(events) is not EventBatch or (<EventBatch>events).asked is None:
        return False
    batch = events
    for asked in batch.asked:
        producer = None if asked is None else (<tuple>asked)[PRODUCER]
        if producer is not None:
            seen.add(producer)
            count += 1
    return len(seen) < count


cdef class KeyedBatch:
    def __init__(self, EventBatch events not None, list keys not None, list digests not None):
        if not len(events.data) == len(keys) == len(digests):
            raise ValueError("as many keys and digests as events")
        self.events, self.keys, self.digests = events, keys, digests

    def __len__(self):
        return len(self.keys)

    def __getitem__(self, index):
        return self.as_list()[index]

    def __iter__(self):
        return iter(self.as_list())

    cdef list as_list(self):
        """All as objects, made once: who judges them may change what is asked."""
        cdef Py_ssize_t at
        if self.made is None:
            self.made = [event_at(self.events, at) for at in range(len(self.keys))]
            for at in range(len(self.keys)):
                if self.keys[at] is not None:
                    request = RequestKey(self.keys[at], self.digests[at], 1)
                    self.made[at].direct(Directives(request=request))
        return self.made


# -- entries --------------------------------------------------------------------------------------

cdef class Entries:
    def __len__(self):
        return len(self.frames)

    def __getitem__(self, index):
        if self.entries is not None or isinstance(index, slice):
            return self.as_list()[index]
        cdef Py_ssize_t at = index
        if at < 0:
            at += len(self.frames)
        if not 0 <= at < len(self.frames):
            raise IndexError("no such entry")
        return self.entry_at(at)

    def __iter__(self):
        return iter(self.as_list())

    def __eq__(self, other):
        return self.as_list() == (other.as_list() if isinstance(other, Entries) else other)

    cdef object entry_at(self, Py_ssize_t at):
        cdef Frame frame = self.frames[at]
        return new_tuple(self.entry_type, (
            frame.position,
            self.topics[at],
            None if self.own_ids is None else self.own_ids[at],
            frame,
            None if self.extras is None else self.extras[at],
        ))

    cdef list as_list(self):
        """All as tuples, made once."""
        cdef Py_ssize_t at
        if self.entries is None:
            self.entries = [self.entry_at(at) for at in range(len(self.frames))]
        return self.entries

    @property
    def last(self):
        """The newest frame."""
        return self.frames[len(self.frames) - 1]

    @property
    def frame_bytes(self):
        """The bytes of all frames."""
        cdef Py_ssize_t at, total = 0
        for at in range(len(self.frames)):
            total += (<Frame>self.frames[at]).data.body_bytes
        return total


def joined_entries(list parts not None):
    """The entries of several batches, one behind the other. O(entries)."""
    cdef Entries whole, part
    if len(parts) == 1:
        return parts[0]
    if not parts or any([type(one) is not Entries for one in parts]):
        return [entry for one in parts for entry in one]
    whole = Entries.__new__(Entries)
    whole.entry_type, whole.extras_type = made_entry, made_extras
    whole.topics, whole.frames = [], []
    for part in parts:
        whole.own_ids = joined_column(whole, whole.own_ids, part, part.own_ids)
        whole.extras = joined_column(whole, whole.extras, part, part.extras)
        whole.topics += part.topics
        whole.frames += part.frames
    return whole


cdef list joined_column(Entries whole, list column, Entries part, list more):
    """A column with that of a part behind it; None while it has only Nones."""
    if column is None and more is None:
        return None
    if column is None:
        column = [None] * len(whole.frames)
    column += [None] * len(part.frames) if more is None else more
    return column


Sequence.register(EventBatch)
Sequence.register(KeyedBatch)
Sequence.register(Entries)


# -- encoding -------------------------------------------------------------------------------------

cdef inline Text text_of_place(PositionId* id, Place place) noexcept:
    """A position as an id; valid until the next one is written."""
    cdef Text text
    text.size = write_id(id, place)
    text.at = id.text
    return text


cdef inline Text text_of(bytes value) noexcept:
    """The bytes as text; absent for None. Valid while the caller holds `value`."""
    cdef Text text
    text.at = PyBytes_AS_STRING(value) if value is not None else NULL
    text.size = PyBytes_GET_SIZE(value) if value is not None else 0
    return text


cdef struct Placed:
    Place place
    uint64_t time_ms


cdef Frame encode_event(event, Placed placed, PositionId* id):
    """The frame of an event that has its place."""
    cdef bytes own_id = event.id, event_type = event.event, data = event.data
    cdef bint private = event.private
    cdef uint64_t retry_ms = event.retry_ms
    cdef Text text
    if own_id is not None:
        text = text_of(own_id)
    elif event.id_style == "uuid":
        own_id = uuid_of_position(int_of(placed.place))
        text = text_of(own_id)
    else:
        text = text_of_place(id, placed.place)
    return encode_at(
        text_of(data), text_of(event_type), text, retry_ms, private,
        placed.place.ms, placed.place.n, placed.time_ms, event.data_kind)


cdef struct Order:
    void* run                  # Positions in a row; NULL: a sequence of ints
    void* positions
    void* times                # a list, or NULL: one time for all
    bint has_time              # False: each event's is its position's
    uint64_t time_ms


cdef Order order_of(positions, times, Py_ssize_t count) except *:
    """Where the places and times of a batch come from. The caller holds both."""
    cdef Order order
    if len(positions) != count or (type(times) is list and len(times) != count):
        raise ValueError("as many positions and times as events")
    order.run = <void*>positions if type(positions) is Positions else NULL
    order.positions = <void*>positions
    order.times = <void*>times if type(times) is list else NULL
    order.has_time = times is not None
    order.time_ms = times if order.has_time and order.times is NULL else 0
    return order


cdef Placed placed_at(Order* order, Py_ssize_t at) except *:
    """The place and time of one event of the batch."""
    cdef Placed placed
    if order.run is not NULL:
        placed.place = (<Positions>order.run).at(at)
    else:
        set_place(&placed.place, (<object>order.positions)[at])
    if order.times is not NULL:
        placed.time_ms = (<list>order.times)[at]
    else:
        placed.time_ms = order.time_ms if order.has_time else placed.place.ms
    return placed


cdef Text NO_TEXT
NO_TEXT.at = NULL
NO_TEXT.size = 0


cdef object made_entry = None, made_extras = None


def set_entry_types(entry_type not None, extras_type not None):
    global made_entry, made_extras
    made_entry, made_extras = entry_type, extras_type


cdef Entries new_entries():
    cdef Entries entries = Entries.__new__(Entries)
    entries.entry_type = made_entry
    entries.extras_type = made_extras
    entries.frames = []
    return entries


def encode_entries(positions not None, events not None, times=None):
    cdef Entries entries = new_entries()
    cdef Order order = order_of(positions, times, len(events))
    if type(events) is EventBatch:
        encode_batch(entries, events, &order)
    else:
        encode_events(entries, events, &order)
    return entries


cdef Entries encode_batch_now(positions, EventBatch batch, uint64_t time_ms):
    cdef Entries entries = new_entries()
    cdef Order order = order_of(positions, None, len(batch.data))
    order.has_time, order.time_ms = True, time_ms
    encode_batch(entries, batch, &order)
    return entries


cdef int encode_events(Entries entries, events, Order* order) except -1:
    cdef Py_ssize_t at
    cdef PositionId id
    id.stem_bytes = 0
    entries.topics = []
    for at, event in enumerate(events):
        entries.topics.append(event.topics)
        add_event(entries, event, placed_at(order, at), &id)
    return 0


cdef int encode_batch(Entries entries, EventBatch batch, Order* order) except -1:
    cdef Placed placed
    cdef PositionId id
    cdef Py_ssize_t at
    id.stem_bytes = 0
    entries.topics = batch.topics
    for at in range(len(batch.data)):
        placed = placed_at(order, at)
        event = None if batch.events is None else batch.events[at]
        if event is not None:
            add_event(entries, event, placed, &id)
        else:
            add_columns(entries, batch, at, placed, &id)
    return 0


cdef object key_of(asked):
    """The key that the entry of an append carries; mostly none."""
    ask = (<tuple>asked)[STREAM]
    if (<tuple>asked)[PRODUCER] is None and (ask is None or ask.seq is None):
        return None
    return stored_key(asked)


cdef int add_columns(
        Entries entries, EventBatch batch, Py_ssize_t at, Placed placed, PositionId* id) except -1:
    """The entry of an event that is not an object."""
    cdef bytes data = batch.data[at]
    cdef bytes own_id = None if batch.own_ids is None else batch.own_ids[at]
    cdef SharedFields shared = None if batch.shared is None else batch.shared[at]
    extras = None
    meta = None if shared is None else shared.meta
    asked = None if batch.asked is None else batch.asked[at]
    key = None if asked is None else key_of(asked)
    if meta is not None or key is not None:
        extras = new_tuple(entries.extras_type, (None, None, None, key, meta, None, None))
    entries.own_ids = added(entries.own_ids, own_id, len(entries.frames))
    entries.extras = added(entries.extras, extras, len(entries.frames))
    if own_id is None and shared is not None and shared.is_uuid:
        own_id = uuid_of_position(int_of(placed.place))
    entries.frames.append(encode_at(
        text_of(data),
        NO_TEXT if shared is None else text_of(shared.event_type),
        text_of_place(id, placed.place) if own_id is None else text_of(own_id),
        0 if shared is None else shared.retry_ms,
        shared is not None and shared.private,
        placed.place.ms, placed.place.n, placed.time_ms, kind_at(batch, at)))
    return 0


def is_plain(events not None):
    """Whether nothing is asked of events but to be sent."""
    if type(events) is EventBatch:
        return is_plain_batch(events)
    for event in events:
        if event.directives is not None:
            return False
    return True


cdef bint is_plain_batch(EventBatch batch) except -1:
    cdef Py_ssize_t at
    if batch.asked is not None:
        for at in range(len(batch.data)):
            if batch.asked[at] is not None and (batch.events is None or batch.events[at] is None):
                return False
    if batch.events is not None:
        for event in batch.events:
            if event is not None and event.directives is not None:
                return False
    return True


def has_ends(events not None):
    """Whether an event ends its topics, or is to be a control entry. What is asked in a column is
    neither."""
    if type(events) is EventBatch:
        events = (<EventBatch>events).events or ()
    for event in events:
        if event is None:
            continue
        asked = event.directives
        if asked is not None and (asked.ends or asked.control is not None):
            return True
    return False


cdef bint asks_only_a_number(asked) except -1:
    """Whether nothing but its producer is asked of an event."""
    cdef Py_ssize_t index = 0
    for one in asked:
        if index != PRODUCER and one is not None and one is not False:
            return False
        index += 1
    return asked.producer is not None


def producer_runs(events not None):
    """The producers of a batch of which nothing else is asked, and whose numbers rise."""
    cdef dict runs = {}
    cdef list run
    cdef Py_ssize_t at = 0
    for event in events:
        asked = event.directives
        if asked is None or not asks_only_a_number(asked):
            return None
        key, epoch, sequence, refuses_gaps = asked.producer
        run = runs.get(key)
        if refuses_gaps:
            return None
        if run is None:
            runs[key] = [epoch, sequence, sequence, at]
        elif run[0] != epoch or sequence <= run[2]:
            return None
        else:
            run[2] = sequence
            run[3] = at
        at += 1
    return runs


def undirect(events not None):
    """Removes what is asked of events; all of it was done."""
    for event in events:
        event.directives = None


def has_control(entries not None):
    """Whether a control entry is among entries."""
    cdef object extras
    if type(entries) is Entries:
        if (<Entries>entries).extras is None:
            return False
        for extras in (<Entries>entries).extras:
            if extras is not None and extras.control is not None:
                return True
        return False
    for entry in entries:
        extras = entry[4]
        if extras is not None and extras.control is not None:
            return True
    return False


cdef int add_event(Entries entries, event, Placed placed, PositionId* id) except -1:
    entries.own_ids = added(entries.own_ids, event.id, len(entries.frames))
    cdef Frame frame
    expires_ms = None
    if event.directives is not None and event.directives.ttl_ms is not None:
        expires_ms = placed.time_ms + <object>event.directives.ttl_ms
    extras = extras_of(event, entries.extras_type, expires_ms)
    entries.extras = added(entries.extras, extras, len(entries.frames))
    if event.directives is not None and event.directives.control is not None:
        position = int_of(placed.place)
        entries.frames.append(load_frame(
            notice_of(event.directives.control, event.topics, position),
            position, event.private, placed.time_ms, False))
    else:
        frame = encode_event(event, placed, id)
        frame.data.expires_ms = expires_ms or 0
        entries.frames.append(frame)
    return 0


cdef object extras_of(event, extras_type, expires_ms):
    """The optional fields of an event's entry; None when it has none."""
    meta = event.meta
    control = None if event.directives is None else event.directives.control
    if control == BLANK:
        control = None
    key = None if event.directives is None else stored_key(event.directives)
    if meta is None and control is None and key is None and expires_ms is None:
        return None
    if meta is not None:
        # What orjson made keeps the room of the buffer that it was written into: some kilobytes.
        meta = PyBytes_FromStringAndSize(PyBytes_AS_STRING(meta), PyBytes_GET_SIZE(meta))
    return new_tuple(extras_type, (expires_ms, None, None, key, meta, None, control))
