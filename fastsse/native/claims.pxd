# The claims of a stream's token: until when and for whom the stream may live. Claims are in a
# second table, whose pages are touched only for streams with claims. A revocation ends the streams
# whose claims match it; it waits in a list for the next walk over the table.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fastsse.native.memory cimport release, alloc

cdef enum:
    REVOCATIONS_PER_WALK = 64
    CLAIM_WORDS = 12           # numbers behind a command that carry one


cdef struct Claim:
    uint64_t expires_ms        # unix; 0: never
    uint64_t subject           # a hash; 0: none
    uint64_t token             # a hash; 0: none
    uint64_t issued_s          # unix; 0: unknown, which is before any time
    uint64_t given             # running number of claims and revocations, by command
    uint8_t notified           # the loop knows that it expires soon


cdef struct Revocation:
    Revocation* next
    uint64_t subject           # of these three, 0 matches any
    uint64_t token
    uint64_t issued_before_s
    uint64_t given


cdef struct Revoking:
    Revocation* first
    Revocation* last
    uint32_t in_walk           # revocations in the walk under way, the first ones; 0: no walk
    uint32_t slot              # the next row of the walk


cdef inline bint is_named(Claim* claim, Revocation* by) noexcept nogil:
    """A revocation does not match claims that were given or renewed after it."""
    return claim.given < by.given \
        and (by.subject == 0 or claim.subject == by.subject) \
        and (by.token == 0 or claim.token == by.token) \
        and (by.issued_before_s == 0 or claim.issued_s < by.issued_before_s)


cdef inline bint is_revoked(Revoking* revoking, Claim* claim) noexcept nogil:
    cdef Revocation* by = revoking.first
    cdef uint32_t left = revoking.in_walk
    while left:
        if is_named(claim, by):
            return True
        by = by.next
        left -= 1
    return False


cdef inline void revoking_add(Revoking* revoking, Revocation what) noexcept nogil:
    cdef Revocation* added = <Revocation*>alloc(sizeof(Revocation))
    added[0] = what
    added.next = NULL
    if revoking.first is NULL:
        revoking.first = added
    else:
        revoking.last.next = added
    revoking.last = added


cdef inline void begin_walk(Revoking* revoking) noexcept nogil:
    cdef Revocation* at = revoking.first
    revoking.slot = 0
    revoking.in_walk = 0
    while at is not NULL and revoking.in_walk < REVOCATIONS_PER_WALK:
        revoking.in_walk += 1
        at = at.next


cdef inline void end_walk(Revoking* revoking) noexcept nogil:
    cdef Revocation* done
    while revoking.in_walk:
        done = revoking.first
        revoking.first = done.next
        release(done, sizeof(Revocation))
        revoking.in_walk -= 1


cdef inline void revoking_clear(Revoking* revoking) noexcept nogil:
    while revoking.first is not NULL:
        begin_walk(revoking)
        end_walk(revoking)
