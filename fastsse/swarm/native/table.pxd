# The connection table and a connection's life.
#
#   NEW ──▶ CONNECTING ──▶ HEAD ──▶ STREAM ──┐
#    ▲          │            │  └─▶ SLOW ────┤     SLOW: sent its request and reads little or nothing
#    │          └────────────┴──────────────▶│
#    │                                       ├──▶ WAITING ──▶ CONNECTING   (as a browser reconnects)
#    └─ churned: a new visitor in its place ─┤
#                                            └──▶ OVER   (a browser would have given up)
#
# About a hundred bytes each; a buffer only while an event is split between two reads.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from fastsse.swarm.native.chunks cimport Chunks
from fastsse.swarm.native.order cimport Sequences
from fastsse.swarm.native.os cimport swarm_add
from fastsse.swarm.native.stats cimport GAUGE_NEW, Stats

cdef enum State:              # the order of the gauges in _stats.pxd
    NEW
    CONNECTING
    HEAD
    STREAM
    SLOW
    WAITING
    OVER

cdef enum Reason:             # the order of the END_ counters in _stats.pxd
    ENDED                     # last chunk, or FIN on a stream without chunks
    EOF                       # FIN in the middle of the chunked body
    RESET
    REFUSED
    TIMED_OUT
    STATUS                    # not a 200
    BAD_RESPONSE              # not HTTP, or a 200 that is no event stream
    BAD_STREAM                # chunked coding broken
    TOO_LARGE                 # an event or a head larger than the client keeps
    NO_PORT
    FD_LIMIT
    OTHER
    CHURNED
    CUT

cdef enum Flag:
    IS_SLOW = 1
    IS_CHUNKED = 2
    IS_RESUMING = 4           # it had a stream before
    HAS_POSITION = 8          # last id is (last_ms, last_n)
    HAS_OWN_ID = 16           # last id is the text own_id, last_n bytes long
    HAD_BYTES = 32            # the response has begun
    AT_START = 64             # a byte order mark may still come
    SKIP_LF = 128             # the last byte was a CR that ended a line
    HAS_HEAD = 256            # a 200's head was read: what follows is its body

cdef struct Connection:
    int fd
    uint16_t flags
    uint8_t state
    uint32_t generation       # distinguishes it in epoll's data from the fd's former use
    Chunks chunks
    uint32_t retry_ms
    uint32_t carry_bytes
    char *carry
    uint64_t since_us         # connect() of this attempt, real-time clock
    uint64_t cut_us           # when the last stream ended
    uint64_t last_ms
    uint64_t last_n
    char *own_id
    Sequences sequences


cdef inline void move_to(Stats *stats, Connection *connection, State state) noexcept nogil:
    swarm_add(&stats.counters[<int>GAUGE_NEW + connection.state], <uint64_t>-1)
    connection.state = <uint8_t>state
    swarm_add(&stats.counters[<int>GAUGE_NEW + <int>state], 1)


cdef inline bint keep_carry(Connection *connection, const char *at, size_t length) noexcept nogil:
    """Keeps the bytes of an unfinished event (none: frees). False when there is no memory."""
    cdef char *kept = NULL
    if length:
        if length == connection.carry_bytes:
            memcpy(connection.carry, at, length)
            return True
        kept = <char *>malloc(length)
        if kept == NULL:
            return False
        memcpy(kept, at, length)
    free(connection.carry)
    connection.carry = kept
    connection.carry_bytes = <uint32_t>length
    return True


cdef inline void forget_last_id(Connection *connection) noexcept nogil:
    free(connection.own_id)
    connection.own_id = NULL
    connection.flags &= ~<uint16_t>(HAS_POSITION | HAS_OWN_ID)


cdef inline void become_new(Connection *connection) noexcept nogil:
    """Another visitor takes the place: nothing of the former one's stream is known any more."""
    forget_last_id(connection)
    free(connection.sequences.more)
    memset(&connection.sequences, 0, sizeof(Sequences))
    connection.flags &= <uint16_t>IS_SLOW
