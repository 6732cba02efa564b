# What a connection remembers to judge order: for each source of counted events the newest count and
# which of the 64 before it have arrived (the anti-replay window of RFC 4303, appendix A2). It tells
# an event that is missing from one that is late and from one that came twice, in 16 bytes.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport realloc

cdef enum Arrival:
    ARRIVED_NEXT
    ARRIVED_AFTER_LOSS
    ARRIVED_AFTER_NOTICE  # the jump was announced by the server in band
    ARRIVED_LATE          # fills an earlier gap: out of order, not lost
    ARRIVED_AGAIN

cdef enum:
    WINDOW = 64
    SOURCES_MAX = 65535

cdef struct Sequence:
    uint64_t seen         # bit i: count `newest - i` has arrived; 0: a gap was announced since
    uint32_t source
    uint32_t newest

cdef struct Sequences:
    Sequence first        # most connections hear one source: no allocation
    Sequence *more
    uint16_t count
    uint16_t last         # where the last event was found


cdef inline Sequence *sequence_at(Sequences *sequences, unsigned int index) noexcept nogil:
    return &sequences.first if index == 0 else &sequences.more[index - 1]


cdef inline Sequence *find_sequence(Sequences *sequences, uint32_t source) noexcept nogil:
    """The sequence of `source`, NULL when it is new. O(sources of this connection), and O(1) for
    the same source again and for sources in turn."""
    cdef unsigned int tried, index = sequences.last
    cdef Sequence *sequence
    for tried in range(sequences.count):
        sequence = sequence_at(sequences, index)
        if sequence.source == source:
            sequences.last = <uint16_t>index
            return sequence
        index = index + 1 if index + 1 < sequences.count else 0
    return NULL


cdef inline bint add_sequence(Sequences *sequences, uint32_t source, uint32_t count) noexcept nogil:
    """Starts to follow `source` at `count`; False when memory or the number of sources ends.

    What stood before `count` was never owed to this connection: it counts as arrived.
    """
    cdef Sequence *grown
    cdef Sequence *sequence
    cdef unsigned int have = sequences.count
    if have == SOURCES_MAX:
        return False
    if have >= 1 and (have & (have - 1)) == 0:      # more[] has room for 1, 3, 7, 15 … entries
        grown = <Sequence *>realloc(sequences.more, (2 * have - 1) * sizeof(Sequence))
        if grown == NULL:
            return False
        sequences.more = grown
    sequences.count += 1
    sequence = sequence_at(sequences, have)
    sequence.source = source
    sequence.newest = count
    sequence.seen = <uint64_t>-1
    return True


cdef inline void announce_gap(Sequences *sequences) noexcept nogil:
    """The server said that events are missing: the next jump of each source is not a silent loss."""
    cdef unsigned int index
    for index in range(sequences.count):
        sequence_at(sequences, index).seen = 0


cdef inline Arrival arrive(Sequence *sequence, uint32_t count, uint32_t *missing) noexcept nogil:
    """Judges one event of a known source; `missing` is how many were jumped over."""
    cdef uint32_t ahead, behind
    cdef bint announced = sequence.seen == 0
    missing[0] = 0
    if count > sequence.newest:
        ahead = count - sequence.newest
        sequence.seen = (sequence.seen << ahead if ahead < WINDOW else 0) | 1
        sequence.newest = count
        missing[0] = ahead - 1
        if ahead == 1:
            return ARRIVED_NEXT
        return ARRIVED_AFTER_NOTICE if announced else ARRIVED_AFTER_LOSS
    behind = sequence.newest - count
    if announced or behind >= WINDOW or (sequence.seen >> behind) & 1:
        return ARRIVED_AGAIN
    sequence.seen |= <uint64_t>1 << behind
    return ARRIVED_LATE
