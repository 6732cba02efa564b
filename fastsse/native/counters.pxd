# Counters of the sender thread, which is the only writer. The loop thread reads them without a
# lock.

from libc.stdint cimport int64_t, uint64_t

from fastsse.native.os cimport bump

cdef enum Reason:              # why a stream ended; the names are in _core.REASONS, in this order
    CLIENT_CLOSED
    RESET
    TIMEOUT
    CLIENT_DATA
    LAGGED
    DRAINED
    ENDED
    STOPPED
    LIFETIME
    KICKED
    EXPIRED                    # from here on: lost the right to the stream, see dismiss
    REVOKED
    NO_PONG
    REASON_COUNT

cdef enum:
    BUCKET_COUNT = 15          # 14 bounds and +Inf


cdef struct Counters:
    int64_t connections        # now
    int64_t connections_total
    int64_t blocked            # now
    int64_t deliveries
    int64_t sends
    int64_t bytes_sent
    int64_t heartbeats
    int64_t would_block        # sends that were refused or cut short by a full socket
    int64_t missed_edges       # blocked sockets that were found writable with no event
    int64_t skipped            # times that policy `skip` moved a connection to the newest event
    int64_t gaps_sent          # gap events sent for them: one for several skips of a stuck one
    int64_t lapped             # times that policy `latest` reduced a connection to newest values
    int64_t lag_bytes          # largest lag of a blocked connection, as the clock hand saw it
    int64_t ring_entries       # now, all channels
    int64_t ring_bytes         # now: event bytes that rings refer to (a shared frame counts in each)
    int64_t channels           # now
    int64_t announced          # frames that went to every stream
    int64_t direct             # frames that went to one stream
    int64_t pings
    int64_t pongs
    int64_t renewed
    int64_t passed_over        # events that the view of a channel left out
    int64_t conflated          # events that a rate left out for newer ones
    int64_t filter_errors      # evaluations of filters that were errors: no match
    int64_t envelopes          # twins with an envelope that were encoded
    int64_t revocations        # asked for; closed[REVOKED] has the streams that they ended
    int64_t closed[REASON_COUNT]
    int64_t latency[BUCKET_COUNT]
    int64_t latency_sum_us


cdef extern from * nogil:
    """
    /* Half a millisecond to ten seconds, in the steps that Prometheus users know. */
    static const uint64_t fastsse_bounds_us[] = {
        500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000,
        1000000, 2500000, 5000000, 10000000};
    """
    const uint64_t* BOUNDS_US "fastsse_bounds_us"


cdef inline int bucket_of(uint64_t latency_us) noexcept nogil:
    cdef int bucket = 0
    while bucket < BUCKET_COUNT - 1 and latency_us > BOUNDS_US[bucket]:
        bucket += 1
    return bucket


cdef inline void count_latency(Counters* counters, uint64_t latency_us, int64_t times) noexcept nogil:
    bump(&counters.latency[bucket_of(latency_us)], times)
    bump(&counters.latency_sum_us, <int64_t>latency_us * times)
