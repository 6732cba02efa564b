# Which channel a connection is in, and whether it is due a visit: the lists of what is to be visited,
# the rounds that say how much of a ring is still needed, and how a connection joins, is blocked, leaves
# and ends.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from fastsse.native.channel cimport Channel
from fastsse.native.counters cimport bump
from fastsse.native.memory cimport numbers_add, numbers_drop_at, numbers_items
from fastsse.native.os cimport (
    EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP, MSG_DONTWAIT, close, recv, rewatch, unwatch)
from fastsse.native.queue cimport nodes_free
from fastsse.native.record_seal cimport sealer_forget
from fastsse.native.ring cimport Entry, Ring, ring_at, ring_drop_first
from fastsse.native.sealed_row cimport SEALS_ROW, SealedRow, sealed_row_end
from fastsse.native.state cimport DISCARDED_READS, State, now_ds
from fastsse.native.table cimport (
    BLOCKED, CLOSED, Conn, LIVE, NONE, READY, STREAM_CLOSED, SUSPECT, notice_push)

cdef enum:
    STREAM_EVENTS = EPOLLIN | EPOLLRDHUP | EPOLLET


cdef inline uint32_t slot_of(State* state, Conn* conn) noexcept nogil:
    return <uint32_t>(conn - state.conns)


cdef inline Channel* conn_channel(State* state, Conn* conn) noexcept nogil:
    return state.directory.channels[conn.channel]


# ---- which connections are due a visit -----------------------------------------------------------

cdef inline void make_ready(State* state, Conn* conn) noexcept nogil:
    """Queues one connection for a visit of its own."""
    cdef uint32_t slot = slot_of(state, conn)
    if conn.flags & READY:
        return
    conn.flags |= READY
    conn.next_ready = NONE
    if state.first_ready == NONE:
        state.first_ready = slot
    else:
        state.conns[state.last_ready].next_ready = slot
    state.last_ready = slot


cdef inline Conn* next_ready(State* state) noexcept nogil:
    cdef Conn* conn
    if state.first_ready == NONE:
        return NULL
    conn = &state.conns[state.first_ready]
    state.first_ready = conn.next_ready
    conn.flags &= <uint8_t>~READY
    return conn


cdef inline void queue_work(State* state, Channel* channel) noexcept nogil:
    if channel.queued:
        return
    channel.queued = True
    channel.next_work = NULL
    if state.first_work is NULL:
        state.first_work = channel
    else:
        state.last_work.next_work = channel
    state.last_work = channel


cdef inline Channel* next_work(State* state) noexcept nogil:
    cdef Channel* channel = state.first_work
    if channel is not NULL:
        state.first_work = channel.next_work
        channel.queued = False
    return channel


# ---- rounds: what the slowest unblocked connection still needs ---------------------------------

cdef inline void track_low(Channel* channel, Conn* conn) noexcept nogil:
    """Counts a connection that joins, moves in the list or becomes writable in the current round. So
    no event that is pending for an unblocked connection is ever trimmed."""
    if not conn.flags & BLOCKED and conn.cursor < channel.low:
        channel.low = conn.cursor


cdef inline void begin_round(Channel* channel) noexcept nogil:
    channel.round_left = channel.conns.count
    channel.low = <uint64_t>-1


cdef inline void trim(State* state, Channel* channel, uint64_t through) noexcept nogil:
    """Drops entries up to `through` that no connection needs. Without a blocked connection these
    are all. Otherwise they are those above the bytes and age allowed for a blocked one, but never
    the newest, which policy `skip` may need."""
    cdef Ring* ring = &channel.ring
    cdef Entry* entry
    cdef uint64_t max_age_us = <uint64_t>state.options.max_lag_ds * 100_000
    while ring.count:
        entry = ring_at(ring, 0)
        if entry.sequence > through:
            return
        if channel.blocked and (ring.count == 1 or (
                entry.accepted_us + max_age_us > state.now_us
                and ring.appended_bytes - entry.end_bytes < state.options.max_lag_bytes)):
            return
        bump(&state.counters.ring_entries, -1)
        bump(&state.counters.ring_bytes, -<int64_t>entry.frame.body_bytes)
        if state.span.channel is channel:
            state.span.channel = NULL
        ring_drop_first(ring)


cdef inline void end_round(State* state, Channel* channel) noexcept nogil:
    trim(state, channel, channel.low)
    begin_round(channel)


# ---- joining, leaving, ending ------------------------------------------------------------------

