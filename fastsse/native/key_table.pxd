# Publishers' keys in memory. Rows lie in blocks, in the order of their first use, so what is too old
# goes block by block. A hash table finds them. Owned by a `KeyRows`; used with the GIL.

from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from fastsse.native.place cimport Place
from fastsse.native.publish_head cimport Text

cdef enum:
    BLOCK_BYTES = 64 * 1024
    SLOTS_MIN = 64


cdef struct KeyRow:
    uint64_t hash
    int64_t until_ms           # unix time from which on it is not known any more
    Place place                # of its event, if that is the only one
    uint32_t key_bytes
    uint16_t digest_bytes
    bint is_gone               # no slot has it: its key was used again
    bint has_more              # its positions are kept elsewhere
    # the key and the digest follow


cdef struct KeyBlock:
    KeyBlock* next
    size_t begin               # where its first row is, counted from the first that it had
    size_t end                 # where the next row will be
    size_t size
    # rows follow


cdef struct KeySlot:
    uint64_t hash
    KeyRow* row                # NULL: free


cdef struct KeyTable:
    KeyBlock* first
    KeyBlock* last
    KeySlot* slots
    size_t capacity            # of slots: 0, or a power of two; at most a half is in use
    size_t count               # of rows with a slot


cdef inline char* row_key(KeyRow* row) noexcept nogil:
    return <char*>row + sizeof(KeyRow)


cdef inline char* row_digest(KeyRow* row) noexcept nogil:
    return row_key(row) + row.key_bytes


cdef inline size_t row_size(size_t key_bytes, size_t digest_bytes) noexcept nogil:
    """Bytes of a row in its block; the next one is aligned."""
    return (sizeof(KeyRow) + key_bytes + digest_bytes + 7) & ~<size_t>7


cdef inline KeyRow* keys_oldest(KeyTable* table) noexcept nogil:
    """The first row that was not taken off; NULL when there is none."""
    cdef KeyBlock* block = table.first
    if block is NULL or block.begin == block.end:
        return NULL
    return <KeyRow*>(<char*>block + sizeof(KeyBlock) + block.begin)


cdef inline void keys_take_oldest(KeyTable* table) noexcept:
    """Frees the first row, which has no slot."""
    cdef KeyBlock* block = table.first
    cdef KeyRow* row = keys_oldest(table)
    block.begin += row_size(row.key_bytes, row.digest_bytes)
    if block.begin < block.end:
        return
    if block.next is NULL:
        block.begin = block.end = 0
    else:
        table.first = block.next
        PyMem_Free(block)


cdef inline KeySlot* keys_find(KeyTable* table, uint64_t hash, Text key) noexcept nogil:
    """The slot of a key; NULL when it is not there."""
    cdef size_t at, mask = table.capacity - 1
    cdef KeySlot* slot
    if table.count == 0:
        return NULL
    at = hash & mask
    while True:
        slot = &table.slots[at]
        if slot.row is NULL:
            return NULL
        if (slot.hash == hash and slot.row.key_bytes == key.size
                and not memcmp(row_key(slot.row), key.at, key.size)):
            return slot
        at = (at + 1) & mask


cdef inline void keys_place(KeyTable* table, KeyRow* row) noexcept nogil:
    """Gives a slot to a row whose key has none. There is a free one."""
    cdef size_t mask = table.capacity - 1
    cdef size_t at = row.hash & mask
    while table.slots[at].row is not NULL:
        at = (at + 1) & mask
    table.slots[at].hash = row.hash
    table.slots[at].row = row
    table.count += 1


cdef inline void keys_free_slot(KeyTable* table, KeySlot* slot) noexcept nogil:
    """Frees a slot. Those behind it move up where their keys begin before it, so no search ends too
    early."""
    cdef size_t mask = table.capacity - 1
    cdef size_t hole = slot - table.slots, at = hole
    while True:
        at = (at + 1) & mask
        if table.slots[at].row is NULL:
            break
        if ((at - (table.slots[at].hash & mask)) & mask) >= ((at - hole) & mask):
            table.slots[hole] = table.slots[at]
            hole = at
    table.slots[hole].row = NULL
    table.count -= 1


cdef inline int keys_reserve(KeyTable* table, size_t more) except -1:
    """Makes free slots for so many rows."""
    cdef KeySlot* before = table.slots
    cdef size_t at, old = table.capacity, capacity = max(<size_t>SLOTS_MIN, old)
    while capacity < 2 * (table.count + more):
        capacity *= 2
    if capacity == old:
        return 0
    table.slots = <KeySlot*>PyMem_Calloc(capacity, sizeof(KeySlot))
    if table.slots is NULL:
        table.slots = before
        raise MemoryError
    table.capacity, table.count = capacity, 0
    for at in range(old):
        if before[at].row is not NULL:
            keys_place(table, before[at].row)
    PyMem_Free(before)
    return 0


cdef inline KeyRow* keys_append(KeyTable* table, uint64_t hash, Text key, Text digest) except NULL:
    """The newest row, with a slot; its times and positions are still to be set. The key is not in
    the table, and `keys_reserve` has made room."""
    cdef KeyBlock* block = table.last if table.first is not NULL else NULL
    cdef size_t size = row_size(key.size, digest.size)
    cdef size_t room = max(size, <size_t>BLOCK_BYTES)
    cdef KeyRow* row
    if block is NULL or block.size - block.end < size:
        block = <KeyBlock*>PyMem_Malloc(sizeof(KeyBlock) + room)
        if block is NULL:
            raise MemoryError
        block.next, block.begin, block.end, block.size = NULL, 0, 0, room
        if table.first is NULL:
            table.first = block
        else:
            table.last.next = block
        table.last = block
    row = <KeyRow*>(<char*>block + sizeof(KeyBlock) + block.end)
    block.end += size
    row.hash = hash
    row.key_bytes, row.digest_bytes = <uint32_t>key.size, <uint16_t>digest.size
    row.is_gone = row.has_more = False
    memcpy(row_key(row), key.at, key.size)
    memcpy(row_digest(row), digest.at, digest.size)
    keys_place(table, row)
    return row


cdef inline void keys_clear(KeyTable* table) noexcept:
    """Frees everything."""
    cdef KeyBlock* block
    while table.first is not NULL:
        block = table.first
        table.first = block.next
        PyMem_Free(block)
    PyMem_Free(table.slots)
    table.last = NULL
    table.slots = NULL
    table.capacity = table.count = 0
