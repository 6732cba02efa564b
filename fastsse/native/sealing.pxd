# Rows whose TLS records are sealed here, from the moment at which the door lets OpenSSL go. A row
# waits for the door's answer from its attach on, so that nothing is sent in two ways.

from libc.stdint cimport uint32_t, uint64_t

from fastsse.native.counters cimport CLIENT_CLOSED, CLIENT_DATA, RESET, bump
from fastsse.native.farewell cimport begin_farewell, retry_frame
from fastsse.native.membership cimport (
    STREAM_EVENTS, clear_blocked, discard_input, end, make_ready, slot_of, tag_of)
from fastsse.native.os cimport MSG_DONTWAIT, close, recv, relaxed_load, unwatch, watch
from fastsse.native.queue cimport Command, command_topics
from fastsse.native.sealed_row cimport PLAIN_ROW, Release, SEALS_ROW, SealedRow, WAITS_ROW
from fastsse.native.state cimport State
from fastsse.native.table cimport BLOCKED, CLOSED, Conn, DRAINING

cdef extern from "sys/socket.h" nogil:
    enum:
        MSG_PEEK

cdef enum:
    # A stream ends in the last 16th of what its key may seal, and up to as much sooner by its slot.
    RESERVE_SHIFT = 4
    # The header of an alert's record says so many bytes: level, description, kind, tag.
    ALERT_RECORD_BYTES = 19


cdef inline bint is_sealed(State* state, Conn* conn) noexcept nogil:
    return state.sealed is not NULL and state.sealed[slot_of(state, conn)].seal.phase >= SEALS_ROW


cdef inline bint is_waiting(State* state, Conn* conn) noexcept nogil:
    return state.sealed is not NULL and state.sealed[slot_of(state, conn)].seal.phase == WAITS_ROW


cdef inline void begin_waiting(State* state, Conn* conn) noexcept nogil:
    """Blocks a row that is being attached. It is judged as any other that is blocked, so it ends if no
    answer comes. EPOLLOUT is not asked for: the pair has room."""
    state.sealed[slot_of(state, conn)].seal.phase = WAITS_ROW
    conn.flags |= BLOCKED
    bump(&state.counters.blocked, 1)


cdef inline Conn* waiting_row(State* state, Command* command) noexcept nogil:
    """The row that a command names, if it waits. It may be DRAINING already."""
    cdef Conn* conn = &state.conns[command.slot]
    if conn.generation != command.generation or conn.state == CLOSED \
            or not is_waiting(state, conn):
        return NULL
    return conn


cdef inline void end_waiting(State* state, Command* command) noexcept nogil:
    """OpenSSL goes on: the row sends plain bytes through the pair that it has."""
    cdef Conn* conn = waiting_row(state, command)
    if conn is not NULL:
        state.sealed[command.slot].seal.phase = PLAIN_ROW
        clear_blocked(state, conn)
        make_ready(state, conn)


cdef inline void change_over(State* state, Command* command) noexcept nogil:
    """Gives a row the client's socket and the keys. What is not taken ends with the command. Bytes
    that the client sent behind its request may be in the pair."""
    cdef Release* order = <Release*>command_topics(command)
    cdef Conn* conn = waiting_row(state, command)
    cdef SealedRow* row = &state.sealed[command.slot]
    cdef char byte
    cdef bint has_input
    if conn is NULL:
        return
    has_input = recv(conn.fd, &byte, 1, MSG_DONTWAIT) > 0
    unwatch(state.poller, conn.fd)
    close(conn.fd)
    conn.fd = order.net_fd
    order.net_fd = -1
    row.seal = order.seal
    row.seal.phase = SEALS_ROW
    bump(&state.sealed_count, 1)
    if watch(state.poller, conn.fd, tag_of(state, conn), STREAM_EVENTS):
        end(state, conn, RESET)
        return
    clear_blocked(state, conn)
    make_ready(state, conn)
    if has_input and conn.state != DRAINING:
        end_by_client(state, conn, False)


cdef inline void end_by_client(State* state, Conn* conn, bint is_close_notify) noexcept nogil:
    """Ends a stream in order. A client that did not ask for the end is sent its reconnection time."""
    begin_farewell(state, conn, CLIENT_CLOSED if is_close_notify else CLIENT_DATA,
                   NULL if is_close_notify else retry_frame(state),
                   state.options.clean_end and not is_close_notify)


cdef inline void on_sealed_input(State* state, Conn* conn) noexcept nogil:
    """Ends a stream whose client sent a record. It can't be read any more: it may be close_notify, a
    KeyUpdate, or data. Only its length is looked at, for the reason in the log."""
    cdef unsigned char[5] head
    cdef ssize_t got = recv(conn.fd, head, sizeof(head), MSG_PEEK | MSG_DONTWAIT)
    if got < 0:
        return
    if got == 0 or conn.flags & BLOCKED:
        end(state, conn, CLIENT_DATA if got else CLIENT_CLOSED)
        return
    discard_input(conn)
    end_by_client(state, conn, got == 5 and head[3] == 0 and head[4] == ALERT_RECORD_BYTES)


cdef inline bint has_few_records_left(State* state, Conn* conn) noexcept nogil:
    cdef uint64_t most = <uint64_t>relaxed_load(&state.records_max)
    cdef uint64_t reserve = most >> RESERVE_SHIFT
    return is_sealed(state, conn) and state.sealed[slot_of(state, conn)].seal.number >= \
        most - reserve - <uint32_t>(slot_of(state, conn) * 2654435761u) % reserve