cdef inline void join_channel(State* state, Conn* conn) noexcept nogil:
    """Joins a connection to a channel: it gets every event of the ring that is published after this."""
    cdef Channel* channel = conn_channel(state, conn)
    conn.cursor = state.sequence
    conn.state = LIVE
    conn.index = channel.conns.count
    numbers_add(&channel.conns, slot_of(state, conn))
    channel.round_left += 1
    if channel.to_visit:       # the walk under way has one more place to pass
        channel.to_visit += 1
    if conn.flags & BLOCKED:
        channel.blocked += 1
    track_low(channel, conn)


cdef inline void leave_channel(State* state, Conn* conn) noexcept nogil:
    cdef Channel* channel = conn_channel(state, conn)
    cdef Conn* moved
    numbers_drop_at(&channel.conns, conn.index)
    if conn.index < channel.conns.count:
        moved = &state.conns[numbers_items(&channel.conns)[conn.index]]
        moved.index = conn.index
        track_low(channel, moved)
        if moved.cursor < channel.last_sequence:
            make_ready(state, moved)
    if conn.flags & BLOCKED:
        channel.blocked -= 1
    if channel.conns.count == 0:
        channel.blocked = 0
        trim(state, channel, <uint64_t>-1)


cdef inline uint64_t tag_of(State* state, Conn* conn) noexcept nogil:
    return slot_of(state, conn) | <uint64_t>conn.generation << 32


cdef inline void set_blocked(State* state, Conn* conn) noexcept nogil:
    """Asks for EPOLLOUT. It is not asked for always, because a socket pair, unlike TCP, announces
    room after each read of the other side. epoll looks at the socket at once, so no edge is lost."""
    if conn.flags & BLOCKED:
        return
    conn.flags |= BLOCKED
    rewatch(state.poller, conn.fd, tag_of(state, conn), STREAM_EVENTS | EPOLLOUT)
    bump(&state.counters.blocked, 1)
    if conn.state == LIVE:
        conn_channel(state, conn).blocked += 1


cdef inline void clear_blocked(State* state, Conn* conn) noexcept nogil:
    if not conn.flags & BLOCKED:
        return
    conn.flags &= <uint8_t>~(BLOCKED | SUSPECT)
    rewatch(state.poller, conn.fd, tag_of(state, conn), STREAM_EVENTS)
    bump(&state.counters.blocked, -1)
    if conn.state == LIVE:
        conn_channel(state, conn).blocked -= 1
        track_low(conn_channel(state, conn), conn)


cdef inline void end_sealing(State* state, SealedRow* row) noexcept nogil:
    """Wipes the keys of a row everywhere."""
    if row.seal.phase >= SEALS_ROW:
        sealer_forget(state.sealer, &row.seal)
        bump(&state.sealed_count, -1)
    sealed_row_end(row)


cdef inline void end(State* state, Conn* conn, uint8_t reason) noexcept nogil:
    """Closes the socket and notifies the loop. The row stays CLOSED until the notice is taken."""
    if conn.state == LIVE:
        leave_channel(state, conn)
    if conn.flags & BLOCKED:
        bump(&state.counters.blocked, -1)
    nodes_free(conn.private)
    conn.private = NULL
    if state.sealed is not NULL:
        end_sealing(state, &state.sealed[slot_of(state, conn)])
    # Removed explicitly: for a moment the event loop's copy of this descriptor may still be open,
    # and while it is, closing ours would not remove it from the poller.
    unwatch(state.poller, conn.fd)
    close(conn.fd)
    conn.fd = -1
    conn.state = CLOSED
    conn.touched_ds = now_ds(state)    # with opened_ds: how long it lived
    conn.flags &= READY
    conn.reason = reason
    bump(&state.counters.connections, -1)
    bump(&state.counters.closed[reason], 1)
    notice_push(&state.notices, state.conns, slot_of(state, conn), STREAM_CLOSED)


cdef inline void discard_input(Conn* conn) noexcept nogil:
    """Reads what a client sent after its request. Closing a socket with unread input sends RST, and
    the client may lose the last data."""
    cdef char input[1024]
    cdef int left = DISCARDED_READS
    while left and recv(conn.fd, input, sizeof(input), MSG_DONTWAIT) > 0:
        left -= 1


cdef inline void end_whole(State* state, Conn* conn, uint8_t reason) noexcept nogil:
    """As `end`, but with FIN instead of a reset, so that sent data arrives."""
    discard_input(conn)
    end(state, conn, reason)
