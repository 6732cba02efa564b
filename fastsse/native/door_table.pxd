# The table of the door: its connections, the lists in which they wait, and its notices to the loop.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from fastsse.native.certificates cimport Certificates
from fastsse.native.memory cimport alloc, release, resize
from fastsse.native.os cimport (
    EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP, bump, cas_pointer, eventfd_write, load_pointer,
    pthread_t, relaxed_add, relaxed_load, relaxed_store, rewatch)
from fastsse.native.record_seal cimport Seal, seal_wipe
from fastsse.native.relay cimport (
    ADDRESS_BYTES, ENDED, FIRST, IN_FULL, OPEN, QUEUED, RECORD_BYTES, ROOM_ASKED, Relay,
    relay_clear)
from fastsse.native.wire_trace cimport FIT_COUNT

cdef enum:
    LISTENERS_MAX = 1024
    ROWS_MIN = 64
    # EPOLLOUT of a pair is requested only while it is full: a pair reports room after each read.
    PAIR_EVENTS = EPOLLIN | EPOLLRDHUP | EPOLLET
    PAIR_SIDE = 0x80000000     # in the lower half of a tag: the event is of the pair
    GENERATIONS = 0x7FFFFFFF

cdef enum NoticeKind:
    ACCEPTED                   # `fd` is the server's end of a pair
    PLAIN                      # `fd` is the client's socket: it began with text, not with TLS
    FAILED                     # a handshake failed with OpenSSL's error `code`; 0: another reason
    EXHAUSTED                  # accepting is paused
    RELEASED                   # `fd` is the client's socket, whose records are no longer OpenSSL's
    KEPT                       # OpenSSL goes on with the connection


cdef struct Notice:
    Notice* next
    unsigned long code
    uint64_t number            # of ACCEPTED: of the connection; of RELEASED and KEPT: as was asked
    int32_t fd
    int32_t pair_fd            # of RELEASED: the door's end of the pair
    uint8_t kind
    uint8_t source
    char[ADDRESS_BYTES] address
    Seal seal                  # of RELEASED


cdef struct DoorCounters:
    int64_t open               # connections that are being copied
    int64_t under_way          # handshakes, and connections without a request yet
    int64_t closing
    int64_t full               # handshakes
    int64_t resumed
    int64_t failed
    int64_t timed_out
    int64_t evicted
    int64_t left               # by the client, before a request
    int64_t plain
    int64_t kept[FIT_COUNT]    # streams by why OpenSSL goes on; FITS: it does not
    int64_t unclaimed          # notices with a descriptor that the loop has not taken


cdef struct DoorOptions:
    uint32_t handshakes_max
    uint32_t handshake_timeout_us
    int send_buffer_bytes
    bint releases              # connections may be released
    # For tests.
    uint32_t net_limit
    uint32_t net_refuse_every
    uint32_t pair_limit


# Connections with a deadline of one kind, the oldest first.
cdef struct Waiting:
    Relay* oldest
    Relay* newest


# Connections to visit, the first one first.
cdef struct Visits:
    Relay* first
    Relay* last


cdef struct Listening:
    int32_t fd
    uint8_t source


cdef struct Door:
    DoorOptions options
    DoorCounters counters
    pthread_t thread
    int32_t poller
    int32_t wake_fd
    int32_t notice_fd
    void* commands             # DoorCommand, newest first
    void* notices              # Notice, newest first
    int64_t failure_notified       # 1 while a notice of a failure is not taken yet
    Certificates* certificates
    Listening[LISTENERS_MAX] listeners
    uint32_t listener_count
    bint is_listening
    bint is_running
    uint64_t now_us
    uint64_t paused_until_us
    Relay** rows
    uint32_t row_count         # rows that were used once
    uint32_t row_capacity
    uint32_t* free_rows
    uint32_t free_count
    uint32_t generation
    Waiting hellos
    Waiting closings
    Visits shakes
    Visits copies
    char[RECORD_BYTES] scratch


# ---- lists ---------------------------------------------------------------------------------------

cdef inline void wait_in(Waiting* waiting, Relay* relay, uint64_t now_us) noexcept nogil:
    relay.since_us = now_us
    relay.newer = NULL
    relay.older = waiting.newest
    if waiting.newest is not NULL:
        waiting.newest.newer = relay
    else:
        waiting.oldest = relay
    waiting.newest = relay


cdef inline void wait_no_more(Waiting* waiting, Relay* relay) noexcept nogil:
    if relay.older is not NULL:
        relay.older.newer = relay.newer
    else:
        waiting.oldest = relay.newer
    if relay.newer is not NULL:
        relay.newer.older = relay.older
    else:
        waiting.newest = relay.older
    relay.older = relay.newer = NULL


cdef inline void visit_later(Visits* visits, Relay* relay) noexcept nogil:
    if relay.flags & QUEUED:
        return
    relay.flags |= QUEUED
    relay.next_queued = NULL
    if visits.first is NULL:
        visits.first = relay
    else:
        visits.last.next_queued = relay
    visits.last = relay


