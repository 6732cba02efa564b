from libc.stdint cimport uint64_t


cdef class EventBatch:
    cdef readonly list topics
    cdef readonly list data
    cdef list events
    cdef bytearray kinds

    cpdef object add(self, tuple topics, bytes data, unsigned char kind=*)


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
