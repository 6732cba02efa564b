# Slow clients. Only a BLOCKED connection is judged: if a connection was not visited yet, the delay
# is the server's. Above `max_lag`, in bytes or in seconds, the strictest policy among its pending
# events is applied.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf

from fastsse.native.channel cimport Channel, channel_policy
from fastsse.native.counters cimport LAGGED, bump
from fastsse.native.frame cimport FrameData, frame_of_bytes
from fastsse.native.membership cimport clear_blocked, conn_channel, end, make_ready
from fastsse.native.queue cimport (
    CUT, DISCONNECT, GAP, LAST_VALUE, SKIP, Node, node_end, node_free, node_new)
from fastsse.native.ring cimport Entry, Ring, ring_at, ring_bytes_after, ring_find
from fastsse.native.state cimport State, now_ds
from fastsse.native.table cimport CLOSED, Conn, LAPPED, LIVE, SKIPPED


cdef inline void drop_unsent(Conn* conn, uint8_t kind) noexcept nogil:
    """Frees the private frames of a kind of which no byte was sent."""
    cdef Node** at = &conn.private.next if conn.offset else &conn.private
    while at[0] is not NULL:
        if at[0].kind == kind:
            at[0] = node_free(at[0])
        else:
            at = &at[0].next


# ---- skip --------------------------------------------------------------------------------------

cdef inline FrameData* gap_frame(FrameData* last_got, FrameData* newest) noexcept nogil:
    """`fastsse.gap` with the id of the place just before the newest event, which follows it."""
    cdef char body[320]
    cdef char requested[64]
    cdef uint64_t ms = newest.position_ms if newest.position_n else newest.position_ms - 1
    cdef uint64_t n = newest.position_n - 1
    cdef int size
    if last_got is NULL or last_got.position_ms == 0:
        snprintf(requested, sizeof(requested), b"null")
    else:
        snprintf(requested, sizeof(requested), b"\"%llu-%llu\"",
                 <unsigned long long>last_got.position_ms, <unsigned long long>last_got.position_n)
    size = snprintf(
        body, sizeof(body),
        b"event: fastsse.gap\nid: %llu-%llu\n"
        b"data: {\"reason\":\"lagged\",\"requested\":%s,\"from\":\"%llu-%llu\"}\n\n",
        <unsigned long long>ms, <unsigned long long>n, requested,
        <unsigned long long>ms, <unsigned long long>n)
    return frame_of_bytes(body, size, True)


cdef inline FrameData* last_got(Channel* channel, Conn* conn) noexcept nogil:
    """The newest event that the connection has, if the ring still contains it."""
    cdef uint32_t index = ring_find(&channel.ring, conn.cursor)
    if conn.flags & SKIPPED:
        return NULL
    if index and ring_at(&channel.ring, index - 1).sequence == conn.cursor:
        return ring_at(&channel.ring, index - 1).frame
    return NULL


cdef inline void skip(State* state, Channel* channel, Conn* conn) noexcept nogil:
    cdef Ring* ring = &channel.ring
    cdef Entry* newest = ring_at(ring, ring.count - 1)
    if newest.sequence <= conn.cursor + 1:
        return                 # only the newest is pending: there is nothing to leave out
    if conn.cursor >= ring.trimmed_through and ring_find(ring, conn.cursor) == ring.count - 1:
        return
    drop_unsent(conn, GAP)
    drop_unsent(conn, LAST_VALUE)
    node_end(&conn.private)[0] = node_new(
        gap_frame(last_got(channel, conn), newest.frame), GAP)
    conn.cursor = newest.sequence - 1
    conn.flags = (conn.flags | SKIPPED) & <uint8_t>~LAPPED
    bump(&state.counters.skipped, 1)


# ---- latest ------------------------------------------------------------------------------------

cdef inline void latest(State* state, Conn* conn) noexcept nogil:
    """Replaces all pending events of the connection by the newest of each topic. They are gathered
    when the socket is writable, as many as one visit sends. Unsent values of an earlier replacement
    are then gathered again."""
    drop_unsent(conn, LAST_VALUE)
    if not conn.flags & LAPPED:
        conn.flags |= LAPPED
        bump(&state.counters.lapped, 1)


# ---- judging -----------------------------------------------------------------------------------

cdef inline uint64_t waiting_bytes(Channel* channel, Conn* conn) noexcept nogil:
    """The pending bytes without the current or next frame: a single accepted event is never lag,
    whatever its length."""
    cdef Ring* ring = &channel.ring
    cdef uint64_t total = ring_bytes_after(ring, conn.cursor)
    cdef Node* node = conn.private
    if node is NULL:
        return total - min(total, ring_at(ring, ring_find(ring, conn.cursor)).frame.body_bytes) \
            if total else 0
    node = node.next
    while node is not NULL:
        total += node.frame.body_bytes
        node = node.next
    return total


cdef inline bint is_ring_part(Node* node) noexcept nogil:
    return node.kind == CUT or node.kind == GAP or node.kind == LAST_VALUE


cdef inline void act(State* state, Channel* channel, Conn* conn) noexcept nogil:
    cdef bint cut = conn.private is not NULL and conn.private.kind == CUT
    cdef uint8_t policy = channel_policy(channel, conn.cursor - 1 if cut else conn.cursor)
    if policy == DISCONNECT:
        end(state, conn, LAGGED)
    elif channel.ring.count == 0 or (conn.private is NULL and conn.cursor >= channel.last_sequence):
        return                 # only the frame under way is stuck; TCP_USER_TIMEOUT is its end
    elif policy == SKIP and channel.is_quiet:
        end(state, conn, LAGGED)
    elif policy == SKIP:
        skip(state, channel, conn)
    else:
        latest(state, conn)


cdef inline bint is_over(State* state, Channel* channel, Conn* conn) noexcept nogil:
    """True if the pending events of a LIVE connection exceed its limit in bytes or age. The age is
    that of the oldest pending event, so a client gains no time by reading a byte now and then."""
    cdef uint32_t index = ring_find(&channel.ring, conn.cursor)
    cdef uint64_t lag = waiting_bytes(channel, conn)
    cdef uint64_t max_age_us = <uint64_t>state.options.max_lag_ds * 100_000
    if <int64_t>lag > state.lag_seen_bytes:
        state.lag_seen_bytes = <int64_t>lag
    return lag > state.options.max_lag_bytes \
        or conn.cursor < channel.ring.trimmed_through \
        or (index < channel.ring.count
            and state.now_us > ring_at(&channel.ring, index).accepted_us + max_age_us)


cdef inline void judge(State* state, Conn* conn) noexcept nogil:
    """For a BLOCKED connection."""
    cdef bint stuck = now_ds(state) - conn.stalled_ds > state.options.max_lag_ds
    if conn.state != LIVE:
        if stuck:
            end(state, conn, LAGGED)
        return
    if stuck and conn.private is not NULL and not is_ring_part(conn.private):
        end(state, conn, LAGGED)
    elif is_over(state, conn_channel(state, conn), conn) or stuck:
        act(state, conn_channel(state, conn), conn)


cdef inline void on_writable(State* state, Conn* conn) noexcept nogil:
    """The socket is writable again. If the ring was trimmed past the cursor meanwhile, the lag
    policy is applied before anything is sent."""
    clear_blocked(state, conn)
    if conn.state == LIVE and conn.cursor < conn_channel(state, conn).ring.trimmed_through:
        act(state, conn_channel(state, conn), conn)
    if conn.state != CLOSED:
        make_ready(state, conn)
