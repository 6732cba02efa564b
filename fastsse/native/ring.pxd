# A channel's ring: published events that some connection may still need. Entries have the sender's own
# sequence numbers, so a cursor stays valid when the ring is trimmed past it.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fastsse.native.frame cimport FrameData, frame_drop, frame_keep
from fastsse.native.memory cimport release, alloc


cdef struct Entry:
    FrameData* frame
    uint64_t sequence
    uint64_t end_bytes         # body bytes ever appended to this ring, this entry's included
    uint64_t accepted_us       # monotonic: when the publish was accepted
    uint8_t ends               # the streams of this channel end after it


cdef struct Ring:
    Entry* entries             # NULL while the ring is empty
    uint32_t capacity          # 0 or a power of two
    uint32_t start
    uint32_t count
    uint64_t appended_bytes
    uint64_t trimmed_through   # sequence of the newest entry that was dropped, 0 for none


cdef inline Entry* ring_at(Ring* ring, uint32_t index) noexcept nogil:
    return &ring.entries[(ring.start + index) & (ring.capacity - 1)]


cdef inline void ring_grow(Ring* ring) noexcept nogil:
    cdef uint32_t capacity = ring.capacity * 2 if ring.capacity else 4
    cdef Entry* entries = <Entry*>alloc(capacity * sizeof(Entry))
    cdef uint32_t first
    if ring.count:
        first = ring.capacity - ring.start
        if first > ring.count:
            first = ring.count
        memcpy(entries, &ring.entries[ring.start], first * sizeof(Entry))
        memcpy(&entries[first], ring.entries, (ring.count - first) * sizeof(Entry))
    release(ring.entries, ring.capacity * sizeof(Entry))
    ring.entries = entries
    ring.capacity = capacity
    ring.start = 0


cdef inline void ring_append(
        Ring* ring, FrameData* frame, uint64_t sequence, uint64_t accepted_us,
        bint ends) noexcept nogil:
    """Takes a reference of its own. `sequence` is higher than every earlier one."""
    cdef Entry* entry
    if ring.count == ring.capacity:
        ring_grow(ring)
    entry = ring_at(ring, ring.count)
    ring.count += 1
    ring.appended_bytes += frame.body_bytes
    entry.frame = frame_keep(frame)
    entry.sequence = sequence
    entry.end_bytes = ring.appended_bytes
    entry.accepted_us = accepted_us
    entry.ends = ends


cdef inline uint32_t ring_find(Ring* ring, uint64_t cursor) noexcept nogil:
    """Index of the first entry after `cursor`; `count` if there is none. O(1) if at most the newest
    is pending, else O(log n)."""
    cdef uint32_t low = 0
    cdef uint32_t high = ring.count
    cdef uint32_t middle
    if high == 0 or ring_at(ring, high - 1).sequence <= cursor:
        return high
    if high == 1 or ring_at(ring, high - 2).sequence <= cursor:
        return high - 1
    while low < high:
        middle = (low + high) // 2
        if ring_at(ring, middle).sequence <= cursor:
            low = middle + 1
        else:
            high = middle
    return low


cdef inline uint64_t ring_bytes_after(Ring* ring, uint64_t cursor) noexcept nogil:
    """Body bytes after a cursor. Of a trimmed part, only what is still known."""
    cdef uint32_t index = ring_find(ring, cursor)
    if index == ring.count:
        return 0
    return ring.appended_bytes - ring_at(ring, index).end_bytes \
        + ring_at(ring, index).frame.body_bytes


cdef inline void ring_free_entries(Ring* ring) noexcept nogil:
    release(ring.entries, ring.capacity * sizeof(Entry))
    ring.entries = NULL
    ring.capacity = 0
    ring.start = 0


cdef inline void ring_drop_first(Ring* ring) noexcept nogil:
    cdef Entry* entry = ring_at(ring, 0)
    ring.trimmed_through = entry.sequence
    frame_drop(entry.frame)
    ring.start = (ring.start + 1) & (ring.capacity - 1)
    ring.count -= 1
    if ring.count == 0:
        ring_free_entries(ring)


cdef inline void ring_clear(Ring* ring) noexcept nogil:
    while ring.count:
        ring_drop_first(ring)
