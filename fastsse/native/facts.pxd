# Facts of an event in addition to its frame: the names of its topics, and its meta. The sender knows
# topics by numbers only, so a publish carries the names if a view may need them.

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from fastsse.native.frame cimport Text
from fastsse.native.memory cimport alloc, release

cdef enum:
    MASK_TOPICS_MAX = 128


cdef struct Facts:
    size_t size                # of the allocation
    uint32_t topic_count
    Text meta                  # a JSON object; absent: none
    # a Text for each topic follows, then the bytes of all


cdef struct Mask:              # some of an event's topics, by their places
    uint64_t[2] bits


cdef inline Text* facts_topics(Facts* facts) noexcept nogil:
    return <Text*>(<char*>facts + sizeof(Facts))


cdef inline char* facts_bytes(Facts* facts) noexcept nogil:
    return <char*>facts + sizeof(Facts) + facts.topic_count * sizeof(Text)


cdef inline Facts* facts_new(uint32_t topic_count, size_t bytes) noexcept nogil:
    """Allocates facts with room for the texts, which are not written yet."""
    cdef size_t size = sizeof(Facts) + topic_count * sizeof(Text) + bytes
    cdef Facts* facts = <Facts*>alloc(size)
    memset(facts, 0, sizeof(Facts))
    facts.size = size
    facts.topic_count = topic_count
    return facts


cdef inline void facts_free(Facts* facts) noexcept nogil:
    if facts is not NULL:
        release(facts, facts.size)


cdef inline Mask all_topics() noexcept nogil:
    cdef Mask mask
    mask.bits[0] = mask.bits[1] = <uint64_t>-1
    return mask


cdef inline Mask no_topics() noexcept nogil:
    cdef Mask mask
    mask.bits[0] = mask.bits[1] = 0
    return mask


cdef inline bint has_topic(Mask* mask, uint32_t place) noexcept nogil:
    return place < MASK_TOPICS_MAX and mask.bits[place >> 6] >> (place & 63) & 1


cdef inline void add_topic(Mask* mask, uint32_t place) noexcept nogil:
    if place < MASK_TOPICS_MAX:
        mask.bits[place >> 6] |= <uint64_t>1 << (place & 63)


cdef inline bint masks_equal(Mask left, Mask right) noexcept nogil:
    return left.bits[0] == right.bits[0] and left.bits[1] == right.bits[1]
