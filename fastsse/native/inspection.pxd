# Figures of single connections for operators. The loop thread requests some rows, the sender fills
# in figures that only it may read, and the loop takes them when they are done. The loop owns the
# memory.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from fastsse.native.channel cimport Channel
from fastsse.native.lag cimport waiting_bytes
from fastsse.native.membership cimport conn_channel
from fastsse.native.memory cimport alloc, release
from fastsse.native.os cimport eventfd_write, store_u32
from fastsse.native.ring cimport ring_at, ring_find
from fastsse.native.state cimport State, now_ds
from fastsse.native.table cimport BLOCKED, CLOSED, Conn, FREE, LIVE

cdef enum:
    INSPECTED_ROWS_MAX = 256   # in one inspection: tens of microseconds of the sender
    INSPECTED_SLOTS_MAX = 4096 # looked at for blocked ones in one inspection
    INSPECTION_WORDS = 2       # numbers behind a command that carry the pointer


cdef struct Figures:
    uint64_t handle
    uint64_t events
    uint64_t bytes
    uint64_t lag_bytes
    uint32_t lag_ms            # age of the oldest event that is not sent
    uint32_t idle_ds           # since bytes went out last
    uint8_t state              # FREE: the sender does not have it, or no longer
    uint8_t flags


cdef struct Inspection:
    Inspection* next           # the loop's list, oldest first
    uint32_t number
    uint32_t capacity
    uint32_t count
    uint32_t next_slot         # of a search: where the next one goes on
    uint32_t done              # atomic: set by the sender after everything else


cdef inline Figures* inspection_rows(Inspection* inspection) noexcept nogil:
    return <Figures*>(<char*>inspection + sizeof(Inspection))


cdef inline size_t inspection_size(uint32_t capacity) noexcept nogil:
    return sizeof(Inspection) + capacity * sizeof(Figures)


cdef inline Inspection* inspection_new(uint32_t number, uint32_t capacity) noexcept nogil:
    cdef Inspection* inspection = <Inspection*>alloc(inspection_size(capacity))
    inspection.next = NULL
    inspection.number = number
    inspection.capacity = capacity
    inspection.count = 0
    inspection.next_slot = 0
    inspection.done = 0
    return inspection


cdef inline Inspection* inspection_free(Inspection* inspection) noexcept nogil:
    """Frees one and returns the next."""
    cdef Inspection* behind = inspection.next
    release(inspection, inspection_size(inspection.capacity))
    return behind


cdef inline uint32_t lag_ms(State* state, Channel* channel, Conn* conn) noexcept nogil:
    cdef uint32_t index = ring_find(&channel.ring, conn.cursor)
    if index == channel.ring.count or state.now_us < ring_at(&channel.ring, index).accepted_us:
        return 0
    return <uint32_t>((state.now_us - ring_at(&channel.ring, index).accepted_us) // 1000)


cdef inline void fill(State* state, Conn* conn, Figures* figures) noexcept nogil:
    figures.state = conn.state
    figures.flags = conn.flags
    figures.events = conn.events_sent
    figures.bytes = conn.bytes_sent
    figures.idle_ds = now_ds(state) - conn.touched_ds
    figures.lag_bytes = figures.lag_ms = 0
    if conn.state == LIVE:
        figures.lag_bytes = waiting_bytes(conn_channel(state, conn), conn)
        figures.lag_ms = lag_ms(state, conn_channel(state, conn), conn)


cdef inline void inspect_rows(State* state, Inspection* inspection) noexcept nogil:
    """The rows whose handles are given."""
    cdef Figures* rows = inspection_rows(inspection)
    cdef Conn* conn
    cdef uint32_t index
    for index in range(inspection.count):
        conn = &state.conns[<uint32_t>rows[index].handle]
        if conn.generation == <uint32_t>(rows[index].handle >> 32) and conn.state != CLOSED:
            fill(state, conn, &rows[index])
        else:
            rows[index].state = FREE


cdef inline void inspect_blocked(State* state, Inspection* inspection) noexcept nogil:
    """The next rows whose socket is full; `next_slot` is the table's size behind the last."""
    cdef Figures* rows = inspection_rows(inspection)
    cdef uint32_t slot = inspection.next_slot
    cdef uint32_t end = min(<uint64_t>slot + INSPECTED_SLOTS_MAX, state.used_slots)
    cdef Conn* conn
    while slot < end and inspection.count < inspection.capacity:
        conn = &state.conns[slot]
        if conn.state != FREE and conn.state != CLOSED and conn.flags & BLOCKED:
            rows[inspection.count].handle = slot | <uint64_t>conn.generation << 32
            fill(state, conn, &rows[inspection.count])
            inspection.count += 1
        slot += 1
    inspection.next_slot = slot if slot < state.used_slots else state.options.max_connections


cdef inline void on_inspect(State* state, Inspection* inspection, bint blocked) noexcept nogil:
    if blocked:
        inspect_blocked(state, inspection)
    else:
        inspect_rows(state, inspection)
    store_u32(&inspection.done, 1)
    eventfd_write(state.notices.fd, 1)
