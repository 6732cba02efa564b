# Sending. A visit sends a connection everything that is pending: its private frames, then its
# channel's ring from its cursor to the head, in one system call. The sweep visits the connections
# of a channel in rounds. A connection that is visited late gets more events in one call, so the calls
# per delivered event fall as load rises.
#
# Two parts, kept apart: gathering what to send, and the arithmetic of how far it got.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from fastsse.native.channel cimport Channel
from fastsse.native.counters cimport (
    CLIENT_CLOSED, ENDED, LAGGED, RESET, bucket_of, bump, count_latency)
from fastsse.native.frame cimport (
    FrameData, frame_body, frame_drop, frame_keep, frame_wire, frame_wire_bytes)
from fastsse.native.last_values cimport add_last_values
from fastsse.native.membership cimport (
    begin_round, conn_channel, end, end_round, end_whole, leave_channel, make_ready, queue_work,
    set_blocked, slot_of, track_low, trim)
from fastsse.native.memory cimport numbers_items
from fastsse.native.os cimport EPIPE, errno, iovec, prefetch
from fastsse.native.queue cimport (
    CUT, DISCONNECT, END_OF_PAGE, GAP, LAST_VALUE, SKIP, WIRE, Node, node_free, node_new, nodes_free)
from fastsse.native.ring cimport Entry, ring_append, ring_at, ring_find
from fastsse.native.send cimport has_unsent, is_shut, send_now, send_unsent, wait_for_room
from fastsse.native.state cimport (
    Span, State, VISIT_BYTES, VISIT_FRAMES, now_ds, read_clock)
from fastsse.native.table cimport (
    BLOCKED, CHUNKED, CLOSED, Conn, DRAINING, LAPPED, LIVE, NONE, PAGE_SENT, SKIPPED, notice_push)


cdef inline void append(
        State* state, Channel* channel, FrameData* frame, uint64_t sequence, uint64_t accepted_us,
        uint8_t policy, bint ends) noexcept nogil:
    """Appends a publish, newer than all before, to a channel's ring, and queues the channel for a
    sweep. No policy may leave out an event after which the streams end."""
    channel.last_sequence = sequence
    if policy == DISCONNECT or ends:
        channel.last_disconnect = sequence
    elif policy == SKIP:
        channel.last_skip = sequence
    if channel.conns.count == 0:
        return
    if state.span.channel is channel:
        state.span.channel = NULL
    ring_append(&channel.ring, frame, sequence, accepted_us, ends)
    bump(&state.counters.ring_entries, 1)
    bump(&state.counters.ring_bytes, frame.body_bytes)
    channel.to_visit = channel.conns.count
    queue_work(state, channel)


# ---- gathering ---------------------------------------------------------------------------------

cdef inline iovec wire_part(FrameData* frame, uint8_t whole) noexcept nogil:
    cdef iovec part
    part.iov_base = frame_wire(frame) if whole else frame_body(frame)
    part.iov_len = frame_wire_bytes(frame) if whole else frame.body_bytes
    return part


cdef inline iovec node_part(Conn* conn, Node* node) noexcept nogil:
    return wire_part(node.frame, node.kind == WIRE or conn.flags & CHUNKED)


cdef inline bint is_expired(State* state, FrameData* frame) noexcept nogil:
    return frame.expires_ms and frame.expires_ms <= state.wall_ms


cdef inline void blank_if_expired(State* state, Entry* entry) noexcept nogil:
    """Replaces an expired event by a comment; the entry keeps its place. A connection that was sent a
    part of the event has its own reference (`take_part_of_span`)."""
    if is_expired(state, entry.frame):
        bump(&state.counters.ring_bytes,
             <int64_t>state.blank.body_bytes - <int64_t>entry.frame.body_bytes)
        frame_drop(entry.frame)
        entry.frame = frame_keep(state.blank)


