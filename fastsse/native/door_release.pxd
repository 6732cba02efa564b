# Letting OpenSSL go: the client's socket and the keys of a stream are given to the loop, which gives
# them to the stream's row. The row sends nothing meanwhile, so what is in the pair is all there is.
#
# Nothing has changed when a connection is kept.

from libc.stdint cimport uint32_t, uint64_t

from fastsse.native.door_table cimport (
    Door, GENERATIONS, KEPT, Notice, RELEASED, notice_new, notice_send, relay_end,
    visit_later)
from fastsse.native.openssl cimport SSL_has_pending, SSL_want, WANTS_TO_WRITE
from fastsse.native.os cimport bump, unwatch
from fastsse.native.record_seal cimport Seal
from fastsse.native.relay cimport (
    BROKE, DEAF, GOES_ON, IN_ENDED, IN_FULL, OPEN, OUT_ENDED, OUT_FULL, Relay, SHUT, Step, WAITS,
    copy_some)
from fastsse.native.wire_trace cimport BUSY, FITS, Fit, GONE, UNPROVEN, is_quiet, prove

cdef enum:
    # Visits in which what is under way must be copied: an answer of an earlier request at most.
    VISITS_MAX = 4


cdef inline Relay* open_row(Door* door, uint64_t number) noexcept nogil:
    """The open connection with a number; NULL if it has ended, or is ending."""
    cdef uint32_t slot = <uint32_t>number
    cdef Relay* relay
    if slot >= door.row_count or door.rows[slot] is NULL:
        return NULL
    relay = door.rows[slot]
    if relay.generation != <uint32_t>(number >> 32) or relay.phase != OPEN:
        return NULL
    return relay


cdef inline bint is_idle(Relay* relay) noexcept nogil:
    """Whether no byte is under way in either direction, here or in OpenSSL, and neither side ended."""
    return not relay.flags & (OUT_FULL | IN_FULL | OUT_ENDED | IN_ENDED | DEAF | SHUT) \
        and relay.out.bytes is NULL and relay.into.bytes is NULL \
        and not SSL_has_pending(relay.ssl) and SSL_want(relay.ssl) != WANTS_TO_WRITE \
        and is_quiet(relay.trace)


cdef inline Fit may_release(Door* door, Relay* relay, Seal* seal) noexcept nogil:
    cdef Step step = GOES_ON
    cdef uint32_t left = VISITS_MAX
    if relay.trace is NULL:
        return UNPROVEN
    if relay.trace.fit != FITS:
        return <Fit>relay.trace.fit
    while left and step == GOES_ON:
        step = copy_some(relay, door.scratch, door.options.pair_limit, False)
        left -= 1
    if step == BROKE:
        relay_end(door, relay)
        return GONE
    if step != WAITS or not is_idle(relay):
        return BUSY
    return FITS if prove(relay.trace, seal) else UNPROVEN


cdef inline void release_row(Door* door, Relay* relay, Notice* notice) noexcept nogil:
    """Gives both descriptors to a notice and frees the rest, OpenSSL's part too, which writes nothing
    more. The pair stays open, or the row would see the end of it first."""
    unwatch(door.poller, relay.net_fd)
    unwatch(door.poller, relay.pair_fd)
    notice.fd = relay.net_fd
    notice.pair_fd = relay.pair_fd
    relay.net_fd = relay.pair_fd = -1
    relay_end(door, relay)


cdef inline void release_or_keep(Door* door, uint64_t number, uint64_t asked) noexcept nogil:
    """Answers a stream that asks for its keys; `asked` is its handle."""
    cdef Notice* notice = notice_new(KEPT, -1)
    cdef Relay* relay = open_row(door, number)
    cdef Fit fit = GONE if relay is NULL else may_release(door, relay, &notice.seal)
    notice.number = asked
    notice.code = fit
    if fit == FITS:
        notice.kind = RELEASED
        release_row(door, relay, notice)
    elif fit != GONE:
        visit_later(&door.copies, relay)   # The kernel may have reported what is still to do.
    bump(&door.counters.kept[<int>fit], 1)
    notice_send(door, notice)
