# From a readable socket to counted events: head, chunks, blocks, stamps, order.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memchr, memcmp, memcpy
from fastsse.swarm.native.chunks cimport CHUNK_BAD, CHUNK_END, chunks_decode
from fastsse.swarm.native.engine cimport BROADCASTS, Broadcast, Engine, CARRY_BYTES_MAX, HEAD_BYTES_MAX
from fastsse.swarm.native.events cimport BLOCK_FINISHED, Block, read_block, read_digits
from fastsse.swarm.native.head cimport Head, read_head
from fastsse.swarm.native.histogram cimport histogram_record
from fastsse.swarm.native.open cimport fail, finish, leave
from fastsse.swarm.native.order cimport (
    ARRIVED_AFTER_LOSS, ARRIVED_AFTER_NOTICE, ARRIVED_AGAIN, ARRIVED_LATE, Arrival, Sequence,
    add_sequence, announce_gap, arrive, find_sequence,
)
from fastsse.swarm.native.os cimport CLOCK_REALTIME, EAGAIN, EINTR, clock_us, errno, recv, swarm_add
from fastsse.swarm.native.stamp cimport Stamp, stamp_read
from fastsse.swarm.native.stats cimport (
    COUNT_BYTES, COUNT_COUNTED, COUNT_DATA_BYTES, COUNT_EARLY, COUNT_EVENTS, COUNT_EVENTS_SLOW,
    COUNT_GAPS_ANNOUNCED, COUNT_ID_DISORDERED, COUNT_ID_REPEATED, COUNT_LATE, COUNT_LOST,
    COUNT_LOST_ANNOUNCED, COUNT_REPEATED, COUNT_REPLAYED, COUNT_RESUMED, COUNT_SOURCES_REFUSED,
    COUNT_STAMPED, COUNT_STREAMS, Counter, GAUGE_STREAM, MEASURE_COMPLETION, MEASURE_FIRST,
    MEASURE_FIRST_BYTE, MEASURE_LATENCY, MEASURE_OPEN, MEASURE_RECONNECT, MEASURE_REPLAY,
    Measure, STATUS_204, STATUS_3XX, STATUS_4XX, STATUS_5XX, STATUS_OTHER_2XX, buckets_of,
)
from fastsse.swarm.native.table cimport (
    AT_START, BAD_RESPONSE, BAD_STREAM, Connection, ENDED, EOF, HAD_BYTES, HAS_HEAD, HAS_OWN_ID,
    HAS_POSITION, HEAD, IS_CHUNKED, IS_RESUMING, IS_SLOW, SKIP_LF, STATUS, STREAM, TOO_LARGE,
    forget_last_id, keep_carry,
)

cdef enum:
    ID_BYTES_MAX = 4096            # a longer one is not kept for resuming
    RETRY_MS_MAX = 24 * 3600 * 1000


cdef inline void count(Engine *engine, Counter counter, uint64_t by) noexcept nogil:
    swarm_add(&engine.stats.counters[<int>counter], by)


cdef inline void measure(Engine *engine, Measure which, uint64_t from_us) noexcept nogil:
    """The time from `from_us` to the last read, or 0 if the clock was set back between."""
    histogram_record(buckets_of(&engine.stats, which),
                     engine.now_us - from_us if engine.now_us > from_us else 0)


# --- ids -----------------------------------------------------------------------------------------

cdef inline bint read_position(const char *at, size_t length,
                               uint64_t *ms, uint64_t *n) noexcept nogil:
    """`<ms>-<n>` without leading zeros, so that writing the numbers gives the same text."""
    cdef const char *dash = <const char *>memchr(at, c'-', length)
    cdef size_t before, after
    if dash == NULL:
        return False
    before = dash - at
    after = length - before - 1
    if (before > 1 and at[0] == c'0') or (after > 1 and dash[1] == c'0'):
        return False
    return read_digits(at, before, ms) and read_digits(dash + 1, after, n)


cdef inline void judge_id(Engine *engine, Connection *connection,
                          uint64_t ms, uint64_t n) noexcept nogil:
    """Positions only rise on one connection, over its reconnects too."""
    if ms == connection.last_ms and n == connection.last_n:
        count(engine, COUNT_ID_REPEATED, 1)
    elif ms < connection.last_ms or (ms == connection.last_ms and n < connection.last_n):
        count(engine, COUNT_ID_DISORDERED, 1)


cdef inline void keep_own_id(Connection *connection, const char *at, size_t length) noexcept nogil:
    cdef char *kept = NULL
    if 0 < length <= ID_BYTES_MAX:
        kept = <char *>malloc(length)
    forget_last_id(connection)
    if kept != NULL:
        memcpy(kept, at, length)
        connection.own_id = kept
        connection.last_n = length
        connection.flags |= HAS_OWN_ID


cdef inline void take_id(Engine *engine, Connection *connection, Block *block) noexcept nogil:
    cdef uint64_t ms = 0, n = 0
    if not read_position(block.id, block.id_length, &ms, &n):
        keep_own_id(connection, block.id, block.id_length)
        return
    if connection.flags & HAS_POSITION:
        if block.data_lines:
            judge_id(engine, connection, ms, n)
    elif connection.flags & HAS_OWN_ID:
        forget_last_id(connection)
    connection.last_ms = ms
    connection.last_n = n
    connection.flags |= HAS_POSITION