cdef inline void prepare_span(State* state, Channel* channel, Conn* conn) noexcept nogil:
    """Fills `state.span` with the part of the ring that is pending for the connection, unless the
    last one visited had the same part pending."""
    cdef Span* span = &state.span
    cdef uint8_t coding = conn.flags & CHUNKED
    cdef Entry* entry
    if span.channel is channel and span.cursor == conn.cursor and span.flags == coding:
        return
    span.channel = channel
    span.cursor = conn.cursor
    span.flags = coding
    span.first = ring_find(&channel.ring, conn.cursor)
    span.count = 0
    span.ends = False
    span.bytes = 0
    span.events = 0
    while span.first + span.count < channel.ring.count and span.count < VISIT_FRAMES \
            and span.bytes < VISIT_BYTES and not span.ends:
        entry = ring_at(&channel.ring, span.first + span.count)
        blank_if_expired(state, entry)
        span.parts[span.count] = wire_part(entry.frame, coding)
        span.bytes += span.parts[span.count].iov_len
        span.events += entry.frame.events
        if span.count == 0:
            span.oldest_us = entry.accepted_us
        span.newest_us = entry.accepted_us
        span.last_sequence = entry.sequence
        span.ends = entry.ends
        span.count += 1


cdef inline uint32_t gather(State* state, Conn* conn) noexcept nogil:
    """Fills `state.parts` with the private list and what fits of the ring; returns how many.
    Last values move the cursor when they are sent, so the ring waits for the next visit."""
    cdef Node* node = conn.private
    cdef Channel* channel
    cdef uint32_t count = 0
    cdef uint32_t index
    cdef bint moves_cursor = False
    cdef bint ends = False
    while node is not NULL and count < VISIT_FRAMES:
        state.parts[count] = node_part(conn, node)
        if count == 0:
            state.parts[0].iov_base = <char*>state.parts[0].iov_base + conn.offset
            state.parts[0].iov_len -= conn.offset
        moves_cursor = moves_cursor or node.kind == LAST_VALUE
        ends = ends or node.ends
        count += 1
        node = node.next
    if conn.state != LIVE or count == VISIT_FRAMES or moves_cursor or ends:
        return count
    channel = conn_channel(state, conn)
    if conn.cursor >= channel.last_sequence:
        return count
    prepare_span(state, channel, conn)
    for index in range(min(state.span.count, VISIT_FRAMES - count)):
        state.parts[count] = state.span.parts[index]
        count += 1
    return count


# ---- how far it got ----------------------------------------------------------------------------

cdef inline size_t pop_sent_nodes(State* state, Conn* conn, size_t sent) noexcept nogil:
    """Takes the private frames that `sent` bytes cover off the list; returns the bytes left over,
    0 when the list was not sent to its end."""
    cdef size_t length
    cdef Node* node
    while conn.private is not NULL:
        node = conn.private
        length = node_part(conn, node).iov_len - conn.offset
        if sent < length:
            conn.offset += <uint32_t>sent
            return 0
        sent -= length
        conn.offset = 0
        conn.events_sent += node.frame.events
        bump(&state.counters.deliveries, node.frame.events)
        if node.kind == LAST_VALUE:
            move_cursor(conn, node.sequence)
        elif node.kind == GAP:
            bump(&state.counters.gaps_sent, 1)
        elif node.kind == END_OF_PAGE:
            notice_push(&state.notices, state.conns, slot_of(state, conn), PAGE_SENT)
        state.is_over = state.is_over or node.ends
        conn.private = node_free(node)
        conn.stalled_ds = now_ds(state)
    return sent


cdef inline void move_cursor(Conn* conn, uint64_t sequence) noexcept nogil:
    conn.cursor = sequence
    conn.flags &= <uint8_t>~SKIPPED


cdef inline void count_entry(State* state, Conn* conn, Entry* entry) noexcept nogil:
    move_cursor(conn, entry.sequence)
    conn.events_sent += entry.frame.events
    bump(&state.counters.deliveries, entry.frame.events)
    count_latency(&state.counters, state.now_us - entry.accepted_us, 1)


