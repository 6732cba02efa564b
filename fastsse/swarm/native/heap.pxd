# Who is to connect again, and when: a binary heap of (due, connection).

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport realloc

cdef struct Due:
    uint64_t at_us
    uint32_t connection

cdef struct Heap:
    Due *items
    size_t count
    size_t room


cdef inline bint heap_push(Heap *heap, uint64_t at_us, uint32_t connection) noexcept nogil:
    """False when there is no memory. O(log n)."""
    cdef size_t place = heap.count, parent
    cdef size_t room
    cdef Due *grown
    if heap.count == heap.room:
        room = heap.room * 2 if heap.room else 64
        grown = <Due *>realloc(heap.items, room * sizeof(Due))
        if grown == NULL:
            return False
        heap.items = grown
        heap.room = room
    heap.count += 1
    while place:
        parent = (place - 1) // 2
        if heap.items[parent].at_us <= at_us:
            break
        heap.items[place] = heap.items[parent]
        place = parent
    heap.items[place].at_us = at_us
    heap.items[place].connection = connection
    return True


cdef inline uint32_t heap_pop(Heap *heap) noexcept nogil:
    """The connection that is due first; the heap must not be empty. O(log n)."""
    cdef uint32_t connection = heap.items[0].connection
    cdef Due last
    cdef size_t place = 0, child
    heap.count -= 1
    last = heap.items[heap.count]
    while True:
        child = 2 * place + 1
        if child >= heap.count:
            break
        if child + 1 < heap.count and heap.items[child + 1].at_us < heap.items[child].at_us:
            child += 1
        if last.at_us <= heap.items[child].at_us:
            break
        heap.items[place] = heap.items[child]
        place = child
    heap.items[place] = last
    return connection
