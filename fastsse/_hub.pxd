from libc.stdint cimport int32_t, int64_t, uint32_t

from fastsse._batch cimport Entries
from fastsse._core cimport Frame, Run
from fastsse.native.place cimport Place


cdef extern from *:
    ctypedef bint small_bint "unsigned char"


cdef class Bounds:
    cdef readonly int64_t events
    cdef readonly int64_t bytes
    cdef readonly int64_t age_ms
    cdef readonly int policy
    # So many of the newest events stay when they are too old, and when the total is over its bound.
    cdef readonly int64_t keep_last
    # Its events are private ones of the server: who has no grant misses none of them.
    cdef public bint is_apart
    # What was kept under topics of this rule, and evicted, by this process.
    cdef readonly int64_t kept_events
    cdef readonly int64_t kept_bytes
    cdef readonly int64_t evicted_events


cdef class TopicLog:
    cdef public list frames
    cdef readonly Py_ssize_t start
    cdef public int64_t bytes
    # Through here the topic's events stayed only because they were the newest of it.
    cdef Place spared

    cdef bint is_over(self, Bounds rule) noexcept
    cdef bint has_more_than(self, int64_t events) noexcept
    cdef Frame drop(self)
    cdef Py_ssize_t find(self, Place place) noexcept
    cdef int64_t put(self, Place place, Frame frame) except? -1
    cdef list places_through(self, Place place)


# There may be a million, so a topic has 96 bytes, and the collector does not look at it: what it
# refers to never refers to it.
cdef class Topic:
    cdef readonly str name
    cdef readonly Bounds rule
    cdef public TopicLog log
    cdef public object ended_at
    cdef Place evicted
    cdef public int64_t evicted_at
    cdef readonly uint32_t number
    cdef public uint32_t channels
    cdef public uint32_t named
    # The channels of this topic alone and without grants, see `channel_of`; -1: there is none.
    cdef int32_t plain_channel
    cdef int32_t quiet_channel
    cdef public small_bint is_forgotten
    cdef public small_bint is_end_sent
    cdef public small_bint is_state_known
    # No rule and no total evicts its events; only `evict_through` does.
    cdef readonly small_bint is_exempt


cdef class Channel:
    cdef readonly uint32_t number
    cdef public uint32_t streams
    cdef readonly object rights
    cdef readonly object view
    cdef public object core_view
    cdef public list waiting
    # Of a channel of one topic: the topic. Its text is the topic's name, so it is not kept again.
    cdef object wanted
    cdef object texts
    cdef readonly small_bint is_quiet


cdef class WholeLog:
    cdef list frames
    cdef readonly list owners
    cdef Place* places
    cdef Py_ssize_t capacity
    cdef readonly Py_ssize_t start
    cdef readonly Py_ssize_t holes
    cdef Py_ssize_t new_holes      # made since a block was last closed
    cdef Py_ssize_t block          # where the next block to close begins

    cdef int reserve(self, Py_ssize_t count) except -1
    cdef int add(self, Frame frame, owners) except -1
    cdef bint drop(self, Topic topic, Place place) except -1
    cdef Py_ssize_t find(self, Place place, bint above) noexcept
    cdef Py_ssize_t find_at(self, Place place) except -1
    cdef Py_ssize_t first_after(self, position) except -1
    cdef int advance(self) except -1
    cdef int make_hole(self) except -1
    cdef int close_block(self) except -1


cdef class HistoryLog:
    cdef readonly object topics
    cdef dict by_name
    cdef readonly WholeLog whole
    cdef public object times
    cdef public Py_ssize_t events
    cdef public int64_t bytes
    cdef int64_t total_bytes
    # Of exempt topics, each event once; they do not count for the total.
    cdef readonly int64_t exempt_bytes
    cdef Place head_place
    cdef Place public_head_place
    # The clock counts evictions. What left all topics after the event at `evicted`, and below it.
    cdef readonly int64_t clock
    cdef Place evicted
    cdef readonly int64_t evicted_at
    cdef readonly object evicted_below
    # What left of rules that are apart; the three above do not count it.
    cdef readonly object evicted_apart
    # What lies up to here was looked at for the total, and stays.
    cdef Place unspared_after
    # What lies up to here is kept by exempt topics alone.
    cdef Place exempt_through
    # Of the last event with several topics.
    cdef tuple last_names
    cdef tuple last_topics
    cdef readonly dict position_of
    cdef readonly dict own_id_at
    cdef readonly dict extras_at

    cdef int take_columns(
        self, Entries entries, Run* run, bint heard_by_all, bint describes) except -1
    cdef int take_one(
        self, Frame frame, tuple names, own_id, extras, Run* run, bint heard_by_all,
        bint describes) except -1
    cdef Topic intern(self, name)
    cdef tuple intern_all(self, tuple names)
    cdef int keep(self, Frame frame, owners, own_id, extras) except -1
    cdef bint add_to(self, Topic topic, Frame frame, int64_t cost) except -1
    cdef int trim_topic(self, Topic topic) except -1
    cpdef object fit(self)
    cdef bint evict_from_all(self, Py_ssize_t index, bint spares_exempt) except -1
    cdef bint evict_oldest_spared(self) except -1
    cdef bint evict_oldest_unspared(self) except -1
    cdef bint has_spared(self, Topic topic) noexcept
    cdef int evict_at(self, Topic topic, Place place) except -1
    cdef int age(self, Frame frame, owners, int64_t age_ms) except -1
    cdef int evict_first(self, Topic topic) except -1
    cdef bint has_other_exempt(self, Topic topic, Place place) except -1
    cdef int forget(self, Frame frame, Bounds rule) except -1
    cdef int64_t next_tick(self) noexcept
    cdef int note_newest_gone(self, Place place) except -1
    cpdef object index(self, bytes own_id, position)
    cpdef object keep_extras(self, position, extras)
