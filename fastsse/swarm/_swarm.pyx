"""The native face of the load tools: very many SSE clients in one thread, and an open-loop publisher.

Both run without the GIL until they get the order to stop and write what they measure into a block of 64-bit words
that the caller gives them (an `mmap` that other processes see, or a `bytearray`). `fastsse.swarm`
plans runs, starts processes and reports; nothing here knows of more than one thread.

Over 400 lines: most are docstrings and checks of arguments.
"""

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from fastsse.swarm.native.chunks cimport CHUNK_BAD, CHUNK_END, Chunks, chunks_decode
from fastsse.swarm.native.engine cimport BROADCASTS, OWN_VALUE, READ_BYTES, Broadcast, Engine
from fastsse.swarm.native.events cimport BLOCK_FINISHED, Block, read_block
from fastsse.swarm.native.histogram cimport HISTOGRAM_LENGTH, histogram_index
from fastsse.swarm.native.loop cimport run_loop
from fastsse.swarm.native.order cimport Sequences, add_sequence, announce_gap, arrive, find_sequence
from fastsse.swarm.native.os cimport (
    CLOCK_REALTIME, EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLLIN, TFD_CLOEXEC, TFD_NONBLOCK, clock_us, close,
    epoll_create1, epoll_ctl, epoll_event, errno, timerfd_create,
)
from fastsse.swarm.native.post cimport (
    IN_BYTES, OUT_BYTES, PUBLISH_COUNTERS, PUBLISH_MEASURES, PUBLISH_ORDERS, PUBLISH_WORDS,
    Poster, Sent, Topic,
)
from fastsse.swarm.native.post cimport Publisher as PublisherState
from fastsse.swarm.native.publish cimport run_publisher
from fastsse.swarm.native.read cimport skip_mark
from fastsse.swarm.native.stamp cimport STAMP_BYTES_MIN, Stamp, stamp_read, stamp_write
from fastsse.swarm.native.stats cimport BLOCK_WORDS, COUNTERS, MEASURES, ORDERS, GAUGE_NEW, stats_in
from fastsse.swarm.native.table cimport (
    AT_START, IS_SLOW, SKIP_LF, Connection, forget_last_id, keep_carry,
)

import os

# The words of a block, in the order of `Order`, `Counter` and `Measure` in _stats.pxd.
ORDER_NAMES = ("stop", "cut", "", "", "", "", "", "")
COUNTER_NAMES = (
    "new", "connecting", "head", "stream", "slow", "waiting", "over",
    "connects", "connected", "streams", "resumed", "churned", "cut",
    "bytes", "events", "events_slow", "data_bytes", "stamped", "counted", "replayed", "early",
    "lost", "lost_announced", "gaps_announced", "late", "repeated",
    "id_repeated", "id_disordered", "sources_refused",
    "end_ended", "end_eof", "end_reset", "end_refused", "end_timed_out", "end_status",
    "end_bad_response", "end_bad_stream", "end_too_large", "end_no_port", "end_fd_limit",
    "end_other",
    "status_204", "status_other_2xx", "status_3xx", "status_4xx", "status_5xx",
    "turns", "cpu_us", "began_at_us", "settled_at_us", "last_errno",
)
MEASURE_NAMES = (
    "latency", "replay", "first", "completion", "connect", "first_byte", "open", "reconnect",
    "turn",
)
# The same for a publisher's block, in the order of _post.pxd.
PUBLISH_COUNTER_NAMES = (
    "requests", "events", "accepted", "events_accepted", "refused", "unknown", "unsent",
    "connects", "connects_failed", "bytes", "cpu_us", "last_status", "last_errno",
    "started_at_us", "ended_at_us",
)
PUBLISH_MEASURE_NAMES = ("delay", "answer", "total")
HISTOGRAM_BUCKETS = HISTOGRAM_LENGTH
VALUE = OWN_VALUE
BLOCK_BYTES = 8 * BLOCK_WORDS
PUBLISH_BLOCK_BYTES = 8 * PUBLISH_WORDS

