# The state of one loop and what every part of it needs.

cimport cython
from libc.stdint cimport uint32_t, uint64_t
from fastsse.swarm.native.heap cimport Heap
from fastsse.swarm.native.os cimport epoll_event, sockaddr, socklen_t
from fastsse.swarm.native.stats cimport Stats
from fastsse.swarm.native.table cimport Connection

cdef enum:
    BATCH = 512                        # events asked of epoll at once
    READ_BYTES = 256 * 1024
    HEAD_BYTES_MAX = 64 * 1024
    CARRY_BYTES_MAX = 64 * 1024 * 1024 # one event that a connection may hold unfinished
    TICK_US = 100 * 1000
    BROADCASTS = 1024                  # events whose completion is followed at once (power of two)
    OWN_VALUE = 0x7fffffff             # a modulus: the connection's own value stands there

cdef struct Template:                  # the request: pieces with the connection's number between
    const char *text
    uint32_t *piece_bytes
    uint32_t *modulus                  # after piece i comes `number % modulus` (0: number)
    uint32_t pieces
    const char *values                 # of all connections, one after another; for OWN_VALUE
    size_t *value_ends
    uint32_t value_count

cdef struct Broadcast:                 # an event on its way to every connection
    uint64_t due_us
    uint64_t first_us
    uint64_t last_us
    uint32_t source
    uint32_t count
    uint32_t received

cdef struct Settings:
    double connects_per_s              # 0: as fast as `max_opening` allows
    double churn_per_s
    double slow_bytes_per_s            # 0: slow connections never read
    uint64_t open_timeout_us
    uint32_t default_retry_ms
    uint32_t max_opening
    uint32_t slow_buffer_bytes         # SO_RCVBUF of slow connections, 0: the kernel's
    uint32_t first_number
    bint reconnects

cdef struct Engine:
    int epoll
    int family
    int parent                         # the process whose end ends the loop, 0: none
    Connection *connections
    uint32_t count
    uint32_t next_new                  # connections below were opened at least once
    uint32_t opening                   # in CONNECTING or HEAD
    uint32_t clock_hand                # next connection whose deadline is looked at
    Heap waiting
    Stats stats
    Settings settings
    Template request
    const char *target
    const char *sources                # addresses one after another, NULL: not bound
    socklen_t address_bytes
    uint32_t source_count
    char *buffer                       # carry and fresh bytes stand one after another here
    size_t buffer_bytes
    char *request_buffer
    size_t request_buffer_bytes
    Broadcast *broadcasts
    uint64_t now_us                    # real-time clock, read after each recv()
    uint64_t pace_us                   # monotonic clock, read once a turn
    uint64_t began_us                  # monotonic
    uint64_t settled_us                # monotonic, 0: not all opened yet
    uint64_t next_tick_us              # monotonic
    uint64_t opened                    # new connections begun: what the pace is judged by
    uint64_t churned
    uint64_t cut
    uint32_t cut_hand                  # next connection that is cut when one is to be
    uint64_t random
    epoll_event events[BATCH]


@cython.cdivision(True)     # bound is never 0
cdef inline uint32_t random_below(Engine *engine, uint32_t bound) noexcept nogil:
    """xorshift64*: which streams are cut need not be secret."""
    engine.random ^= engine.random >> 12
    engine.random ^= engine.random << 25
    engine.random ^= engine.random >> 27
    return <uint32_t>(((engine.random * 2685821657736338717ULL) >> 33) % bound)


cdef inline uint64_t due_by_now(double per_s, uint64_t since_us, uint64_t now_us) noexcept nogil:
    """How many of something that happens `per_s` times a second should have happened."""
    return <uint64_t>(per_s * <double>(now_us - since_us) / 1e6)
