# A position as two numbers, and its change from and to Python's one int. For loops over many
# events: an int of 128 bits for each would cost as much as the rest of the loop.

from libc.stdint cimport uint64_t


cdef struct Place:
    uint64_t ms
    uint64_t n


cdef inline bint is_above(Place a, Place b) noexcept nogil:
    return a.ms > b.ms or (a.ms == b.ms and a.n > b.n)


cdef inline bint is_same(Place a, Place b) noexcept nogil:
    return a.ms == b.ms and a.n == b.n


cdef inline Place advanced(Place place, uint64_t count) noexcept nogil:
    """The place so many behind it."""
    place.n += count
    if place.n < count:
        place.ms += 1
    return place


cdef inline object int_of(Place place):
    return (<object>place.ms << 64) | place.n


cdef inline int set_place(Place* place, position) except -1:
    """Reads an int of up to 128 bits. A negative one counts as 0, where no event is."""
    if position < 0:
        place.ms = place.n = 0
        return 0
    place.ms = position >> 64
    place.n = position & <uint64_t>0xFFFFFFFFFFFFFFFF
    return 0