# --- events --------------------------------------------------------------------------------------

cdef inline void follow_broadcast(Engine *engine, const Stamp *stamp) noexcept nogil:
    """Notes the first and the last of all connections to get an event that reaches them all."""
    cdef Broadcast *broadcast = &engine.broadcasts[
        (stamp.source * <uint32_t>2654435761 + stamp.count) % BROADCASTS]
    if broadcast.source != stamp.source or broadcast.count != stamp.count:
        broadcast.source = stamp.source
        broadcast.count = stamp.count
        broadcast.received = 0
        broadcast.first_us = engine.now_us
    broadcast.received += 1
    if broadcast.received == engine.stats.counters[<int>GAUGE_STREAM]:
        histogram_record(buckets_of(&engine.stats, MEASURE_FIRST),
                         broadcast.first_us - stamp.due_us
                         if broadcast.first_us > stamp.due_us else 0)
        measure(engine, MEASURE_COMPLETION, stamp.due_us)


cdef inline void judge_count(Engine *engine, Connection *connection,
                             const Stamp *stamp) noexcept nogil:
    cdef Sequence *sequence = find_sequence(&connection.sequences, stamp.source)
    cdef Arrival arrival
    cdef uint32_t missing = 0
    if sequence == NULL:
        if not add_sequence(&connection.sequences, stamp.source, stamp.count):
            count(engine, COUNT_SOURCES_REFUSED, 1)
        return
    arrival = arrive(sequence, stamp.count, &missing)
    if arrival == ARRIVED_AFTER_LOSS:
        count(engine, COUNT_LOST, missing)
    elif arrival == ARRIVED_AFTER_NOTICE:
        count(engine, COUNT_LOST_ANNOUNCED, missing)
    elif arrival == ARRIVED_LATE:
        count(engine, COUNT_LATE, 1)
    elif arrival == ARRIVED_AGAIN:
        count(engine, COUNT_REPEATED, 1)


cdef inline void take_stamp(Engine *engine, Connection *connection,
                            const Stamp *stamp) noexcept nogil:
    count(engine, COUNT_STAMPED, 1)
    if stamp.count:
        count(engine, COUNT_COUNTED, 1)
        judge_count(engine, connection, stamp)
    if connection.flags & IS_SLOW:
        return                     # its latency is its own doing
    if stamp.due_us < connection.since_us:
        count(engine, COUNT_REPLAYED, 1)
        measure(engine, MEASURE_REPLAY, stamp.due_us)
        return
    if stamp.due_us > engine.now_us:
        count(engine, COUNT_EARLY, 1)
    measure(engine, MEASURE_LATENCY, stamp.due_us)
    if stamp.count:
        follow_broadcast(engine, stamp)


cdef inline void take_event(Engine *engine, Connection *connection, Block *block) noexcept nogil:
    cdef Stamp stamp
    if block.kind_length >= 8 and memcmp(block.kind, b"fastsse.", 8) == 0:
        if block.kind_length == 11 and memcmp(block.kind, b"fastsse.gap", 11) == 0:
            count(engine, COUNT_GAPS_ANNOUNCED, 1)
            announce_gap(&connection.sequences)
        return
    count(engine, COUNT_EVENTS_SLOW if connection.flags & IS_SLOW else COUNT_EVENTS, 1)
    count(engine, COUNT_DATA_BYTES, block.data_bytes)
    if stamp_read(&stamp, block.data, block.data_length):
        take_stamp(engine, connection, &stamp)


cdef inline void take_block(Engine *engine, Connection *connection, Block *block,
                            int outcome) noexcept nogil:
    if block.has_retry:
        connection.retry_ms = <uint32_t>min(block.retry_ms, <uint64_t>RETRY_MS_MAX)
    if outcome == BLOCK_FINISHED:
        if block.has_id:
            take_id(engine, connection, block)
        if block.data_lines:
            take_event(engine, connection, block)
        if block.ended_by_cr:
            connection.flags |= SKIP_LF


# --- bytes ---------------------------------------------------------------------------------------

cdef inline size_t skip_mark(Connection *connection, const char *at, size_t length) noexcept nogil:
    """Bytes before the first line: a byte order mark at the start, a CRLF's second half.

    A mark that is not complete yet is left where it is, with AT_START still set.
    """
    if connection.flags & SKIP_LF and length:
        connection.flags &= ~<uint16_t>SKIP_LF
        return 1 if at[0] == c'\n' else 0
    if not connection.flags & AT_START or length == 0:
        return 0
    if length < 3 and memcmp(at, b"\xef\xbb\xbf", length) == 0:
        return 0
    connection.flags &= ~<uint16_t>AT_START
    return 3 if length >= 3 and memcmp(at, b"\xef\xbb\xbf", 3) == 0 else 0


