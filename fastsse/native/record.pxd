# How a record lies in memory; `_records.pyx` describes the format. These functions find its parts
# where they are, copy nothing, and work without the GIL.

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy, memset

from fastsse.native.crc cimport crc32c_of

cdef enum:
    RECORD_HEAD = 8            # length and checksum
    ENTRY_HEAD = 32            # of the whole, what stands before the topics
    EVENT = 0
    CONTROL = 1
    PRIVATE = 1
    FIELD_HEAD = 5
    NUMBER_BYTES = 8
    KIND_MAX = 2               # the highest data kind that is known

# Tags of fields.
cdef enum:
    TIME = 1
    OWN_ID = 2
    EXPIRES = 3
    TYPE = 4
    DATA_KIND = 5
    PAYLOAD = 6
    KEY = 7
    META = 8
    TRACE = 9
    CONTROLS = 10              # of a draft: it is to be a control entry, which says this
    EXPECT = 11
    REQUEST = 12
    PRODUCER = 13
    STREAM = 14
    TAGS = 15                  # one more than the highest that is known

cdef struct Reader:
    const char* at
    const char* end


# What is wrong with a record.
cdef enum:
    WHOLE = 0
    CUT = 1
    DAMAGED = 2


cdef inline int find_record(
    const char* buffer, Py_ssize_t* at, Py_ssize_t end, int head, Reader* reader
) noexcept nogil:
    """Sets the reader on the record at a place, behind its first number, and moves the place."""
    cdef uint32_t behind
    if end - at[0] < head:
        return CUT
    memcpy(&behind, buffer + at[0], 4)
    if behind < <uint32_t>head - 4 or end - at[0] - 4 < behind:
        return CUT
    reader.at = buffer + at[0] + 4
    at[0] += 4 + <Py_ssize_t>behind
    reader.end = buffer + at[0]
    return WHOLE


cdef inline int find_sealed(
    const char* buffer, Py_ssize_t* at, Py_ssize_t end, int head, Reader* reader
) noexcept nogil:
    """As `find_record`, of a record that has a checksum; the reader stands behind that."""
    cdef uint32_t crc
    cdef int wrong = find_record(buffer, at, end, head, reader)
    if wrong:
        return wrong
    memcpy(&crc, reader.at, 4)
    reader.at += 4
    return WHOLE if crc == crc32c_of(reader.at, reader.end - reader.at) else DAMAGED


cdef struct Field:
    const char* at             # NULL: the field is absent
    Py_ssize_t size


cdef inline int find_fields(Reader* reader, uint32_t fields_bytes, Field* fields) noexcept nogil:
    """Finds the fields of known tags, and moves the reader behind all."""
    cdef const char* end
    cdef uint8_t tag, last = 0
    cdef uint32_t size
    memset(fields, 0, TAGS * sizeof(Field))
    if reader.end - reader.at < <Py_ssize_t>fields_bytes:
        return CUT
    end = reader.at + fields_bytes
    while reader.at < end:
        if end - reader.at < FIELD_HEAD:
            return CUT
        tag = <uint8_t>reader.at[0]
        memcpy(&size, reader.at + 1, 4)
        reader.at += FIELD_HEAD
        if tag <= last:
            return DAMAGED
        if end - reader.at < <Py_ssize_t>size:
            return CUT
        if tag < TAGS:
            fields[tag].at = reader.at
            fields[tag].size = size
        last = tag
        reader.at += size
    return WHOLE