assert len(PUBLISH_COUNTER_NAMES) == PUBLISH_COUNTERS
assert len(PUBLISH_MEASURE_NAMES) == PUBLISH_MEASURES
assert len(ORDER_NAMES) == PUBLISH_ORDERS
assert len(ORDER_NAMES) == ORDERS
assert len(COUNTER_NAMES) == COUNTERS
assert len(MEASURE_NAMES) == MEASURES


cdef class _Block:
    """Holds the caller's buffer for as long as a loop writes into it."""
    cdef Py_buffer view
    cdef bint held

    def __cinit__(self, target, size_t bytes):
        PyObject_GetBuffer(target, &self.view, PyBUF_WRITABLE)
        self.held = True
        if <size_t>self.view.len < bytes or <size_t>self.view.buf % 8:
            raise ValueError(f"the block must be {bytes} aligned bytes")

    cdef uint64_t *words(self) noexcept:
        return <uint64_t *>self.view.buf

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.view)


cdef class Swarm:
    """Very many SSE clients in one thread; see _swarm.pyi."""
    cdef Engine engine
    cdef _Block block
    cdef tuple keeps             # bytes objects that the engine points into
    cdef size_t value_bytes_max

    def __cinit__(self, block, *, uint32_t connections, target, request, int family,
                  sources=(), values=(), uint32_t first_number=0, double connects_per_s=0,
                  uint32_t max_opening=512, double open_timeout_s=30, bint reconnects=True,
                  double default_retry_s=3, double churn_per_s=0, double slow_share=0,
                  double slow_bytes_per_s=0, uint32_t slow_buffer_bytes=0,
                  int parent_pid=0):
        self.engine.epoll = -1
        self.block = _Block(block, BLOCK_BYTES)
        self.engine.stats = stats_in(self.block.words())
        self.engine.family = family
        self.engine.parent = parent_pid
        self.engine.settings.first_number = first_number
        self.engine.settings.connects_per_s = connects_per_s
        self.engine.settings.max_opening = max(1, max_opening)
        self.engine.settings.open_timeout_us = <uint64_t>(open_timeout_s * 1e6)
        self.engine.settings.reconnects = reconnects
        self.engine.settings.default_retry_ms = <uint32_t>(default_retry_s * 1e3)
        self.engine.settings.churn_per_s = churn_per_s
        self.engine.settings.slow_bytes_per_s = slow_bytes_per_s
        self.engine.settings.slow_buffer_bytes = slow_buffer_bytes
        self.engine.random = clock_us(CLOCK_REALTIME) | 1
        self._take_addresses(target, sources)
        self._take_values(values)
        self._take_request(request)
        self._make_table(connections, slow_share)

    cdef int _take_addresses(self, bytes target, sources) except -1:
        cdef bytes joined = b"".join(sources)
        if any(len(source) != len(target) for source in sources):
            raise ValueError("sources and target must be addresses of one family")
        self.keeps = (target, joined)
        self.engine.target = PyBytes_AS_STRING(target)
        self.engine.address_bytes = <uint32_t>len(target)
        if joined:
            self.engine.sources = PyBytes_AS_STRING(joined)
            self.engine.source_count = <uint32_t>len(sources)
        return 0

    cdef int _take_values(self, values) except -1:
        cdef size_t end = 0
        cdef uint32_t i, count = <uint32_t>len(values)
        cdef bytes joined = b"".join(values)
        self.keeps += (joined,)
        self.engine.request.values = PyBytes_AS_STRING(joined)
        self.engine.request.value_count = count
        if not count:
            return 0
        self.engine.request.value_ends = <size_t *>calloc(count, sizeof(size_t))
        if self.engine.request.value_ends == NULL:
            raise MemoryError
        for i in range(count):
            end += len(values[i])
            self.engine.request.value_ends[i] = end
            self.value_bytes_max = max(self.value_bytes_max, <size_t>len(values[i]))
        return 0

    cdef int _take_request(self, request) except -1:
        cdef uint32_t i, pieces = <uint32_t>len(request)
        cdef bytes text = b"".join(piece for piece, _ in request)
        self.keeps += (text,)
        self.engine.request.text = PyBytes_AS_STRING(text)
        self.engine.request.pieces = pieces
        self.engine.request.piece_bytes = <uint32_t *>calloc(pieces, sizeof(uint32_t))
        self.engine.request.modulus = <uint32_t *>calloc(pieces, sizeof(uint32_t))
        self.engine.request_buffer = <char *>malloc(
            len(text) + (20 + self.value_bytes_max) * pieces + 8192)
        if (self.engine.request.piece_bytes == NULL or self.engine.request.modulus == NULL
                or self.engine.request_buffer == NULL):
            raise MemoryError
        for i in range(pieces):
            self.engine.request.piece_bytes[i] = <uint32_t>len(request[i][0])
            self.engine.request.modulus[i] = <uint32_t>request[i][1]
            if self.engine.request.modulus[i] == OWN_VALUE and not self.engine.request.value_count:
                raise ValueError("the request has a place for a value, and there are none")
        return 0

    cdef int _make_table(self, uint32_t connections, double slow_share) except -1:
        cdef uint32_t i
        cdef Connection *connection
        self.engine.connections = <Connection *>calloc(max(1, connections), sizeof(Connection))
        self.engine.broadcasts = <Broadcast *>calloc(BROADCASTS, sizeof(Broadcast))
        self.engine.buffer = <char *>malloc(2 * READ_BYTES)
        self.engine.buffer_bytes = 2 * READ_BYTES
        if (self.engine.connections == NULL or self.engine.broadcasts == NULL
                or self.engine.buffer == NULL):
            raise MemoryError
        self.engine.count = connections
        for i in range(connections):
            connection = &self.engine.connections[i]
            connection.fd = -1
            if <uint64_t>((i + 1) * slow_share) > <uint64_t>(i * slow_share):
                connection.flags = IS_SLOW
        self.engine.stats.counters[<int>GAUGE_NEW] = connections
        return 0

    def run(self):
        self.engine.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.engine.epoll < 0:
            raise OSError(errno, os.strerror(errno))
        with nogil:
            run_loop(&self.engine)
            self._close_all()

    cdef void _close_all(self) noexcept nogil:
        cdef uint32_t i
        if self.engine.connections != NULL:
            for i in range(self.engine.count):
                if self.engine.connections[i].fd >= 0:
                    close(self.engine.connections[i].fd)
                    self.engine.connections[i].fd = -1
        if self.engine.epoll >= 0:
            close(self.engine.epoll)
            self.engine.epoll = -1

    def __dealloc__(self):
        cdef uint32_t i
        self._close_all()
        if self.engine.connections != NULL:
            for i in range(self.engine.count):
                keep_carry(&self.engine.connections[i], NULL, 0)
                forget_last_id(&self.engine.connections[i])
                free(self.engine.connections[i].sequences.more)
        free(self.engine.connections)
        free(self.engine.broadcasts)
        free(self.engine.buffer)
        free(self.engine.request_buffer)
        free(self.engine.request.piece_bytes)
        free(self.engine.request.modulus)
        free(self.engine.request.value_ends)
        free(self.engine.waiting.items)


