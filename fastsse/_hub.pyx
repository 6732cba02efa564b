"""What the hub keeps: topics, the log of each, the log of all, and eviction. Loop thread only.

`hub/history.py` reads the same objects for pages and replays.

Over 400 lines: an append, its eviction and its delivery touch the same fields in one call.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.stdint cimport int32_t, int64_t, uint32_t
from libc.string cimport memmove

from fastsse._batch cimport Entries
from fastsse._core cimport Frame, Run, run_add, run_begin, run_end
from fastsse.native.frame cimport is_notice
from fastsse.native.place cimport Place, int_of, is_above, is_same, set_place
from fastsse.native.queue cimport LATEST, SKIP

from fastsse._core import load_frame, raw_frame
from fastsse.directives import NO_NOTICE
from fastsse.events import as_header_value
from fastsse.evicted import Steps
from fastsse.positions import TimeMarks

# What a kept event costs without its bytes: frame header, allocation, position, its places in two
# logs. Measured, and counted so that the limits bound memory for small events too.
cdef enum:
    EVENT_COST = 192
    # What a topic costs without its events, and an own id without its text.
    TOPIC_COST = 512
    OWN_ID_COST = 320
    # Of optional fields, without their bytes: the tuple, its place by position, and their objects.
    EXTRAS_COST = 400
    TOPICS_MAX = 255           # of an event, as in a record

EVENT_COST_BYTES = EVENT_COST
TOPIC_COST_BYTES = TOPIC_COST
OWN_ID_COST_BYTES = OWN_ID_COST
EXTRAS_COST_BYTES = EXTRAS_COST

# The emptied front of a log is cut off when it is this long, and half of the log. Closing a block
# of holes costs a few milliseconds at most, in a log of a million. It is done once holes are a
# quarter of the log, and so often that they stay under a half of it.
cdef Py_ssize_t cut_least = 64
cdef Py_ssize_t block_events = 32 * 1024

# Stands where a frame was, so that the frame is freed before its place is cut off.
cdef Frame GONE = raw_frame(b":\n")


def set_cuts(Py_ssize_t least, Py_ssize_t block):
    global cut_least, block_events
    cut_least, block_events = least, block


cdef inline Place place_of(Frame frame) noexcept:
    cdef Place place
    place.ms = frame.data.position_ms
    place.n = frame.data.position_n
    return place


cdef inline int64_t cost_of(Frame frame) noexcept:
    return <int64_t>frame.data.body_bytes + EVENT_COST


# -- topics ---------------------------------------------------------------------------------------

cdef class Bounds:
    def __init__(
            self, int64_t events, int64_t bytes, int64_t age_ms, int policy,
            int64_t keep_last=0):
        self.events = events
        self.keep_last = keep_last
        self.bytes = bytes
        self.age_ms = age_ms
        self.policy = policy


@cython.final
@cython.no_gc
cdef class Topic:
    def __init__(self, str name not None, uint32_t number, Bounds rule not None, evicted_through):
        self.name = name
        self.number = number
        self.rule = rule
        self.ended_at = 0
        self.plain_channel = self.quiet_channel = -1
        set_place(&self.evicted, evicted_through)

    def channel_of(self, bint is_quiet):
        return self.quiet_channel if is_quiet else self.plain_channel

    def set_channel(self, bint is_quiet, int32_t number):
        if is_quiet:
            self.quiet_channel = number
        else:
            self.plain_channel = number

    @property
    def evicted_through(self):
        return int_of(self.evicted)

    @evicted_through.setter
    def evicted_through(self, position):
        set_place(&self.evicted, position)


cdef inline bint has_evicted(Topic topic, Place place) noexcept:
    return not is_above(place, topic.evicted)


@cython.final
cdef class Channel:
    def __init__(
            self, uint32_t number, selectors not None, topics, rights, *,
            bint is_quiet=False, view=None):
        self.number = number
        self.rights = rights
        self.view = view
        self.is_quiet = is_quiet
        self.texts = selectors
        self.topics = topics
        if type(self.wanted) is Topic and type(selectors) is tuple \
                and selectors == ((<Topic>self.wanted).name,):
            self.texts = None

    @property
    def selectors(self):
        return ((<Topic>self.wanted).name,) if self.texts is None else self.texts

    @property
    def topics(self):
        return (self.wanted,) if type(self.wanted) is Topic else self.wanted

    @topics.setter
    def topics(self, topics):
        is_one = type(topics) is tuple and len(topics) == 1
        self.wanted = topics[0] if is_one else topics


cdef inline bint is_sent(Frame frame, bint describes) noexcept:
    """Whether the sender gets it: an event, or a control entry that a view may ask for."""
    return frame.data.events or (describes and is_notice(frame.data))


cdef inline int policy_of(Frame frame, int policy) noexcept:
    """A control entry is no topic's newest value."""
    return SKIP if policy == LATEST and frame.data.events == 0 else policy


