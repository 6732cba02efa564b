# How a connection begins and ends.

cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset
from fastsse.swarm.native.engine cimport OWN_VALUE, Engine, Template
from fastsse.swarm.native.heap cimport heap_push
from fastsse.swarm.native.histogram cimport histogram_record
from fastsse.swarm.native.os cimport (
    CLOCK_REALTIME, EADDRNOTAVAIL, EAGAIN, ECONNREFUSED, ECONNRESET, EINPROGRESS, EINTR, EMFILE,
    ENFILE, EPIPE, EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLL_CTL_ADD, ETIMEDOUT,
    MSG_NOSIGNAL, SOL_SOCKET, SO_RCVBUF, clock_us, close, connect, epoll_ctl, epoll_event,
    errno, open_socket, send, set_option, sockaddr, swarm_add, swarm_store,
)
from fastsse.swarm.native.stamp cimport put_number, put_text
from fastsse.swarm.native.stats cimport (
    COUNT_CHURNED, COUNT_CONNECTED, COUNT_CONNECTS, COUNT_CUT, END_ENDED, LAST_ERRNO,
    MEASURE_CONNECT, buckets_of,
)
from fastsse.swarm.native.table cimport (
    AT_START, BAD_RESPONSE, CHURNED, CONNECTING, CUT, Connection, FD_LIMIT, HAS_HEAD,
    HAS_OWN_ID, HAS_POSITION, HEAD, IS_RESUMING, IS_SLOW, NO_PORT, OTHER, OVER, REFUSED, RESET,
    Reason, SLOW, STATUS, State, TIMED_OUT, TOO_LARGE, WAITING, become_new, keep_carry, move_to,
)


cdef inline Reason reason_of(int error) noexcept nogil:
    if error == ECONNRESET or error == EPIPE:
        return RESET
    if error == ECONNREFUSED:
        return REFUSED
    if error == ETIMEDOUT:
        return TIMED_OUT
    if error == EADDRNOTAVAIL:
        return NO_PORT
    if error == EMFILE or error == ENFILE:
        return FD_LIMIT
    return OTHER


@cython.cdivision(True)     # there is a value where one is asked for
cdef inline char *put_value(char *at, const Template *request, uint32_t index) noexcept nogil:
    cdef uint32_t place = index % request.value_count
    cdef size_t begin = request.value_ends[place - 1] if place else 0
    return put_text(at, request.values + begin, request.value_ends[place] - begin)


@cython.cdivision(True)     # a modulus of 0 is looked at first
cdef inline size_t write_request(Engine *engine, uint32_t index) noexcept nogil:
    """Puts this connection's request into the request buffer; returns its length in bytes."""
    cdef Connection *connection = &engine.connections[index]
    cdef const Template *request = &engine.request
    cdef const char *text = request.text
    cdef char *at = engine.request_buffer
    cdef uint32_t i, number = engine.settings.first_number + index
    for i in range(request.pieces):
        at = put_text(at, text, request.piece_bytes[i])
        text += request.piece_bytes[i]
        if i + 1 == request.pieces:
            break
        if request.modulus[i] == <uint32_t>OWN_VALUE:
            at = put_value(at, request, index)
        else:
            at = put_number(at, number % request.modulus[i] if request.modulus[i] else number)
    if connection.flags & (HAS_POSITION | HAS_OWN_ID):
        at = put_text(at, b"Last-Event-ID: ", 15)
        if connection.flags & HAS_POSITION:
            at = put_number(at, connection.last_ms)
            at = put_text(at, b"-", 1)
            at = put_number(at, connection.last_n)
        else:
            at = put_text(at, connection.own_id, connection.last_n)
        at = put_text(at, b"\r\n", 2)
    return put_text(at, b"\r\n", 2) - engine.request_buffer


cdef inline void leave(Engine *engine, Connection *connection, State state) noexcept nogil:
    if connection.state == CONNECTING or connection.state == HEAD:
        engine.opening -= 1
    move_to(&engine.stats, connection, state)


cdef inline void wait_until(Engine *engine, uint32_t index, uint64_t pace_us) noexcept nogil:
    if heap_push(&engine.waiting, pace_us, index):
        leave(engine, &engine.connections[index], WAITING)
    else:
        leave(engine, &engine.connections[index], OVER)


cdef inline bint is_final(Reason reason) noexcept nogil:
    """Whether an EventSource gives up: it does so on an answer that is no stream (WHATWG HTML,
    "fail the connection"), and reconnects after anything that happened to the network."""
    return reason == STATUS or reason == BAD_RESPONSE or reason == TOO_LARGE


