# A map from numbers to numbers: the topics of a channel with its place in each topic's list, and
# its grants. One pair is stored in place of the pointer, a few are searched one by one, more are
# hashed. Most channels have one topic, but a channel of a template may have a hundred thousand.

from libc.stdint cimport uint32_t
from libc.string cimport memset

from fastsse.native.memory cimport release, alloc

cdef enum:
    NO_KEY = 0xFFFFFFFF
    IN_TURN_MAX = 8            # up to this many are searched one by one


cdef struct Pair:
    uint32_t key
    uint32_t value


cdef union PairsAt:
    Pair only
    Pair* many


cdef struct Pairs:
    uint32_t count
    uint32_t capacity          # 0: at most one, in place; above IN_TURN_MAX: a hash table
    PairsAt at


cdef inline Pair* pairs_items(Pairs* pairs) noexcept nogil:
    return pairs.at.many if pairs.capacity else &pairs.at.only


cdef inline uint32_t pairs_end(Pairs* pairs) noexcept nogil:
    """One past the last of `pairs_items`. Items with NO_KEY are empty."""
    return pairs.capacity if pairs.capacity > IN_TURN_MAX else pairs.count


cdef inline uint32_t home_of(uint32_t key, uint32_t capacity) noexcept nogil:
    cdef uint32_t mixed = key * 0x9E3779B1u
    return (mixed ^ (mixed >> 15)) & (capacity - 1)


cdef inline Pair* probe(Pairs* pairs, uint32_t key) noexcept nogil:
    """In a hash table: the pair of the key, or the empty place for it."""
    cdef uint32_t index = home_of(key, pairs.capacity)
    while pairs.at.many[index].key != key and pairs.at.many[index].key != NO_KEY:
        index = (index + 1) & (pairs.capacity - 1)
    return &pairs.at.many[index]


cdef inline Pair* pairs_find(Pairs* pairs, uint32_t key) noexcept nogil:
    """The pair of that key, or NULL. O(1)."""
    cdef Pair* pair
    cdef uint32_t index
    if pairs.capacity > IN_TURN_MAX:
        pair = probe(pairs, key)
        return pair if pair.key == key else NULL
    for index in range(pairs.count):
        pair = &pairs_items(pairs)[index]
        if pair.key == key:
            return pair
    return NULL


cdef inline void pairs_free(Pairs* pairs) noexcept nogil:
    if pairs.capacity:
        release(pairs.at.many, pairs.capacity * sizeof(Pair))
    memset(pairs, 0, sizeof(Pairs))


cdef inline void pairs_resize(Pairs* pairs, uint32_t capacity) noexcept nogil:
    """Moves all into an array of that capacity, which has room for them and is a power of two."""
    cdef Pairs old = pairs[0]
    cdef uint32_t index
    cdef Pair* pair
    pairs.at.many = <Pair*>alloc(capacity * sizeof(Pair))
    pairs.capacity = capacity
    pairs.count = 0
    memset(pairs.at.many, 0xFF, capacity * sizeof(Pair))
    for index in range(pairs_end(&old)):
        pair = &pairs_items(&old)[index]
        if pair.key != NO_KEY:
            pairs_insert(pairs, pair.key, pair.value)
    pairs_free(&old)


cdef inline void pairs_insert(Pairs* pairs, uint32_t key, uint32_t value) noexcept nogil:
    """A new key, for which there is room."""
    cdef Pair* pair = probe(pairs, key) if pairs.capacity > IN_TURN_MAX \
        else &pairs_items(pairs)[pairs.count]
    pair.key = key
    pair.value = value
    pairs.count += 1


cdef inline void pairs_put(Pairs* pairs, uint32_t key, uint32_t value) noexcept nogil:
    cdef Pair* pair = pairs_find(pairs, key)
    if pair is not NULL:
        pair.value = value
        return
    if pairs.capacity > IN_TURN_MAX:
        if 4 * (pairs.count + 1) > 3 * pairs.capacity:
            pairs_resize(pairs, 2 * pairs.capacity)
    elif pairs.count == (pairs.capacity or 1):
        pairs_resize(pairs, 2 * (pairs.capacity or 1))
    pairs_insert(pairs, key, value)


cdef inline void close_up(Pairs* pairs, uint32_t hole) noexcept nogil:
    """Empties a place of a hash table, and moves later pairs up that a probe would no longer
    find."""
    cdef uint32_t mask = pairs.capacity - 1
    cdef uint32_t index = hole
    cdef uint32_t home
    pairs.at.many[hole].key = NO_KEY
    while True:
        index = (index + 1) & mask
        if pairs.at.many[index].key == NO_KEY:
            return
        home = home_of(pairs.at.many[index].key, pairs.capacity)
        if ((index - home) & mask) >= ((index - hole) & mask):
            pairs.at.many[hole] = pairs.at.many[index]
            pairs.at.many[index].key = NO_KEY
            hole = index


cdef inline void pairs_drop(Pairs* pairs, uint32_t key) noexcept nogil:
    cdef Pair* pair = pairs_find(pairs, key)
    if pair is NULL:
        return
    pairs.count -= 1
    if pairs.count == 0:
        pairs_free(pairs)
    elif pairs.capacity <= IN_TURN_MAX:
        pair[0] = pairs_items(pairs)[pairs.count]
    else:
        close_up(pairs, <uint32_t>(pair - pairs.at.many))
        if 8 * pairs.count < pairs.capacity and pairs.capacity > 2 * IN_TURN_MAX:
            pairs_resize(pairs, pairs.capacity // 2)