cdef class Publisher:
    """An open-loop publisher in one thread; see _swarm.pyi."""
    cdef PublisherState state
    cdef _Block block
    cdef tuple keeps             # bytes objects that the state points into

    def __cinit__(self, block, *, target, int family, topics, bytes suffix=b"",
                  uint32_t connections=1, uint32_t depth=1, uint32_t batch=1,
                  size_t size_bytes=128, double requests_per_s=0, uint64_t begin_us=0,
                  double duration_s=10, double patience_s=10, uint32_t first_source=1):
        self.state.epoll = self.state.timer = -1
        if not topics or connections < 1 or depth < 1 or batch < 1:
            raise ValueError("topics, connections, depth and batch must be at least 1")
        if size_bytes < STAMP_BYTES_MIN:
            raise ValueError(f"a stamped event has at least {STAMP_BYTES_MIN} bytes")
        self.block = _Block(block, PUBLISH_BLOCK_BYTES)
        self.state.orders = self.block.words()
        self.state.counters = self.state.orders + <size_t>PUBLISH_ORDERS
        self.state.measures = self.state.counters + <size_t>PUBLISH_COUNTERS
        self.state.family = family
        self.state.target = PyBytes_AS_STRING(target)
        self.state.address_bytes = <uint32_t>len(target)
        self.state.depth = depth
        self.state.batch = batch
        self.state.event_bytes = size_bytes
        self.state.first_source = first_source
        self.state.interval_us = 1e6 / requests_per_s if requests_per_s > 0 else 0
        self.state.begin_us = begin_us or clock_us(CLOCK_REALTIME)
        self.state.end_us = self.state.begin_us + <uint64_t>(duration_s * 1e6)
        self.state.patience_us = <uint64_t>(patience_s * 1e6)
        self.keeps = (target,)
        self._take_topics(topics, suffix)
        self._make_posters(connections)

    cdef int _take_topics(self, topics, bytes suffix) except -1:
        cdef uint32_t i
        cdef bytes head, prefix
        self.state.topics = <Topic *>calloc(len(topics), sizeof(Topic))
        if self.state.topics == NULL:
            raise MemoryError
        self.state.topic_count = <uint32_t>len(topics)
        self.state.suffix = PyBytes_AS_STRING(suffix)
        self.state.suffix_bytes = <uint32_t>len(suffix)
        self.keeps += (suffix, topics)
        for i, (head, prefix) in enumerate(topics):
            self.state.topics[i].head = PyBytes_AS_STRING(head)
            self.state.topics[i].head_bytes = <uint32_t>len(head)
            self.state.topics[i].prefix = PyBytes_AS_STRING(prefix)
            self.state.topics[i].prefix_bytes = <uint32_t>len(prefix)
        largest_head = max(len(head) for head, _ in topics)
        largest_prefix = max(len(prefix) for _, prefix in topics)
        self.state.request_bytes = largest_head + 64 + self.state.batch * (
            largest_prefix + self.state.event_bytes + len(suffix))
        return 0

    cdef int _make_posters(self, uint32_t connections) except -1:
        cdef uint32_t i
        cdef Poster *poster
        self.state.counts = <uint32_t *>calloc(
            <size_t>connections * self.state.topic_count, sizeof(uint32_t))
        self.state.posters = <Poster *>calloc(connections, sizeof(Poster))
        if self.state.counts == NULL or self.state.posters == NULL:
            raise MemoryError
        for i in range(connections):
            self.state.posters[i].fd = -1
        self.state.poster_count = connections
        for i in range(connections):
            poster = &self.state.posters[i]
            poster.next_request = i
            poster.sent = <Sent *>calloc(self.state.depth, sizeof(Sent))
            poster.out = <char *>malloc(OUT_BYTES + self.state.request_bytes)
            poster.incoming = <char *>malloc(IN_BYTES)
            if poster.sent == NULL or poster.out == NULL or poster.incoming == NULL:
                raise MemoryError
        return 0

    def run(self):
        cdef epoll_event event
        self.state.epoll = epoll_create1(EPOLL_CLOEXEC)
        self.state.timer = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK | TFD_CLOEXEC)
        event.events = EPOLLIN
        event.data.u64 = self.state.poster_count
        if epoll_ctl(self.state.epoll, EPOLL_CTL_ADD, self.state.timer, &event) < 0:
            raise OSError(errno, os.strerror(errno))
        with nogil:
            run_publisher(&self.state)
            self._close_all()

    cdef void _close_all(self) noexcept nogil:
        cdef uint32_t i
        for i in range(self.state.poster_count):
            if self.state.posters[i].fd >= 0:
                close(self.state.posters[i].fd)
                self.state.posters[i].fd = -1
        if self.state.timer >= 0:
            close(self.state.timer)
        if self.state.epoll >= 0:
            close(self.state.epoll)
        self.state.timer = self.state.epoll = -1

    def __dealloc__(self):
        cdef uint32_t i
        self._close_all()
        for i in range(self.state.poster_count):
            free(self.state.posters[i].sent)
            free(self.state.posters[i].out)
            free(self.state.posters[i].incoming)
        free(self.state.posters)
        free(self.state.counts)
        free(self.state.topics)