cpdef int strictest(tuple topics) except -1:
    """Policies are numbers in order of strictness (`native/queue.pxd`)."""
    cdef int policy = 0
    for topic in topics:
        policy = max(policy, (<Topic?>topic).rule.policy)
    return policy


cdef Frame blank_of(Frame frame):
    """What stands in the place of an event that was deleted."""
    return load_frame(
        NO_NOTICE, int_of(place_of(frame)), frame.data.is_private, frame.data.time_ms, False)


@cython.final
@cython.no_gc
cdef class TopicLog:
    def __cinit__(self):
        self.frames = []

    cdef bint is_over(self, Bounds rule) noexcept:
        return self.bytes > rule.bytes or self.has_more_than(rule.events)

    cdef bint has_more_than(self, int64_t events) noexcept:
        return len(self.frames) - self.start > events

    @property
    def kept(self):
        return len(self.frames) - self.start

    def drop_first(self):
        return self.drop()

    cdef Frame drop(self):
        cdef Frame frame = <Frame>self.frames[self.start]
        self.frames[self.start] = GONE
        self.start += 1
        self.bytes -= cost_of(frame)
        if self.start >= cut_least and self.start * 2 >= len(self.frames):
            del self.frames[:self.start]
            self.start = 0
        return frame

    cdef int64_t put(self, Place place, Frame frame) except? -1:
        """Has another frame in the place of the one that is kept there, if there is one. By how much
        the log costs more."""
        cdef Py_ssize_t index = self.find(place) - 1
        cdef int64_t more
        if index < self.start or not is_same(place_of(<Frame>self.frames[index]), place):
            return 0
        more = cost_of(frame) - cost_of(<Frame>self.frames[index])
        self.bytes += more
        self.frames[index] = frame
        return more

    cdef list places_through(self, Place place):
        """The places of its events up to a place."""
        cdef list frames = self.frames[self.start:self.find(place)]
        return [frame.position for frame in frames if frame.events]

    def prepend(self, TopicLog older not None):
        self.frames = older.frames[older.start:] + self.frames[self.start:]
        self.start = 0
        self.bytes += older.bytes

    @cython.boundscheck(False)  # Every index lies between start and end.
    @cython.wraparound(False)
    cdef Py_ssize_t find(self, Place place) noexcept:
        """The index of the first frame behind a place."""
        cdef Py_ssize_t low = self.start, high = len(self.frames), middle
        while low < high:
            middle = (low + high) // 2
            if is_above(place_of(<Frame>self.frames[middle]), place):
                high = middle
            else:
                low = middle + 1
        return low

    def after(self, position):
        cdef Place place
        set_place(&place, position)
        cdef list frames = self.frames
        return (frames[index] for index in range(self.find(place), len(frames)))

    def newest_first(self):
        cdef list frames = self.frames
        return (frames[index] for index in range(len(frames) - 1, self.start - 1, -1))


# -- the log of all -------------------------------------------------------------------------------

