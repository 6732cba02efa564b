"""The clock that gives out positions, and runs of them. The ground floor of `positions.py`."""

from collections.abc import Sequence

from libc.stdint cimport int64_t, uint64_t

from fastsse.native.place cimport Place, advanced, int_of, is_above, set_place

cdef extern from "<time.h>" nogil:
    struct timespec:
        int64_t tv_sec
        long tv_nsec
    int CLOCK_REALTIME
    int clock_gettime(int clock, timespec* time)


def now_ms():
    cdef timespec time
    clock_gettime(CLOCK_REALTIME, &time)
    return time.tv_sec * 1000 + time.tv_nsec // 1_000_000


cdef class Positions:
    def __init__(self, first, Py_ssize_t count):
        if count < 0:
            raise ValueError("a run of less than no positions")
        set_place(&self.first, first)
        self.count = count

    cdef Place at(self, Py_ssize_t index) noexcept:
        return advanced(self.first, <uint64_t>index)

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if isinstance(index, slice):
            return list(self)[index]
        cdef Py_ssize_t at = index
        if at < 0:
            at += self.count
        if not 0 <= at < self.count:
            raise IndexError("no such position")
        return int_of(self.at(at))

    def __iter__(self):
        cdef Py_ssize_t at
        return iter([int_of(self.at(at)) for at in range(self.count)])

    def __eq__(self, other):
        return len(self) == len(other) and list(self) == list(other)


Sequence.register(Positions)


cdef class Clock:
    def __init__(self, now_ms not None, last=0):
        self._now_ms = now_ms
        set_place(&self.last_place, last)

    @property
    def last(self):
        return int_of(self.last_place)

    @last.setter
    def last(self, position):
        set_place(&self.last_place, position)

    cdef Place reserve(self, Py_ssize_t count) except *:
        """Moves on by `count` (>= 1); the first place of these."""
        cdef Place now, first
        self.time_ms = self._now_ms()
        now.ms, now.n = self.time_ms, 0
        first = advanced(now if is_above(now, self.last_place) else self.last_place, 1)
        self.last_place = advanced(first, <uint64_t>(count - 1))
        return first

    def take(self, Py_ssize_t count):
        return int_of(self.reserve(count))

    def take_all(self, Py_ssize_t count):
        cdef Positions positions = Positions.__new__(Positions)
        positions.first = self.reserve(count)
        positions.count = count
        return positions

    def next(self):
        return self.take(1)
