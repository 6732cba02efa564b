# What other native modules of the package take from `_core`. They make no native allocation of
# their own, because what the core holds is counted in `_core` alone.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cimport cython
from fastsse.native.frame cimport FrameData, Text


@cython.final
cdef class Frame:
    cdef FrameData* data


cdef Frame encode_at(
    Text data, Text event, Text id, uint64_t retry_ms, bint private,
    uint64_t position_ms, uint64_t position_n, uint64_t time_ms, uint8_t data_kind)


# Publishes that the sender is given one after the other, with one look at the clock and one
# wake-up. `state` is the sender's.
cdef struct Run:
    void* state
    uint64_t accepted_us


cdef int run_begin(Run* run, sender) except -1
cdef int run_add(
    Run* run, Frame frame, uint32_t* topics, uint32_t count, int policy, tuple names,
    bytes meta) except -1
cdef void run_end(Run* run) noexcept


# What a sender was commanded and has not done; the bytes of all native allocations.
cdef int64_t commands_pending(sender) except -1
cdef int64_t bytes_held() noexcept