cdef inline void take_body(Engine *engine, uint32_t index, char *at, size_t length) noexcept nogil:
    """Reads all whole blocks of a body's next bytes and keeps the rest for the next read."""
    cdef Connection *connection = &engine.connections[index]
    cdef const char *end = at + length
    cdef const char *place = at + skip_mark(connection, at, length)
    cdef Block block
    cdef int outcome = BLOCK_FINISHED
    while place < end and outcome == BLOCK_FINISHED:
        outcome = read_block(&block, place, end)
        place += block.taken
        take_block(engine, connection, &block, outcome)
    if end - place > CARRY_BYTES_MAX or not keep_carry(connection, place, end - place):
        finish(engine, index, TOO_LARGE)
    elif connection.flags & IS_CHUNKED and connection.chunks.state == CHUNK_END:
        finish(engine, index, ENDED)
    elif connection.chunks.state == CHUNK_BAD:
        finish(engine, index, BAD_STREAM)


cdef inline void open_stream(Engine *engine, uint32_t index, const Head *head) noexcept nogil:
    cdef Connection *connection = &engine.connections[index]
    count(engine, COUNT_STREAMS, 1)
    measure(engine, MEASURE_OPEN, connection.since_us)
    if connection.flags & IS_RESUMING:
        count(engine, COUNT_RESUMED, 1)
        measure(engine, MEASURE_RECONNECT, connection.cut_us)
    connection.flags |= HAS_HEAD
    if head.chunked:
        connection.flags |= IS_CHUNKED
    if connection.state == HEAD:
        leave(engine, connection, STREAM)


cdef inline Counter status_counter(int status) noexcept nogil:
    if status == 204:
        return STATUS_204
    if status < 300:
        return STATUS_OTHER_2XX
    return STATUS_3XX if status < 400 else (STATUS_4XX if status < 500 else STATUS_5XX)


cdef inline void take_head(Engine *engine, uint32_t index, char *at, size_t length) noexcept nogil:
    """Reads the response head, then what follows it as body."""
    cdef Connection *connection = &engine.connections[index]
    cdef Head head
    cdef int outcome = read_head(&head, at, length)
    if outcome < 0:
        finish(engine, index, BAD_RESPONSE)
    elif outcome == 0:
        if length > HEAD_BYTES_MAX or not keep_carry(connection, at, length):
            finish(engine, index, TOO_LARGE)
    elif head.status != 200:
        count(engine, status_counter(head.status), 1)
        finish(engine, index, STATUS)
    elif not head.event_stream:
        finish(engine, index, BAD_RESPONSE)
    else:
        open_stream(engine, index, &head)
        keep_carry(connection, NULL, 0)
        take_bytes(engine, index, at + head.taken, 0, length - head.taken)


cdef inline void take_bytes(Engine *engine, uint32_t index, char *at,
                            size_t carried, size_t fresh) noexcept nogil:
    """`carried` bytes kept from the last read and `fresh` new ones after them."""
    cdef Connection *connection = &engine.connections[index]
    if not connection.flags & HAS_HEAD:
        take_head(engine, index, at, carried + fresh)
        return
    if connection.flags & IS_CHUNKED:
        fresh = chunks_decode(&connection.chunks, at + carried, fresh)
    take_body(engine, index, at, carried + fresh)


cdef inline bint make_room(Engine *engine, size_t bytes) noexcept nogil:
    cdef char *grown
    if bytes > engine.buffer_bytes:
        grown = <char *>realloc(engine.buffer, bytes)
        if grown == NULL:
            return False
        engine.buffer = grown
        engine.buffer_bytes = bytes
    return True


cdef inline void end_of_stream(Engine *engine, uint32_t index) noexcept nogil:
    """FIN. A chunked body whose last chunk is missing was cut."""
    cdef Connection *connection = &engine.connections[index]
    if not connection.flags & HAD_BYTES:
        finish(engine, index, EOF)
    elif not connection.flags & HAS_HEAD:
        finish(engine, index, BAD_RESPONSE)
    else:
        finish(engine, index, EOF if connection.flags & IS_CHUNKED else ENDED)


cdef inline bint receive(Engine *engine, uint32_t index, size_t most) noexcept nogil:
    """One recv() of at most `most` bytes. True when there may be more to read now."""
    cdef Connection *connection = &engine.connections[index]
    cdef size_t carried = connection.carry_bytes
    cdef ssize_t fresh
    if not make_room(engine, carried + most):
        finish(engine, index, TOO_LARGE)
        return False
    fresh = recv(connection.fd, engine.buffer + carried, most, 0)
    if fresh < 0:
        if errno != EAGAIN and errno != EINTR:
            fail(engine, index, errno)
        return False
    if fresh == 0:
        end_of_stream(engine, index)
        return False
    engine.now_us = clock_us(CLOCK_REALTIME)
    count(engine, COUNT_BYTES, fresh)
    if not connection.flags & HAD_BYTES:
        connection.flags |= HAD_BYTES
        measure(engine, MEASURE_FIRST_BYTE, connection.since_us)
    if carried:
        memcpy(engine.buffer, connection.carry, carried)
    take_bytes(engine, index, engine.buffer, carried, fresh)
    return <size_t>fresh == most and connection.fd >= 0
