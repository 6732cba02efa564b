# Sending. A visit sends a connection everything that is pending: its private frames, then its
# channel's ring from its cursor to the head, in one system call. The sweep visits the connections
# of a channel in rounds. A connection that is visited late gets more events in one call, so the calls
# per delivered event fall as load rises.
#
# Three parts, kept apart: gathering what to send, the system call, and the arithmetic of how far
# it got. Over 400 lines: the three share the walk over a channel, and the compiler inlines them.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from fastsse.native.channel cimport Channel
from fastsse.native.counters cimport (
    CLIENT_CLOSED, ENDED, LAGGED, RESET, bucket_of, bump, count_latency)
from fastsse.native.frame cimport (
    FrameData, frame_body, frame_drop, frame_keep, frame_wire, frame_wire_bytes)
from fastsse.native.last_values cimport add_last_values
from fastsse.native.memory cimport numbers_add, numbers_drop_at, numbers_items
from fastsse.native.os cimport (
    EAGAIN, EINTR, EPIPE, EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP, MSG_DONTWAIT, close, errno, iovec,
    prefetch, recv, rewatch, send_parts, unwatch)
from fastsse.native.queue cimport (
    CUT, DISCONNECT, END_OF_PAGE, GAP, LAST_VALUE, SKIP, WIRE, Node, node_free, node_new, nodes_free)
from fastsse.native.record_seal cimport (
    ALERT, APPLICATION_DATA, seal_record, sealer_forget, sealer_room)
from fastsse.native.ring cimport (
    Entry, Ring, ring_append, ring_at, ring_drop_first, ring_find)
from fastsse.native.sealed_row cimport (
    Pieces, SEALS_ROW, SHUT_ROW, SealedRow, pieces_take, sealed_row_end, unsent_free, unsent_new,
    unsent_part)
from fastsse.native.state cimport (
    DISCARDED_READS, RECORDS_PER_VISIT, Span, State, VISIT_BYTES, VISIT_FRAMES, now_ds, read_clock)
from fastsse.native.table cimport (
    BLOCKED, CHUNKED, CLOSED, Conn, DRAINING, LAPPED, LIVE, NONE, PAGE_SENT, READY, SKIPPED,
    STREAM_CLOSED, SUSPECT, notice_push)

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
    if row.phase >= SEALS_ROW:
        sealer_forget(state.sealer, &row.seal)
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


cdef inline void end_over(State* state, Conn* conn) noexcept nogil:
    """Ends a stream after the event that ends it: the rest of a half-sent frame, the last chunk, FIN."""
    cdef Node** at = &conn.private.next if conn.offset else &conn.private
    leave_channel(state, conn)
    nodes_free(at[0])
    at[0] = node_new(frame_keep(state.last_chunk), WIRE) if conn.flags & CHUNKED else NULL
    conn.state = DRAINING
    conn.reason = ENDED
    conn.stalled_ds = now_ds(state)
    if conn.private is NULL:
        finish(state, conn)
    else:
        make_ready(state, conn)


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


# ---- the system call ---------------------------------------------------------------------------

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
    if state.sealed is NULL or state.sealed[slot_of(state, conn)].phase < SEALS_ROW:
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
    if row.phase != SEALS_ROW:
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
    if row.phase == SEALS_ROW and row.unsent is NULL:
        sealer_room(state.sealer)[0] = 1
        sealer_room(state.sealer)[1] = 0
        size = seal_record(state.sealer, &row.seal, 2, ALERT)
        row.phase = SHUT_ROW
        if size == 0 or not send_record(state, conn, row, size):
            return True        # The client is gone.
    if row.unsent is not NULL:
        wait_for_room(state, conn)
        return False
    return True


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
