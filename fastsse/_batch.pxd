from libc.stdint cimport uint32_t, uint64_t


cdef inline list added(list column, object value, Py_ssize_t count):
    """A column of `count` values with the next one; None while it has only Nones."""
    if column is None:
        if value is None:
            return None
        column = [None] * count
    column.append(value)
    return column


cdef class SharedFields:
    cdef bytes event_type
    cdef bytes meta
    cdef uint32_t retry_ms
    cdef bint private
    cdef bint is_uuid


cdef class EventBatch:
    cdef readonly list topics
    cdef readonly list data
    # Of events that are objects; None in its place, or None for all: the columns say everything.
    cdef list events
    cdef bytearray kinds
    cdef list shared
    cdef list own_ids
    # Of appends to durable streams: their directives.
    cdef list asked

    cpdef object add(
        self, tuple topics, bytes data, unsigned char kind=*, SharedFields shared=*,
        bytes own_id=*, asked=*)


cdef class KeyedBatch:
    cdef readonly EventBatch events
    cdef readonly list keys
    cdef readonly list digests
    cdef list made

    cdef list as_list(self)


# An event of topics and data, which were checked, as an object.
cdef object plain_event(tuple topics, bytes data, unsigned char kind)


cdef class Entries:
    cdef list topics
    cdef list frames
    cdef list own_ids
    cdef list extras
    cdef list entries
    cdef object entry_type
    cdef object extras_type

    cdef object entry_at(self, Py_ssize_t index)
    cdef list as_list(self)


# As `encode_entries`, with one time for all.
cdef Entries encode_batch_now(positions, EventBatch batch, uint64_t time_ms)
cdef bint is_plain_batch(EventBatch batch) except -1