cdef class WholeLog:
    def __cinit__(self):
        self.frames = []
        self.owners = []

    def __dealloc__(self):
        PyMem_Free(self.places)

    def __len__(self):
        return len(self.frames)

    cdef int reserve(self, Py_ssize_t count) except -1:
        cdef Py_ssize_t capacity
        cdef Place* places
        if count <= self.capacity:
            return 0
        capacity = max(count, cut_least, self.capacity + self.capacity // 2)
        places = <Place*>PyMem_Realloc(self.places, capacity * sizeof(Place))
        if places is NULL:
            raise MemoryError()
        self.places = places
        self.capacity = capacity
        return 0

    def append(self, Frame frame not None, owners not None):
        self.add(frame, owners)

    cdef int add(self, Frame frame, owners) except -1:
        cdef Py_ssize_t index = len(self.frames)
        self.reserve(index + 1)
        self.places[index] = place_of(frame)
        self.owners.append(owners)
        self.frames.append(frame)
        return 0

    def prepend(self, list frames not None, list owners not None):
        cdef Py_ssize_t index, count = len(frames), kept = len(self.frames) - self.start
        self.reserve(count + kept)
        if kept:
            memmove(self.places + count, self.places + self.start, kept * sizeof(Place))
        for index in range(count):
            self.places[index] = place_of(<Frame?>frames[index])
        self.frames = frames + self.frames[self.start:]
        self.owners = owners + self.owners[self.start:]
        self.start = self.block = 0

    def first(self):
        if self.start == len(self.frames):
            return None
        return int_of(self.places[self.start]), self.owners[self.start]

    def let_go(self, Topic topic not None, position):
        cdef Place place
        set_place(&place, position)
        return self.drop(topic, place)

    cdef bint drop(self, Topic topic, Place place) except -1:
        """Drops the event at a place, which the topic has just evicted, unless another keeps it."""
        cdef Py_ssize_t index = self.start
        if not is_same(self.places[index], place):
            index = self.find_at(place)
        owners = self.owners[index]
        if owners is not topic and not (type(owners) is tuple and all_evicted(owners, place)):
            return False
        self.frames[index] = GONE
        self.owners[index] = None
        if index == self.start:
            self.advance()
        else:
            self.make_hole()
        return True

    @cython.boundscheck(False)  # Every index lies between start and end.
    @cython.wraparound(False)
    cdef Py_ssize_t find(self, Place place, bint above) noexcept:
        """The index of the first event at a place or above it, or only `above` it."""
        cdef Py_ssize_t low = self.start, high = len(self.frames), middle
        while low < high:
            middle = (low + high) // 2
            if is_above(self.places[middle], place) \
                    or (not above and is_same(self.places[middle], place)):
                high = middle
            else:
                low = middle + 1
        return low

    cdef Py_ssize_t find_at(self, Place place) except -1:
        cdef Py_ssize_t index = self.find(place, False)
        if index == len(self.frames) or not is_same(self.places[index], place):
            raise LookupError("no event is kept there")
        return index

    cdef Py_ssize_t first_after(self, position) except -1:
        cdef Place place
        set_place(&place, position)
        return self.find(place, True)

    def after(self, position):
        cdef list frames = self.frames
        return (
            frame for index in range(self.first_after(position), len(frames))
            if (frame := frames[index]) is not GONE)

    def newest_first(self):
        cdef list frames = self.frames
        return (
            frame for index in range(len(frames) - 1, self.start - 1, -1)
            if (frame := frames[index]) is not GONE)

    def owned_after(self, position):
        cdef list frames = self.frames, owners = self.owners
        return (
            (frames[index], owner) for index in range(self.first_after(position), len(frames))
            if (owner := owners[index]) is not None)

    def owned_newest_first(self):
        cdef list frames = self.frames, owners = self.owners
        return (
            (frames[index], owner) for index in range(len(frames) - 1, self.start - 1, -1)
            if (owner := owners[index]) is not None)

    def owners_of(self, position):
        cdef Place place
        cdef Py_ssize_t index
        set_place(&place, position)
        index = self.find(place, False)
        if index == len(self.frames) or not is_same(self.places[index], place):
            return ()
        return self.owners[index] or ()

    cdef int advance(self) except -1:
        """The first event was dropped: the log begins behind it and the holes there."""
        cdef Py_ssize_t start = self.start + 1, end = len(self.owners)
        while start < end and self.owners[start] is None:
            start += 1
        self.holes -= start - self.start - 1
        if start >= cut_least and start * 2 >= end:
            del self.frames[:start]
            del self.owners[:start]
            memmove(self.places, self.places + start, (end - start) * sizeof(Place))
            self.block = max(0, self.block - start)
            start = 0
        self.start = start
        return 0

    cdef int make_hole(self) except -1:
        cdef Py_ssize_t length = len(self.owners) - self.start
        self.holes += 1
        self.new_holes += 1
        if self.holes > length // 4 and self.new_holes >= max(
                cut_least, min(block_events, length) // 8):
            self.close_block()
        return 0

    cdef int close_block(self) except -1:
        """Closes the holes of the next block."""
        cdef Py_ssize_t end = len(self.owners)
        cdef Py_ssize_t first = self.block if self.start <= self.block < end else self.start
        cdef Py_ssize_t stop = min(first + block_events, end)
        cdef Py_ssize_t index, to = first
        cdef list frames = [], owners = []
        for index in range(first, stop):
            if self.owners[index] is not None:
                frames.append(self.frames[index])
                owners.append(self.owners[index])
                self.places[to] = self.places[index]
                to += 1
        memmove(self.places + to, self.places + stop, (end - stop) * sizeof(Place))
        self.frames[first:stop] = frames
        self.owners[first:stop] = owners
        self.block = to
        self.holes -= stop - to
        self.new_holes = 0
        return 0


cdef bint all_evicted(tuple owners, Place place) noexcept:
    """From the last one on: topics that evict an event do that in their order, so the last one often
    keeps it until the end."""
    cdef Py_ssize_t index
    for index in range(len(owners) - 1, -1, -1):
        if not has_evicted(<Topic>owners[index], place):
            return False
    return True


cdef bint any_heard(tuple topics) noexcept:
    """Whether a channel names one of the topics."""
    for topic in topics:
        if (<Topic>topic).channels:
            return True
    return False


# -- history --------------------------------------------------------------------------------------

cdef inline bint is_padded(bytes own_id) noexcept:
    """Whether an id may have blanks around it."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(own_id)
    cdef const char* text = PyBytes_AS_STRING(own_id)
    return size == 0 or text[0] <= c' ' or text[size - 1] <= c' '


cdef class HistoryLog:
    def __init__(self, topics, int64_t total_bytes, start):
        set_place(&self.head_place, start)
        self.public_head_place = self.evicted = self.head_place
        self.topics = topics
        self.by_name = topics.by_name
        self.total_bytes = total_bytes
        self.whole = WholeLog.__new__(WholeLog)
        self.position_of = {}
        self.own_id_at = {}
        self.extras_at = {}
        self.evicted_below = Steps()
        self.evicted_apart = Steps()
        self.times = TimeMarks()

    @property
    def head(self):
        return int_of(self.head_place)

    @head.setter
    def head(self, position):
        set_place(&self.head_place, position)

    @property
    def public_head(self):
        return int_of(self.public_head_place)

    @public_head.setter
    def public_head(self, position):
        set_place(&self.public_head_place, position)

    @property
    def evicted_from_all_through(self):
        return int_of(self.evicted)

    def take(self, entries not None, sender=None, bint heard_by_all=False, bint describes=False):
        cdef Run run
        if sender is not None:
            run_begin(&run, sender)
        if type(entries) is Entries:
            self.take_columns(
                entries, NULL if sender is None else &run, heard_by_all, describes)
        else:
            for _, topics, own_id, frame, extras in entries:
                self.take_one(
                    <Frame?>frame, <tuple?>topics, own_id, extras,
                    NULL if sender is None else &run, heard_by_all, describes)
        if sender is not None:
            run_end(&run)

    cdef int take_columns(
            self, Entries entries, Run* run, bint heard_by_all, bint describes) except -1:
        cdef Py_ssize_t at
        cdef list own_ids = entries.own_ids, extras = entries.extras
        for at in range(len(entries.frames)):
            self.take_one(
                <Frame>entries.frames[at], <tuple?>entries.topics[at],
                None if own_ids is None else own_ids[at],
                None if extras is None else extras[at],
                run, heard_by_all, describes)
        return 0

    cdef int take_one(
            self, Frame frame, tuple names, own_id, extras, Run* run,
            bint heard_by_all, bint describes) except -1:
        """Keeps the newest event, then hands it on where a channel may want it; with what a view may
        ask of it, if it `describes`."""
        cdef tuple shown = names if describes else None
        cdef bytes meta = extras.meta if describes and extras is not None else None
        cdef Topic topic
        cdef tuple topics
        cdef uint32_t[TOPICS_MAX] numbers
        cdef Py_ssize_t index
        if len(names) == 1:
            topic = self.intern(names[0])
            self.keep(frame, topic, own_id, extras)
            if run is not NULL and is_sent(frame, describes) and (heard_by_all or topic.channels):
                numbers[0] = topic.number
                run_add(run, frame, numbers, 1, policy_of(frame, topic.rule.policy), shown, meta)
            return 0
        if len(names) > TOPICS_MAX:
            raise ValueError("too many topics")
        topics = self.intern_all(names)
        self.keep(frame, topics, own_id, extras)
        if run is NULL or not is_sent(frame, describes):
            return 0           # What a control entry says was done when it was kept.
        if not (heard_by_all or any_heard(topics)):
            return 0
        for index in range(len(topics)):
            numbers[index] = (<Topic>topics[index]).number
        run_add(run, frame, numbers, <uint32_t>len(topics), policy_of(frame, strictest(topics)), shown,
                meta)
        return 0

    cdef Topic intern(self, name):
        cdef void* found = <void*>PyDict_GetItem(self.by_name, name)
        return <Topic>found if found is not NULL else <Topic?>self.topics.intern(name)

    cdef tuple intern_all(self, tuple names):
        """The topics of an event. Publishers name the same ones again and again: such events share
        the tuple too."""
        cdef Topic topic
        if names is self.last_names:
            for topic in self.last_topics:
                if topic.is_forgotten:
                    break
            else:
                return self.last_topics
        self.last_topics = tuple([self.intern(name) for name in names])
        self.last_names = names
        return self.last_topics

    def append(self, Frame frame not None, tuple topics not None, own_id, extras=None):
        self.keep(frame, topics[0] if len(topics) == 1 else topics, own_id, extras)

    cdef int keep(self, Frame frame, owners, own_id, extras) except -1:
        """Keeps the newest event under its topics, as their rules allow, and evicts for it."""
        cdef int64_t cost = cost_of(frame)
        self.head_place = place_of(frame)
        if not frame.data.is_private:
            self.public_head_place = self.head_place
        if frame.data.position_ms > frame.data.time_ms:
            self.times.note(frame.data.time_ms, int_of(self.head_place))
        cdef bint is_full = False, is_exempt = False
        if type(owners) is tuple:
            for topic in <tuple>owners:
                is_full |= self.add_to(<Topic?>topic, frame, cost)
                is_exempt |= (<Topic>topic).is_exempt
        else:
            is_full = self.add_to(<Topic?>owners, frame, cost)
            is_exempt = (<Topic>owners).is_exempt
        if is_exempt:
            self.exempt_bytes += cost
        self.whole.add(frame, owners)
        self.events += 1
        self.bytes += cost
        if own_id is not None:
            self.index(own_id, int_of(self.head_place))
        if extras is not None:
            self.keep_extras(int_of(self.head_place), extras)
            if extras.control is not None:
                topics = owners if type(owners) is tuple else (owners,)
                self.on_control(topics, int_of(self.head_place), extras.control)
        if is_full:
            self.trim(owners)
        self.fit()
        return 0

    cdef bint add_to(self, Topic topic, Frame frame, int64_t cost) except -1:
        """Adds a frame to a topic's log; True when that is over the topic's rule now."""
        cdef TopicLog log = topic.log
        if log is None:
            log = topic.log = TopicLog.__new__(TopicLog)
            self.bytes += TOPIC_COST
            if topic.ended_at and frame.data.events:
                self.on_reopen(topic)  # The store has forgotten the end that it knew.
        log.frames.append(frame)
        log.bytes += cost
        topic.rule.kept_events += 1
        topic.rule.kept_bytes += frame.data.body_bytes
        return log.is_over(topic.rule) or (topic.rule.keep_last and self.has_spared(topic))

    cdef bint has_spared(self, Topic topic) noexcept:
        """Whether the oldest event of a topic stayed as one of the newest, and is none now."""
        cdef TopicLog log = topic.log
        if log is None or (log.spared.ms == 0 and log.spared.n == 0):
            return False                # None stayed. Its oldest frame is out of the cache.
        return (
            log.has_more_than(topic.rule.keep_last)
            and not is_above(place_of(<Frame>log.frames[log.start]), log.spared))

    def trim(self, owners):
        for topic in owners if type(owners) is tuple else (owners,):
            self.trim_topic(<Topic?>topic)

    cdef int trim_topic(self, Topic topic) except -1:
        while topic.log is not None and (
                topic.log.is_over(topic.rule) or self.has_spared(topic)):
            self.evict_first(topic)
        return 0

    def shorten(self, Topic topic not None, Py_ssize_t limit):
        """Evicts at most `limit` events that the topic's rule does not keep; how many, and whether
        that was all."""
        cdef Py_ssize_t count = 0
        while topic.log is not None and (topic.log.is_over(topic.rule) or self.has_spared(topic)):
            if count == limit:
                return count, False
            self.evict_first(topic)
            count += 1
        return count, True

    cpdef object fit(self):
        """Evicts the oldest events until the total is within its bound: first those that no rule
        spares, then those too."""
        while self.bytes - self.exempt_bytes > self.total_bytes:
            if not self.evict_oldest_unspared() and not self.evict_oldest_spared():
                return

    def evict_oldest(self):
        """Evicts the oldest event of all from every topic that keeps it."""
        if self.whole.start == len(self.whole.frames):
            raise LookupError("no event is kept")
        self.evict_from_all(self.whole.start, False)

    cdef bint evict_from_all(self, Py_ssize_t index, bint spares_exempt) except -1:
        """Evicts the event there from its topics, except from exempt ones if it spares them; returns
        whether any topic evicted it."""
        cdef Place place = self.whole.places[index]
        cdef bint is_evicted = False
        owners = self.whole.owners[index]
        for topic in owners if type(owners) is tuple else (owners,):
            if (<Topic>topic).log is not None and not has_evicted(<Topic>topic, place):
                if not spares_exempt or not (<Topic>topic).is_exempt:
                    self.evict_first(<Topic>topic)
                    is_evicted = True
        return is_evicted

    cdef bint evict_oldest_spared(self) except -1:
        """Evicts the oldest event that a topic keeps which is not exempt. Events of exempt ones alone
        are looked at once: O(1) amortized. Returns whether there was one."""
        cdef Py_ssize_t index = self.whole.start, stop = len(self.whole.frames)
        if index < stop and not is_above(self.whole.places[index], self.exempt_through):
            index = self.whole.find(self.exempt_through, True)
        while index < stop:
            if self.whole.owners[index] is not None and self.evict_from_all(index, True):
                return True
            self.exempt_through = self.whole.places[index]
            index += 1
        return False

    def exempt(self, Topic topic not None, Bounds rule not None, bint is_exempt):
        cdef int64_t size = 0
        if topic.is_exempt != is_exempt and topic.log is not None:
            for frame in topic.log.frames[topic.log.start:]:
                if not self.has_other_exempt(topic, place_of(<Frame>frame)):
                    size += cost_of(<Frame>frame)
            self.exempt_bytes += size if is_exempt else -size
        topic.is_exempt = is_exempt
        topic.rule = rule

    cdef bint has_other_exempt(self, Topic topic, Place place) except -1:
        """Whether another exempt topic keeps the event at a place. O(log n)."""
        owners = self.whole.owners[self.whole.find_at(place)]
        if type(owners) is not tuple:
            return False
        for other in <tuple>owners:
            if other is not topic and (<Topic>other).is_exempt and not has_evicted(
                    <Topic>other, place):
                return True
        return False

    def look_at_all_again(self):
        self.unspared_after = self.exempt_through = Place(0, 0)

    cdef bint evict_oldest_unspared(self) except -1:
        """Evicts the oldest event from its topics, unless it is one of their newest that stay. Those
        are looked at once: O(1) amortized. Returns whether there was one left to look at."""
        cdef Py_ssize_t index = self.whole.start, stop = len(self.whole.frames)
        cdef Place place
        if index < stop and not is_above(self.whole.places[index], self.unspared_after):
            index = self.whole.find(self.unspared_after, True)
        while index < stop and self.whole.owners[index] is None:
            index += 1
        if index == stop:
            return False
        place = self.unspared_after = self.whole.places[index]
        owners = self.whole.owners[index]
        for topic in owners if type(owners) is tuple else (owners,):
            self.evict_at(<Topic>topic, place)
        return True

    cdef int evict_at(self, Topic topic, Place place) except -1:
        """Has a topic evict its oldest event if that is the one at a place, or before it, and not
        one of the newest that stay."""
        if topic.log is None or has_evicted(topic, place):
            return 0
        if topic.rule.keep_last and not topic.log.has_more_than(topic.rule.keep_last):
            topic.log.spared = place
            return 0
        return self.evict_first(topic)

    def sweep_age(self, int64_t age_ms, after, through, Py_ssize_t limit):
        """Evicts events after one place and up to another whose topics keep them for `age_ms`;
        returns how many of at most `limit` were looked at, and through where."""
        cdef WholeLog whole = self.whole
        cdef Place last
        cdef Py_ssize_t first = whole.first_after(after), index
        cdef Py_ssize_t stop = min(whole.first_after(through), first + limit)
        if stop <= first:
            return 0, after
        last = whole.places[stop - 1]
        cdef list frames = whole.frames[first:stop], owners = whole.owners[first:stop]
        for index in range(len(frames)):
            if owners[index] is not None:
                self.age(<Frame>frames[index], owners[index], age_ms)
        return len(frames), int_of(last)

    cdef int age(self, Frame frame, owners, int64_t age_ms) except -1:
        for topic in owners if type(owners) is tuple else (owners,):
            if (<Topic>topic).rule.age_ms == age_ms:
                self.evict_at(<Topic>topic, place_of(frame))
        return 0

    def blank(self, position):
        """Empties the event at a place, in every topic that keeps it; without a gap.
        Whether there was one. O(topics log n)."""
        cdef Place place
        cdef Py_ssize_t index
        cdef Frame frame, blank
        cdef int64_t more, exempt_more = 0
        set_place(&place, position)
        index = self.whole.find(place, False)
        if index == len(self.whole.frames) or not is_same(self.whole.places[index], place):
            return False
        owners, frame = self.whole.owners[index], self.whole.frames[index]
        if owners is None or frame.data.events == 0:
            return False
        blank = self.whole.frames[index] = blank_of(frame)
        self.bytes += cost_of(blank) - cost_of(frame)
        for topic in owners if type(owners) is tuple else (owners,):
            if (<Topic>topic).log is not None:
                more = (<Topic>topic).log.put(place, blank)
                if (<Topic>topic).is_exempt and more:
                    exempt_more = more  # The same for each.
        self.exempt_bytes += exempt_more
        extras = self.extras_at.pop(position, None)
        if extras is not None:
            self.bytes -= extras.size + EXTRAS_COST
            if extras.key is not None:
                self.keep_extras(position, extras.blanked())
        return True

    def purge(self, Topic topic not None, position):
        """As `blank`, of all events of a topic up to a place; returns how many. O(n log n)."""
        cdef Place place
        set_place(&place, position)
        if topic.log is None:
            return 0
        return sum([self.blank(one) for one in topic.log.places_through(place)])

    def evict_through(self, Topic topic not None, position):
        cdef Place through
        set_place(&through, position)
        while topic.log is not None and not is_above(
                place_of(<Frame>topic.log.frames[topic.log.start]), through):
            self.evict_first(topic)
        if not has_evicted(topic, through):
            topic.evicted = through
            topic.evicted_at = self.next_tick()

    cdef int evict_first(self, Topic topic) except -1:
        """Has a topic evict its oldest event, and forgets that when no other topic keeps it."""
        cdef TopicLog log = topic.log
        cdef Frame frame = log.drop()
        if topic.is_exempt and not self.has_other_exempt(topic, place_of(frame)):
            self.exempt_bytes -= cost_of(frame)
        topic.evicted = place_of(frame)
        topic.evicted_at = self.next_tick()
        topic.rule.evicted_events += 1
        if log.start == len(log.frames):
            topic.log = None
            self.bytes -= TOPIC_COST
            if topic.ended_at:
                self.on_reopen(topic)
            self.topics.may_be_idle(topic)
        if self.whole.drop(topic, topic.evicted):
            self.forget(frame, topic.rule)
        return 0

    cdef int forget(self, Frame frame, Bounds rule) except -1:
        cdef Place place = place_of(frame)
        self.events -= 1
        self.bytes -= cost_of(frame)
        if rule.is_apart:
            self.evicted_apart.add(self.clock, int_of(place))
        elif is_above(place, self.evicted):
            self.note_newest_gone(place)
        else:
            self.evicted_below.add(self.clock, int_of(place))
        if self.own_id_at:
            own_id = self.own_id_at.pop(int_of(place), None)
            if own_id is not None:
                del self.position_of[own_id]
                self.bytes -= OWN_ID_COST
        if self.extras_at:
            extras = self.extras_at.pop(int_of(place), None)
            if extras is not None:
                self.bytes -= extras.size + EXTRAS_COST
        return 0

    def is_unchanged(self, tuple topics not None, position, int64_t clock):
        cdef Place place
        cdef TopicLog log
        set_place(&place, position)
        for topic in topics:
            if (<Topic?>topic).evicted_at > clock:
                return False
            log = (<Topic>topic).log
            if log is not None and is_above(place_of(<Frame>log.frames[-1]), place):
                return False
        return True

    cdef int64_t next_tick(self) noexcept:
        self.clock += 1
        return self.clock

    def tick(self):
        """The clock's reading for an eviction."""
        return self.next_tick()

    def note_gone(self, position):
        """Events up to a place left all their topics with the clock's last reading."""
        cdef Place place
        set_place(&place, position)
        if is_above(place, self.evicted):
            self.note_newest_gone(place)
        else:
            self.evicted_below.add(self.clock, position)

    cdef int note_newest_gone(self, Place place) except -1:
        self.evicted = place
        self.evicted_at = self.clock
        if self.evicted_below:
            self.evicted_below = Steps()
        return 0

    cpdef object index(self, bytes own_id, position):
        """Has an own id find its event; the first of an id stays."""
        came_back = own_id
        if is_padded(own_id):
            came_back = as_header_value(own_id)
        if came_back not in self.position_of:
            self.position_of[came_back] = position
            self.own_id_at[position] = came_back
            self.bytes += OWN_ID_COST

    cpdef object keep_extras(self, position, extras):
        self.extras_at[position] = extras
        self.bytes += extras.size + EXTRAS_COST