# --- the parts, as their tests reach them ---------------------------------------------------------

def bucket_of(uint64_t value_us) -> int:
    """The histogram bucket that counts `value_us`."""
    return histogram_index(value_us)


def read_stamp(bytes data not None):
    """`fastsse.stamp.decode`, natively: (due_us, source, count) or None."""
    cdef Stamp stamp
    if stamp_read(&stamp, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)):
        return stamp.due_us, stamp.source, stamp.count
    return None


def write_stamp(uint64_t due_us, uint32_t source, uint32_t count, size_t size_bytes) -> bytes:
    """`fastsse.stamp.encode`, natively."""
    if size_bytes < STAMP_BYTES_MIN:
        raise ValueError(f"a stamped event has at least {STAMP_BYTES_MIN} bytes")
    cdef bytearray out = bytearray(size_bytes)
    cdef char *at = out
    stamp_write(at, size_bytes, due_us, source, count)
    return bytes(out)


def judge_counts(arrivals):
    """What a connection says to events (source, count), in turn; None announces a gap.

    Returns a list of (verdict, missing): "first", "next", "lost", "announced", "late", "again".
    """
    cdef Sequences sequences
    cdef uint32_t missing = 0
    memset(&sequences, 0, sizeof(Sequences))
    names = ("next", "lost", "announced", "late", "again")
    verdicts = []
    try:
        for arrival in arrivals:
            if arrival is None:
                announce_gap(&sequences)
                continue
            found = find_sequence(&sequences, arrival[0])
            if found == NULL:
                if not add_sequence(&sequences, arrival[0], arrival[1]):
                    raise MemoryError
                verdicts.append(("first", 0))
            else:
                verdicts.append((names[<int>arrive(found, arrival[1], &missing)], missing))
    finally:
        free(sequences.more)
    return verdicts


