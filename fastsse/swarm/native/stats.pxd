# The measurements of a run: one block of 64-bit words, written by the loop alone and read by any process
# that maps it. Counters only rise and buckets only fill, so that the difference of two looks at the block
# is the measurement of the time between them. The first words are orders to the loop.

from libc.stdint cimport uint64_t
from fastsse.swarm.native.histogram cimport HISTOGRAM_LENGTH

cdef enum Order:
    ORDER_STOP                # 1: end all connections and return
    ORDER_CUT                 # cut this many streams (since the start of the run); they resume
    ORDERS = 8

cdef enum Counter:
    # how many connections are in each state now (see _table.pxd)
    GAUGE_NEW
    GAUGE_CONNECTING
    GAUGE_HEAD
    GAUGE_STREAM
    GAUGE_SLOW
    GAUGE_WAITING
    GAUGE_OVER
    # connections
    COUNT_CONNECTS
    COUNT_CONNECTED
    COUNT_STREAMS
    COUNT_RESUMED
    COUNT_CHURNED
    COUNT_CUT
    # what came over them
    COUNT_BYTES
    COUNT_EVENTS
    COUNT_EVENTS_SLOW
    COUNT_DATA_BYTES
    COUNT_STAMPED
    COUNT_COUNTED
    COUNT_REPLAYED
    COUNT_EARLY
    COUNT_LOST
    COUNT_LOST_ANNOUNCED
    COUNT_GAPS_ANNOUNCED
    COUNT_LATE
    COUNT_REPEATED
    COUNT_ID_REPEATED
    COUNT_ID_DISORDERED
    COUNT_SOURCES_REFUSED
    # why connections ended (the order of `Reason` in _table.pxd)
    END_ENDED
    END_EOF
    END_RESET
    END_REFUSED
    END_TIMED_OUT
    END_STATUS
    END_BAD_RESPONSE
    END_BAD_STREAM
    END_TOO_LARGE
    END_NO_PORT
    END_FD_LIMIT
    END_OTHER
    # answers other than 200
    STATUS_204
    STATUS_OTHER_2XX
    STATUS_3XX
    STATUS_4XX
    STATUS_5XX
    # the client itself
    COUNT_TURNS
    COUNT_CPU_US
    BEGAN_AT_US               # monotonic clock: the loop's start
    SETTLED_AT_US             # … when every connection had once been opened, 0 before
    LAST_ERRNO
    COUNTERS

cdef enum Measure:
    MEASURE_LATENCY           # due to read here, live events
    MEASURE_REPLAY            # the same for events older than their connection
    MEASURE_FIRST             # due to the first connection's receipt, for events that reach all
    MEASURE_COMPLETION        # due to the last connection's receipt
    MEASURE_CONNECT           # connect() to established
    MEASURE_FIRST_BYTE        # connect() to the response's first byte
    MEASURE_OPEN              # connect() to a 200's whole head
    MEASURE_RECONNECT         # a stream's end to its next 200
    MEASURE_TURN              # how long the loop was away from epoll: its own stall
    MEASURES

cdef enum:
    BLOCK_WORDS = ORDERS + COUNTERS + MEASURES * HISTOGRAM_LENGTH

cdef struct Stats:
    uint64_t *orders
    uint64_t *counters
    uint64_t *measures


cdef inline Stats stats_in(uint64_t *block) noexcept nogil:
    cdef Stats stats
    stats.orders = block
    stats.counters = block + <size_t>ORDERS
    stats.measures = block + <size_t>(ORDERS + COUNTERS)
    return stats


cdef inline uint64_t *buckets_of(Stats *stats, Measure measure) noexcept nogil:
    return stats.measures + <size_t>measure * HISTOGRAM_LENGTH
