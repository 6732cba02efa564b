# A log-linear histogram of microseconds with three significant digits: HdrHistogram's layout for
# (lowest 1, digits 3), so that bucket i here is bucket i there. Values from 2^32 us (71 min) are
# kept in the last bucket. Recording costs one shift and one addition.

from libc.stdint cimport uint64_t
from fastsse.swarm.native.os cimport swarm_add, swarm_top_bit

cdef enum:
    HISTOGRAM_HALF = 1024
    HISTOGRAM_LENGTH = 21 * HISTOGRAM_HALF + 2 * HISTOGRAM_HALF


cdef inline unsigned int histogram_index(uint64_t value_us) noexcept nogil:
    cdef int shift
    if value_us >> 32:
        return HISTOGRAM_LENGTH - 1
    shift = swarm_top_bit(value_us | (2 * HISTOGRAM_HALF - 1)) - 10
    return (shift * HISTOGRAM_HALF) + <unsigned int>(value_us >> shift)


cdef inline void histogram_record(uint64_t *buckets, uint64_t value_us) noexcept nogil:
    swarm_add(&buckets[histogram_index(value_us)], 1)