def decode_chunks(pieces) -> tuple:
    """Decodes a chunked body that came in `pieces`: (body, whether it is complete)."""
    cdef Chunks chunks
    cdef bytearray piece
    cdef char *at
    cdef size_t length
    memset(&chunks, 0, sizeof(Chunks))
    body = bytearray()
    for part in pieces:
        piece = bytearray(part)
        at = piece
        length = chunks_decode(&chunks, at, len(piece))
        body += piece[:length]
        if chunks.state == CHUNK_BAD:
            raise ValueError("not a chunked body")
    return bytes(body), chunks.state == CHUNK_END


def decode_events(pieces) -> list:
    """Reads an event stream that came in `pieces` as a connection of the swarm does.

    Returns (event type, first data line, bytes of all data, data lines, last id) of each event.
    """
    cdef Connection connection
    cdef Block block
    cdef bytes held = b""
    cdef const char *place
    cdef const char *end
    cdef int outcome
    memset(&connection, 0, sizeof(Connection))
    connection.flags = AT_START
    events = []
    last_id = b""
    for piece in pieces:
        held += piece
        place = PyBytes_AS_STRING(held)
        end = place + PyBytes_GET_SIZE(held)
        place += skip_mark(&connection, place, end - place)
        outcome = BLOCK_FINISHED
        while place < end and outcome == BLOCK_FINISHED:
            outcome = read_block(&block, place, end)
            place += block.taken
            if outcome == BLOCK_FINISHED:
                if block.ended_by_cr:
                    connection.flags |= SKIP_LF
                if block.has_id:
                    last_id = block.id[:block.id_length]
                if block.data_lines:
                    events.append((
                        block.kind[:block.kind_length], block.data[:block.data_length],
                        block.data_bytes, block.data_lines,
                        last_id,
                    ))
        held = place[:end - place]
    return events
