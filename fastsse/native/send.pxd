# The system call of a visit. A row that seals sends TLS records instead of plain bytes: all frames of
# the visit in as few records as they fit in. A record counts as sent when it is sealed; what the socket
# did not take of it is kept and goes first in the next visit.

from libc.stdint cimport uint32_t

from fastsse.native.counters cimport CLIENT_CLOSED, RESET, bump
from fastsse.native.membership cimport end, set_blocked, slot_of
from fastsse.native.os cimport EAGAIN, EINTR, EPIPE, errno, iovec, send_parts
from fastsse.native.record_seal cimport ALERT, APPLICATION_DATA, seal_record, sealer_room
from fastsse.native.sealed_row cimport (
    Pieces, SEALS_ROW, SHUT_ROW, SealedRow, pieces_take, unsent_free, unsent_new, unsent_part)
from fastsse.native.state cimport RECORDS_PER_VISIT, State, now_ds
from fastsse.native.table cimport BLOCKED, Conn


cdef inline ssize_t send_to(State* state, Conn* conn, iovec* parts, uint32_t count) noexcept nogil:
    """Bytes that the kernel took; 0 when it would block; -1 when the connection is gone."""
    cdef ssize_t sent
    cdef iovec cut
    if state.options.refuse_every:
        state.send_calls += 1
        if state.send_calls % state.options.refuse_every == 0:
            return 0
    if state.options.write_limit_bytes:
        cut.iov_base = parts.iov_base
        cut.iov_len = min(parts.iov_len, <size_t>state.options.write_limit_bytes)
        sent = send_parts(conn.fd, &cut, 1)
    else:
        sent = send_parts(conn.fd, parts, count)
    bump(&state.counters.sends, 1)
    if sent >= 0:
        return sent
    return 0 if errno == EAGAIN or errno == EINTR else -1


cdef inline ssize_t send_now(State* state, Conn* conn, iovec* parts, uint32_t count) noexcept nogil:
    """As `send_to`. Of a row that seals, the plain bytes that are in sealed records. No plain byte goes
    to the socket of such a row: its phase changes with its socket."""
    if state.sealed is NULL or state.sealed[slot_of(state, conn)].seal.phase < SEALS_ROW:
        return send_to(state, conn, parts, count)
    return send_sealed(state, conn, parts, count)


# ---- records that are sealed here ----------------------------------------------------------------

cdef inline bint has_unsent(State* state, Conn* conn) noexcept nogil:
    """Whether the socket did not take all of a sealed record."""
    return state.sealed is not NULL and state.sealed[slot_of(state, conn)].unsent is not NULL


cdef inline bint send_record(State* state, Conn* conn, SealedRow* row, uint32_t size) noexcept nogil:
    """Sends the record in the sealer and keeps what the socket did not take. False: it is gone."""
    cdef iovec part
    cdef ssize_t sent
    part.iov_base = state.sealer.record
    part.iov_len = size
    sent = send_to(state, conn, &part, 1)
    if sent < 0:
        return False
    if <uint32_t>sent < size:
        row.unsent = unsent_new(state.sealer.record + sent, size - <uint32_t>sent)
    return True


cdef inline ssize_t send_sealed(
        State* state, Conn* conn, iovec* parts, uint32_t count) noexcept nogil:
    """Seals all frames of a visit into as few records as they fit in, until one is not taken whole."""
    cdef SealedRow* row = &state.sealed[slot_of(state, conn)]
    cdef Pieces pieces
    cdef ssize_t total = 0
    cdef uint32_t left = RECORDS_PER_VISIT
    cdef uint32_t plain
    cdef uint32_t size
    if row.seal.phase != SEALS_ROW:
        return -1              # close_notify is sealed; nothing may follow it
    pieces.parts = parts
    pieces.count = count
    pieces.offset = 0
    while pieces.count and left and row.unsent is NULL:
        plain = pieces_take(&pieces, sealer_room(state.sealer))
        size = seal_record(state.sealer, &row.seal, plain, APPLICATION_DATA)
        if size == 0 or not send_record(state, conn, row, size):
            return -1
        total += plain
        left -= 1
    return total


cdef inline void wait_for_room(State* state, Conn* conn) noexcept nogil:
    """The rest of a record waits, so the socket is full."""
    if conn.flags & BLOCKED:
        return
    bump(&state.counters.would_block, 1)
    if conn.offset == 0:
        conn.stalled_ds = now_ds(state)
    set_blocked(state, conn)


cdef inline bint send_unsent(State* state, Conn* conn) noexcept nogil:
    """Sends the rest of a record; returns whether all of it went, and the connection lives."""
    cdef SealedRow* row = &state.sealed[slot_of(state, conn)]
    cdef iovec part = unsent_part(row.unsent)
    cdef ssize_t sent = send_to(state, conn, &part, 1)
    if sent < 0:
        end(state, conn, CLIENT_CLOSED if errno == EPIPE else RESET)
        return False
    if sent:
        conn.touched_ds = now_ds(state)
    row.unsent.at += <uint32_t>sent
    if row.unsent.at < row.unsent.size:
        bump(&state.counters.would_block, 1)
        set_blocked(state, conn)
        return False
    unsent_free(row)
    return True


cdef inline bint is_shut(State* state, Conn* conn) noexcept nogil:
    """Seals close_notify (RFC 8446 §6.1) once everything else went; returns whether nothing waits for
    the socket."""
    cdef SealedRow* row = &state.sealed[slot_of(state, conn)]
    cdef uint32_t size
    if row.seal.phase == SEALS_ROW and row.unsent is NULL:
        sealer_room(state.sealer)[0] = 1
        sealer_room(state.sealer)[1] = 0
        size = seal_record(state.sealer, &row.seal, 2, ALERT)
        row.seal.phase = SHUT_ROW
        if size == 0 or not send_record(state, conn, row, size):
            return True        # The client is gone.
    if row.unsent is not NULL:
        wait_for_room(state, conn)
        return False
    return True