cdef inline void take_whole_span(State* state, Conn* conn) noexcept nogil:
    """The usual case, without a walk when all of it falls into one bucket of the histogram."""
    cdef Span* span = &state.span
    cdef uint32_t index
    cdef uint64_t oldest_us = state.now_us - span.oldest_us
    if span.count > 1 and bucket_of(oldest_us) != bucket_of(state.now_us - span.newest_us):
        for index in range(span.count):
            count_entry(state, conn, ring_at(&span.channel.ring, span.first + index))
        return
    move_cursor(conn, span.last_sequence)
    conn.events_sent += span.events
    bump(&state.counters.deliveries, span.events)
    count_latency(
        &state.counters, oldest_us - (span.newest_us - span.oldest_us) // 2, span.count)


cdef inline void take_part_of_span(State* state, Conn* conn, size_t sent) noexcept nogil:
    """Moves the cursor over the entries sent whole; one that is cut becomes the first private
    frame, with its own reference, so that the ring may be trimmed under it."""
    cdef Span* span = &state.span
    cdef Entry* entry
    cdef Node* node
    cdef uint32_t index
    for index in range(span.count):
        entry = ring_at(&span.channel.ring, span.first + index)
        if sent < span.parts[index].iov_len:
            if sent:
                node = node_new(frame_keep(entry.frame), CUT)
                node.ends = entry.ends
                conn.private = node
                conn.offset = <uint32_t>sent
                move_cursor(conn, entry.sequence)
            return
        sent -= span.parts[index].iov_len
        count_entry(state, conn, entry)
        state.is_over = entry.ends


# ---- a visit -----------------------------------------------------------------------------------

cdef inline void end_over(State* state, Conn* conn) noexcept nogil:
    """Ends a stream after the event that ends it: the rest of a half-sent frame, the last chunk, FIN."""
    cdef Node** at = &conn.private.next if conn.offset else &conn.private
    leave_channel(state, conn)
    nodes_free(at[0])
    at[0] = node_new(frame_keep(state.last_chunk), WIRE) if conn.flags & CHUNKED else NULL
    drain(state, conn, ENDED)


cdef inline void drain(State* state, Conn* conn, uint8_t reason) noexcept nogil:
    """Sends what a stream has of its own, then ends it."""
    conn.state = DRAINING
    conn.reason = reason
    conn.stalled_ds = now_ds(state)
    if conn.private is NULL:
        finish(state, conn)
    else:
        make_ready(state, conn)


cdef inline void finish(State* state, Conn* conn) noexcept nogil:
    """Closes a DRAINING connection that has sent all its frames, behind close_notify if it seals."""
    if state.sealed is NULL or is_shut(state, conn):
        end_whole(state, conn, conn.reason)


cdef inline void finish_if_drained(State* state, Conn* conn) noexcept nogil:
    if conn.state == DRAINING and conn.private is NULL:
        finish(state, conn)


cdef inline bint went_wrong(State* state, Conn* conn, ssize_t sent, size_t wanted) noexcept nogil:
    """Ends a dead connection (True) and marks one whose socket is full."""
    if sent < 0:
        end(state, conn, CLIENT_CLOSED if errno == EPIPE else RESET)
        return True
    if sent:
        conn.touched_ds = now_ds(state)
        conn.bytes_sent += sent
        bump(&state.counters.bytes_sent, sent)
    if <size_t>sent < wanted:
        bump(&state.counters.would_block, 1)
        if conn.offset == 0:   # else the frame under way has been stuck for longer
            conn.stalled_ds = now_ds(state)
        set_blocked(state, conn)
    return False


cdef inline void visit_ring(State* state, Channel* channel, Conn* conn) noexcept nogil:
    """For a LIVE connection with an empty private list and a pending part of the ring."""
    cdef ssize_t sent
    prepare_span(state, channel, conn)
    if conn.cursor < channel.ring.trimmed_through or state.span.count == 0:
        end(state, conn, LAGGED)   # its next event was trimmed: end it rather than skip in silence
        return
    sent = send_now(state, conn, state.span.parts, state.span.count)
    state.now_us = read_clock(state)
    if <size_t>sent == state.span.bytes:
        conn.bytes_sent += sent
        conn.touched_ds = now_ds(state)
        bump(&state.counters.bytes_sent, sent)
        take_whole_span(state, conn)
        state.is_over = state.span.ends
    elif not went_wrong(state, conn, sent, state.span.bytes):
        take_part_of_span(state, conn, sent)


cdef inline size_t parts_bytes(iovec* parts, uint32_t count) noexcept nogil:
    cdef size_t total = 0
    cdef uint32_t index
    for index in range(count):
        total += parts[index].iov_len
    return total


cdef inline void visit_private(State* state, Conn* conn) noexcept nogil:
    """For a connection with private frames; what fits of its ring goes along."""
    cdef uint32_t count
    cdef size_t wanted
    cdef size_t left
    cdef ssize_t sent
    state.span.channel = NULL
    count = gather(state, conn)
    wanted = parts_bytes(state.parts, count)
    sent = send_now(state, conn, state.parts, count)
    state.now_us = read_clock(state)
    if went_wrong(state, conn, sent, wanted):
        return
    left = pop_sent_nodes(state, conn, sent)
    if left and conn.private is NULL:
        take_part_of_span(state, conn, left)
    finish_if_drained(state, conn)


cdef inline bint lacks_something(State* state, Conn* conn) noexcept nogil:
    return conn.private is not NULL or lacks_ring(state, conn) or has_unsent(state, conn)


cdef inline bint lacks_ring(State* state, Conn* conn) noexcept nogil:
    return conn.state == LIVE and conn.cursor < conn_channel(state, conn).last_sequence


cdef inline void visit(State* state, Conn* conn) noexcept nogil:
    """Sends a connection what is pending, once; makes it ready again if that was not all."""
    if conn.state == CLOSED or conn.flags & BLOCKED or not lacks_something(state, conn):
        return
    if state.sends_left:
        state.sends_left -= 1
    state.is_over = False
    if has_unsent(state, conn) and not send_unsent(state, conn):
        return
    if conn.flags & LAPPED and conn.state == LIVE:
        add_last_values(state, conn_channel(state, conn), conn)
    if conn.private is not NULL:
        visit_private(state, conn)
    elif lacks_ring(state, conn):
        visit_ring(state, conn_channel(state, conn), conn)
    else:
        finish_if_drained(state, conn)
    if conn.state != CLOSED and has_unsent(state, conn):
        wait_for_room(state, conn)
    if state.is_over and conn.state == LIVE:
        end_over(state, conn)
    if conn.state != CLOSED and not conn.flags & BLOCKED and lacks_something(state, conn):
        make_ready(state, conn)


# ---- the sweep ---------------------------------------------------------------------------------

cdef inline void on_idle(State* state, Channel* channel) noexcept nogil:
    """Every connection was looked at since the newest event. Those that were cut short by the
    limits of a visit stand in the ready list; nothing is trimmed before them."""
    if state.first_ready != NONE:
        return
    trim(state, channel, channel.last_sequence)
    # A round counts places from where it began, so the hand moves only between rounds: elsewhere
    # next time, so that at rest no connection is always first, or always last.
    channel.hand = (channel.hand + channel.conns.count // 3 + 1) % channel.conns.count
    begin_round(channel)


cdef inline void step(State* state, Channel* channel, Conn* conn) noexcept nogil:
    """Moves on past the place of a visited connection."""
    track_low(channel, conn)
    channel.hand += 1
    channel.to_visit -= 1
    if channel.round_left <= 1:
        end_round(state, channel)
    else:
        channel.round_left -= 1


cdef inline void sweep(State* state, Channel* channel) noexcept nogil:
    """Visits the channel's connections until none has pending events, or until the sends of this turn
    are used up; then the channel waits for its next turn."""
    cdef Conn* conn
    cdef uint32_t* slots
    cdef uint32_t looks = 64 * state.sends_left + 64
    while channel.to_visit and state.sends_left and looks and channel.conns.count:
        if channel.hand >= channel.conns.count:
            channel.hand = 0
        slots = numbers_items(&channel.conns)
        conn = &state.conns[slots[channel.hand]]
        if channel.hand + 4 < channel.conns.count:
            prefetch(&state.conns[slots[channel.hand + 4]])
            if state.sealed is not NULL:
                prefetch(&state.sealed[slots[channel.hand + 4]])
        looks -= 1
        visit(state, conn)
        if conn.state == LIVE:
            step(state, channel, conn)
        # Otherwise it left and another one has its place, so the place is visited again.
    if channel.conns.count == 0:
        channel.to_visit = 0
    if channel.to_visit:
        queue_work(state, channel)
    elif channel.conns.count:
        on_idle(state, channel)
