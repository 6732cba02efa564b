from libc.stdint cimport uint64_t

from fastsse.native.place cimport Place


cdef class Positions:
    cdef Place first
    cdef Py_ssize_t count

    cdef Place at(self, Py_ssize_t index) noexcept


cdef class Clock:
    cdef readonly object _now_ms
    cdef Place last_place
    cdef readonly uint64_t time_ms

    cdef Place reserve(self, Py_ssize_t count) except *