cdef inline Relay* next_visit(Visits* visits) noexcept nogil:
    cdef Relay* relay = visits.first
    if relay is not NULL:
        visits.first = relay.next_queued
        relay.flags &= <uint16_t>~QUEUED
    return relay


# ---- rows ----------------------------------------------------------------------------------------

cdef inline void row_alloc(Door* door, Relay* relay) noexcept nogil:
    cdef uint32_t capacity
    door.generation = (door.generation + 1) & GENERATIONS
    if door.free_count:
        door.free_count -= 1
        relay.slot = door.free_rows[door.free_count]
    else:
        if door.row_count == door.row_capacity:
            capacity = max(<uint32_t>ROWS_MIN, 2 * door.row_capacity)
            door.rows = <Relay**>resize(
                door.rows, door.row_capacity * sizeof(Relay*), capacity * sizeof(Relay*))
            door.free_rows = <uint32_t*>resize(
                door.free_rows, door.row_capacity * sizeof(uint32_t), capacity * sizeof(uint32_t))
            door.row_capacity = capacity
        relay.slot = door.row_count
        door.row_count += 1
    relay.generation = door.generation
    door.rows[relay.slot] = relay


cdef inline void row_release(Door* door, Relay* relay) noexcept nogil:
    door.rows[relay.slot] = NULL
    door.free_rows[door.free_count] = relay.slot
    door.free_count += 1
    release(relay, sizeof(Relay))


cdef inline void leave_phase(Door* door, Relay* relay) noexcept nogil:
    """Takes a connection out of the list and the count of its phase."""
    if relay.phase <= FIRST:
        wait_no_more(&door.hellos, relay)
        bump(&door.counters.under_way, -1)
    elif relay.phase == OPEN:
        bump(&door.counters.open, -1)
    elif relay.phase < ENDED:
        wait_no_more(&door.closings, relay)
        bump(&door.counters.closing, -1)


cdef inline void relay_end(Door* door, Relay* relay) noexcept nogil:
    """Closes a connection. A row that is in a queue is given back when its turn comes."""
    leave_phase(door, relay)
    relay.phase = ENDED
    relay_clear(relay)
    if not relay.flags & QUEUED:
        row_release(door, relay)


cdef inline uint64_t tag_of(Relay* relay, uint32_t side) noexcept nogil:
    return <uint64_t>relay.generation << 32 | side | relay.slot


# ---- notices -------------------------------------------------------------------------------------

cdef inline Notice* notice_new(uint8_t kind, int fd) noexcept nogil:
    cdef Notice* notice = <Notice*>alloc(sizeof(Notice))
    memset(notice, 0, sizeof(Notice))
    notice.kind = kind
    notice.fd = fd
    notice.pair_fd = -1
    return notice


cdef inline void notice_free(Notice* notice) noexcept nogil:
    if notice.kind == RELEASED:
        seal_wipe(&notice.seal)
    release(notice, sizeof(Notice))


cdef inline void notify(Door* door, Relay* relay, uint8_t kind, int fd, unsigned long code) noexcept nogil:
    cdef Notice* notice = notice_new(kind, fd)
    notice.code = code
    if relay is not NULL:
        notice.source = relay.source
        memcpy(notice.address, relay.address, ADDRESS_BYTES)
        if kind == ACCEPTED and door.options.releases:
            notice.number = tag_of(relay, 0)
    notice_send(door, notice)


cdef inline void notice_send(Door* door, Notice* notice) noexcept nogil:
    cdef Notice* older
    if notice.fd >= 0:
        relaxed_add(&door.counters.unclaimed, 1)
    while True:
        older = <Notice*>load_pointer(&door.notices)
        notice.next = older
        if cas_pointer(&door.notices, older, notice):
            break              # From here on the loop owns it, and may have freed it.
    if older is NULL:
        eventfd_write(door.notice_fd, 1)


cdef inline void notify_failure(Door* door, Relay* relay, unsigned long code) noexcept nogil:
    """Reports a failure, if the loop has taken the last one, so that a flood costs no memory. The
    counters count all."""
    if relaxed_load(&door.failure_notified) == 0:
        relaxed_store(&door.failure_notified, 1)
        notify(door, relay, FAILED, -1, code)


# ---- events of a pair ----------------------------------------------------------------------------

cdef inline void ask_for_room(Door* door, Relay* relay) noexcept nogil:
    """Requests EPOLLOUT of the pair while it is full, and only then."""
    cdef bint wanted = (relay.flags & IN_FULL) != 0 and relay.pair_fd >= 0
    if wanted == ((relay.flags & ROOM_ASKED) != 0):
        return
    relay.flags ^= ROOM_ASKED
    if relay.pair_fd >= 0:
        rewatch(door.poller, relay.pair_fd, tag_of(relay, PAIR_SIDE),
                PAIR_EVENTS | EPOLLOUT if wanted else PAIR_EVENTS)
