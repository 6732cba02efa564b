# A buffer that grows. Its memory is counted, and kept for the next use until `buffer_free`.

from libc.string cimport memcpy

from fastsse.native.frame cimport Text
from fastsse.native.memory cimport release, resize

cdef enum:
    BUFFER_KEPT_BYTES = 64 * 1024


cdef struct Buffer:
    char* at
    size_t size
    size_t capacity


cdef inline void buffer_free(Buffer* buffer) noexcept nogil:
    release(buffer.at, buffer.capacity)
    buffer.at = NULL
    buffer.size = buffer.capacity = 0


cdef inline void buffer_clear(Buffer* buffer) noexcept nogil:
    """Empties it. The memory of an unusually large content is freed."""
    buffer.size = 0
    if buffer.capacity > BUFFER_KEPT_BYTES:
        buffer_free(buffer)


cdef inline char* buffer_room(Buffer* buffer, size_t more) noexcept nogil:
    """Makes room for `more` bytes, and returns where they can be written."""
    cdef size_t capacity = buffer.capacity
    if buffer.size + more > capacity:
        capacity = max(buffer.size + more, capacity + capacity // 2, <size_t>256)
        buffer.at = <char*>resize(buffer.at, buffer.capacity, capacity)
        buffer.capacity = capacity
    return buffer.at + buffer.size


cdef inline void buffer_put(Buffer* buffer, Text text) noexcept nogil:
    if text.size:
        memcpy(buffer_room(buffer, text.size), text.at, text.size)
        buffer.size += text.size


cdef inline void buffer_put_bytes(Buffer* buffer, const char* at, size_t size) noexcept nogil:
    memcpy(buffer_room(buffer, size), at, size)
    buffer.size += size


cdef inline void buffer_put_byte(Buffer* buffer, char byte) noexcept nogil:
    buffer_room(buffer, 1)[0] = byte
    buffer.size += 1