cdef inline void finish(Engine *engine, uint32_t index, Reason reason) noexcept nogil:
    """Ends a connection's attempt or stream and decides what becomes of it."""
    cdef Connection *connection = &engine.connections[index]
    if connection.fd >= 0:
        close(connection.fd)
        connection.fd = -1
    keep_carry(connection, NULL, 0)
    if connection.flags & HAS_HEAD:
        connection.cut_us = clock_us(CLOCK_REALTIME)
        connection.flags |= IS_RESUMING
    if reason == CHURNED:
        swarm_add(&engine.stats.counters[<int>COUNT_CHURNED], 1)
        become_new(connection)
        wait_until(engine, index, engine.pace_us)
    elif reason == CUT:
        swarm_add(&engine.stats.counters[<int>COUNT_CUT], 1)
        wait_until(engine, index, engine.pace_us)
    else:
        swarm_add(&engine.stats.counters[<int>END_ENDED + <int>reason], 1)
        if is_final(reason) or not engine.settings.reconnects:
            leave(engine, connection, OVER)
        else:
            wait_until(engine, index, engine.pace_us + 1000 * <uint64_t>connection.retry_ms)


cdef inline void fail(Engine *engine, uint32_t index, int error) noexcept nogil:
    swarm_store(&engine.stats.counters[<int>LAST_ERRNO], <uint64_t>error)
    finish(engine, index, reason_of(error))


cdef inline void send_request(Engine *engine, uint32_t index) noexcept nogil:
    """Sends the request if the handshake is over. Over loopback it is when connect() returns."""
    cdef Connection *connection = &engine.connections[index]
    cdef size_t length = write_request(engine, index)
    cdef ssize_t sent = send(connection.fd, engine.request_buffer, length, MSG_NOSIGNAL)
    cdef int error = errno
    if sent < 0:
        if error != EAGAIN and error != EINTR:
            fail(engine, index, error)
        return
    if <size_t>sent < length:
        finish(engine, index, OTHER)      # a fresh socket's buffer is larger than any request
        return
    swarm_add(&engine.stats.counters[<int>COUNT_CONNECTED], 1)
    histogram_record(buckets_of(&engine.stats, MEASURE_CONNECT),
                     clock_us(CLOCK_REALTIME) - connection.since_us)
    if connection.flags & IS_SLOW:
        leave(engine, connection, SLOW)
    else:
        move_to(&engine.stats, connection, HEAD)


@cython.cdivision(True)     # with sources there is at least one
cdef inline const sockaddr *source_of(Engine *engine, uint32_t index) noexcept nogil:
    cdef uint32_t place
    if engine.sources == NULL:
        return NULL
    place = (engine.settings.first_number + index) % engine.source_count
    return <const sockaddr *>(engine.sources + place * engine.address_bytes)


cdef inline bint watch(Engine *engine, uint32_t index) noexcept nogil:
    """Registers the socket once, edge-triggered; a slow one without wake-ups for what it has."""
    cdef Connection *connection = &engine.connections[index]
    cdef epoll_event event
    event.events = EPOLLRDHUP | EPOLLET
    if connection.state == CONNECTING:
        event.events |= EPOLLOUT
    if not connection.flags & IS_SLOW:
        event.events |= EPOLLIN
    event.data.u64 = (<uint64_t>connection.generation << 32) | index
    return epoll_ctl(engine.epoll, EPOLL_CTL_ADD, connection.fd, &event) == 0


cdef inline void start_attempt(Engine *engine, Connection *connection) noexcept nogil:
    """What a new attempt must not inherit; what a browser remembers stays."""
    if not connection.flags & IS_RESUMING:
        connection.retry_ms = engine.settings.default_retry_ms
    connection.generation += 1
    connection.flags &= <uint16_t>(IS_SLOW | IS_RESUMING | HAS_POSITION | HAS_OWN_ID)
    connection.flags |= AT_START
    memset(&connection.chunks, 0, sizeof(connection.chunks))
    connection.since_us = clock_us(CLOCK_REALTIME)
    swarm_add(&engine.stats.counters[<int>COUNT_CONNECTS], 1)
    move_to(&engine.stats, connection, CONNECTING)
    engine.opening += 1


cdef inline void begin(Engine *engine, uint32_t index) noexcept nogil:
    """Connects, and sends the request at once if it can."""
    cdef Connection *connection = &engine.connections[index]
    cdef int fd = open_socket(source_of(engine, index), engine.address_bytes, engine.family)
    start_attempt(engine, connection)
    if fd < 0:
        fail(engine, index, -fd)
        return
    connection.fd = fd
    if connection.flags & IS_SLOW and engine.settings.slow_buffer_bytes:
        set_option(fd, SOL_SOCKET, SO_RCVBUF, <int>engine.settings.slow_buffer_bytes)
    if connect(fd, <const sockaddr *>engine.target, engine.address_bytes) < 0 and (
        errno != EINPROGRESS
    ):
        fail(engine, index, errno)
        return
    send_request(engine, index)
    if connection.fd >= 0 and not watch(engine, index):
        fail(engine, index, errno)
