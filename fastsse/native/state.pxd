# The state of one sender: its options, the two queues, the table, the directory, scratch space.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from fastsse.native.channel cimport Channel, Directory
from fastsse.native.claims cimport Claim, Revoking
from fastsse.native.counters cimport Counters
from fastsse.native.frame cimport FrameData
from fastsse.native.look cimport Look
from fastsse.native.memory cimport Numbers
from fastsse.native.os cimport iovec, monotonic_us, pthread_t, relaxed_load
from fastsse.native.queue cimport Queue
from fastsse.native.record_seal cimport Sealer
from fastsse.native.sealed_row cimport SealedRow
from fastsse.native.stream_id cimport IdKey
from fastsse.native.table cimport BEAT_PADS, Conn, Notices, Pulse

cdef enum:
    VISIT_FRAMES = 256         # at most so many frames, and about so many bytes, in one visit
    VISIT_BYTES = 256 * 1024
    SENDS_PER_TURN = 256       # then commands and epoll events are handled
    EVENTS_PER_TURN = 512
    COMMANDS_PER_TURN = 1024
    DISCARDED_READS = 64       # of 1 KiB each, of a client that sends while its stream ends
    RECORDS_PER_VISIT = 16     # VISIT_BYTES in the largest records


cdef struct Options:           # fixed before the thread starts
    uint32_t max_connections
    uint32_t heartbeat_ds      # 0: none
    uint32_t max_lag_ds
    uint64_t max_lag_bytes
    uint32_t retry_ms
    uint32_t tick_ms
    uint32_t ping_ds           # 0: none
    uint32_t pong_timeout_ds   # 0: none
    uint32_t expiry_notice_ms  # 0: none
    uint32_t lifetime_ds       # 0: any
    uint8_t clean_end          # streams that are cut have a last chunk, as those that are over
    uint8_t seals              # rows may seal their own TLS records
    # Faults that tests inject; 0: none.
    uint32_t write_limit_bytes
    uint32_t refuse_every


# The ring's part of a send, the same for every connection with this cursor and coding.
cdef struct Span:
    Channel* channel           # NULL: nothing prepared
    uint64_t cursor
    uint8_t flags
    uint32_t first             # index in the ring
    uint32_t count
    size_t bytes
    uint8_t ends               # the stream ends after the last one
    uint64_t last_sequence
    int64_t events
    uint64_t oldest_us
    uint64_t newest_us
    iovec parts[VISIT_FRAMES]


cdef struct Drain:
    uint8_t on
    uint32_t window_ms
    uint64_t began_us
    uint32_t total             # connections when it began
    uint32_t done
    uint32_t slot              # where its walk over the table stands


cdef struct State:
    Options options
    Queue queue
    Notices notices
    Counters counters
    Directory directory
    Conn* conns
    Claim* claims              # a second table, for the rows that are CLAIMED
    Pulse* pulses              # a third table, for the rows that are PINGED
    SealedRow* sealed          # a fourth table; NULL unless the options say `seals`
    Sealer* sealer             # with it
    Revoking revoking
    uint64_t claims_given      # claims and revocations, see Claim.given
    IdKey id_key
    uint32_t used_slots        # slots that were ever attached: the table's end for walks
    int32_t poller
    pthread_t thread
    uint8_t running
    uint64_t began_us
    uint64_t now_us            # read once a turn, and before latency is counted
    uint64_t wall_ms           # unix; read once a tick, so that a clock that was set right counts
    int64_t clock_ahead_us     # tests advance the clock by it
    int64_t records_max        # of a key; tests lower it
    int64_t sealed_count       # rows that seal their records
    uint64_t sequence          # of the newest publish
    uint64_t random
    uint64_t next_tick_us
    uint64_t hand_moved_us
    uint32_t clock_hand        # slot that the next slice begins with
    int64_t lag_seen_bytes     # largest in the round of the clock hand that is under way
    uint32_t first_ready       # connections that are due a visit of their own
    uint32_t last_ready
    Channel* first_work        # channels with something to send, taking turns
    Channel* last_work
    uint32_t sends_left        # in this turn
    uint32_t send_calls        # for `refuse_every`
    Drain drain
    Numbers over               # channels whose topics have all ended, see `ending`
    uint32_t over_hand
    uint32_t ends_left         # streams that may end so in this tick
    uint8_t has_new_ends
    FrameData* heartbeats[BEAT_PADS]
    FrameData* last_chunk
    FrameData* blank           # a comment, sent instead of an event that expired
    Span span
    iovec parts[VISIT_FRAMES]
    Look look                  # at the event that is being published
    Numbers rated              # channels in which something waits for its tick
    uint64_t next_rate_us      # when the first of them is due
    uint8_t is_over            # the visit under way sent the last event of its stream


cdef inline uint64_t read_clock(State* state) noexcept nogil:
    return monotonic_us() + <uint64_t>relaxed_load(&state.clock_ahead_us)


cdef inline uint32_t now_ds(State* state) noexcept nogil:
    return <uint32_t>((state.now_us - state.began_us) // 100_000)


cdef inline uint32_t random_below(State* state, uint32_t limit) noexcept nogil:
    """xorshift64*: spreads times; not for secrets."""
    state.random ^= state.random >> 12
    state.random ^= state.random << 25
    state.random ^= state.random >> 27
    return <uint32_t>(((state.random * 0x2545F4914F6CDD1Du) >> 32) % limit) if limit else 0
