# Every native allocation goes through here. So the core's memory is one number, which can be
# bounded (`memory_limit`), and tests can check that it returns to its earlier value.

from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy

from fastsse.native.os cimport out_of_memory, relaxed_add

cdef extern from * nogil:
    """
    static int64_t fastsse_native_bytes = 0;
    static int64_t fastsse_frames_alive __attribute__((unused)) = 0;
    """
    int64_t native_bytes "fastsse_native_bytes"
    int64_t frames_alive "fastsse_frames_alive"


cdef inline void* alloc(size_t size_bytes) noexcept nogil:
    cdef void* memory = malloc(size_bytes)
    if memory is NULL:
        out_of_memory()
    relaxed_add(&native_bytes, <int64_t>size_bytes)
    return memory


cdef inline void release(void* memory, size_t size_bytes) noexcept nogil:
    if memory is not NULL:
        relaxed_add(&native_bytes, -<int64_t>size_bytes)
        free(memory)


cdef inline void* resize(void* memory, size_t old_bytes, size_t new_bytes) noexcept nogil:
    cdef void* moved = realloc(memory, new_bytes)
    if moved is NULL:
        out_of_memory()
    relaxed_add(&native_bytes, <int64_t>new_bytes - <int64_t>old_bytes)
    return moved


# A list of numbers. Up to two of them are stored in place of the pointer, because most topics have
# one channel and most channels one topic.
cdef struct Numbers:
    uint32_t count
    uint32_t capacity          # 0 while the numbers are in place
    uint32_t* items


cdef inline uint32_t* numbers_items(Numbers* numbers) noexcept nogil:
    return numbers.items if numbers.capacity else <uint32_t*>&numbers.items


cdef inline void numbers_add(Numbers* numbers, uint32_t value) noexcept nogil:
    cdef uint32_t capacity
    cdef uint32_t* items
    if numbers.capacity == 0 and numbers.count == 2:
        items = <uint32_t*>alloc(8 * sizeof(uint32_t))
        memcpy(items, &numbers.items, 2 * sizeof(uint32_t))
        numbers.items = items
        numbers.capacity = 8
    elif numbers.capacity and numbers.count == numbers.capacity:
        capacity = numbers.capacity + numbers.capacity // 2
        numbers.items = <uint32_t*>resize(
            numbers.items, numbers.capacity * sizeof(uint32_t), capacity * sizeof(uint32_t))
        numbers.capacity = capacity
    numbers_items(numbers)[numbers.count] = value
    numbers.count += 1


cdef inline void numbers_clear(Numbers* numbers) noexcept nogil:
    if numbers.capacity:
        release(numbers.items, numbers.capacity * sizeof(uint32_t))
    numbers.count = 0
    numbers.capacity = 0
    numbers.items = NULL


cdef inline void numbers_drop_at(Numbers* numbers, uint32_t index) noexcept nogil:
    """Removes one by moving the last one into its place: O(1), changes the order."""
    cdef uint32_t* items = numbers_items(numbers)
    numbers.count -= 1
    items[index] = items[numbers.count]
    if numbers.count == 0:
        numbers_clear(numbers)
