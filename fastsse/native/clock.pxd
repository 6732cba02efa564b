# The clock hand: walks round the table slice by slice and checks every row for what time brings:
# lag, lost edges, heartbeats, expiry, unanswered pings.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from fastsse.native.channel cimport Channel
from fastsse.native.claims cimport Claim
from fastsse.native.counters cimport EXPIRED, LIFETIME, NO_PONG, bump
from fastsse.native.ending cimport end_some, share_ends
from fastsse.native.farewell cimport dismiss, drain_some, is_dismissed, part
from fastsse.native.frame cimport FrameData, frame_body, frame_keep, frame_new, frame_of_bytes
from fastsse.native.lag cimport judge, on_writable
from fastsse.native.os cimport is_writable, relaxed_load, relaxed_store, wall_ms
from fastsse.native.queue cimport PLAIN, DIRECT, node_new
from fastsse.native.state cimport State, now_ds
from fastsse.native.stream_id cimport ID_TEXT_BYTES, write_stream_id
from fastsse.native.mark cimport add_mark
from fastsse.native.membership cimport conn_channel, end, make_ready, slot_of
from fastsse.native.sealing cimport has_few_records_left, is_waiting
from fastsse.native.sweep cimport lacks_something, on_idle
from fastsse.native.table cimport (
    BEAT_PAD_SHIFT, BEAT_SECONDS, BLOCKED, CLAIMED, CLOSED, Conn, DRAINING, EXPIRING, FREE, LIVE, PAD_UNIT_BYTES, PINGED, Pulse,
    REPLAY, SUSPECT,
    notice_push)
from fastsse.native.view cimport NO_MARK

cdef enum:
    # The time of one round. So what is due is done within a second, also if the thread is busy.
    ROUND_MS = 700


# ---- idle streams, lost edges ------------------------------------------------------------------

cdef inline bint is_due(
        State* state, Conn* conn, uint32_t since_ds, uint32_t interval_ds) noexcept nogil:
    """Whether an interval is over: after 80 to 100 % of it, depending on the slot, so that not all
    streams are due at once after a broadcast. Never if it is 0."""
    cdef uint32_t mixed = (slot_of(state, conn) * 2654435761u) >> 16
    cdef uint32_t early_ds = <uint32_t>(<uint64_t>interval_ds * (mixed & 255) // 1280)
    return interval_ds and now_ds(state) - since_ds >= interval_ds - early_ds


cdef inline uint32_t beat_interval_ds(State* state, Conn* conn) noexcept nogil:
    cdef uint32_t seconds = conn.beat & BEAT_SECONDS
    return 10 * seconds if seconds else state.options.heartbeat_ds


cdef inline FrameData* heartbeat_frame(uint32_t pad) noexcept nogil:
    """A comment line: a short one for 0, else of the length that streams asked for."""
    cdef size_t size = <size_t>PAD_UNIT_BYTES << pad if pad else 2
    cdef FrameData* frame = frame_new(size, True)
    cdef char* body = frame_body(frame)
    memset(body, c' ', size)
    body[0] = c':'
    body[size - 1] = c'\n'
    return frame


cdef inline FrameData* heartbeat_of(State* state, Conn* conn) noexcept nogil:
    """The frame that all heartbeats of this length share; created for the first."""
    cdef uint32_t pad = conn.beat >> BEAT_PAD_SHIFT
    if state.heartbeats[pad] is NULL:
        state.heartbeats[pad] = heartbeat_frame(pad)
    return state.heartbeats[pad]


cdef inline bint has_passed_over(State* state, Conn* conn) noexcept nogil:
    """Whether the view has left out events since the last event that the stream was sent."""
    cdef Channel* channel
    if conn.state != LIVE:
        return False
    channel = conn_channel(state, conn)
    return channel.view is not NULL and channel.view.mark != NO_MARK \
        and conn.cursor < channel.judged.sequence \
        and (channel.judged.rate is NULL or channel.judged.rate.live == 0)


cdef inline void beat_if_idle(State* state, Conn* conn) noexcept nogil:
    if conn.private is NULL \
            and is_due(state, conn, conn.touched_ds, beat_interval_ds(state, conn)) \
            and not lacks_something(state, conn):
        bump(&state.counters.heartbeats, 1)
        conn.private = node_new(frame_keep(heartbeat_of(state, conn)), PLAIN)
        if has_passed_over(state, conn):
            add_mark(conn_channel(state, conn), conn)
        make_ready(state, conn)


cdef inline void rescue_if_missed(State* state, Conn* conn) noexcept nogil:
    """A blocked socket has lost its edge if poll reports it as writable twice in a row, without an
    event in between. This should never happen; the count shows whether it does."""
    if not is_writable(conn.fd):
        conn.flags &= <uint8_t>~SUSPECT
    elif not conn.flags & SUSPECT:
        conn.flags |= SUSPECT
    else:
        bump(&state.counters.missed_edges, 1)
        on_writable(state, conn)


# ---- expiry ------------------------------------------------------------------------------------

cdef inline void read_wall_clock(State* state) noexcept nogil:
    state.wall_ms = wall_ms() + <uint64_t>relaxed_load(&state.clock_ahead_us) // 1000


cdef inline void look_at_claim(State* state, Conn* conn) noexcept nogil:
    cdef Claim* claim = &state.claims[slot_of(state, conn)]
    if claim.expires_ms == 0:
        return
    if state.wall_ms >= claim.expires_ms:
        dismiss(state, conn, EXPIRED)
    elif state.options.expiry_notice_ms and not claim.notified \
            and claim.expires_ms - state.wall_ms <= state.options.expiry_notice_ms:
        claim.notified = True
        notice_push(&state.notices, state.conns, slot_of(state, conn), EXPIRING)


# ---- pings -------------------------------------------------------------------------------------

cdef inline FrameData* ping_frame(State* state, Conn* conn) noexcept nogil:
    """An event that scripts see. It has no id line, so the place to resume from does not change."""
    cdef char body[96]
    cdef size_t size = 37
    memcpy(body, b"event: fastsse.ping\ndata: {\"stream\":\"", size)
    write_stream_id(
        &state.id_key, slot_of(state, conn) | <uint64_t>conn.generation << 32, body + size)
    size += ID_TEXT_BYTES
    memcpy(body + size, b"\"}\n\n", 4)
    return frame_of_bytes(body, size + 4, True)


cdef inline void ping(State* state, Conn* conn, Pulse* pulse) noexcept nogil:
    pulse.pinged_ds = now_ds(state)
    if pulse.unanswered_ds == 0:
        pulse.unanswered_ds = now_ds(state) + 1
    bump(&state.counters.pings, 1)
    conn.private = node_new(ping_frame(state, conn), DIRECT)
    make_ready(state, conn)


cdef inline void look_at_pulse(State* state, Conn* conn) noexcept nogil:
    cdef Pulse* pulse = &state.pulses[slot_of(state, conn)]
    if state.options.pong_timeout_ds and pulse.unanswered_ds \
            and now_ds(state) + 1 - pulse.unanswered_ds > state.options.pong_timeout_ds:
        dismiss(state, conn, NO_PONG)
    elif conn.private is NULL and not conn.flags & BLOCKED \
            and is_due(state, conn, pulse.pinged_ds, state.options.ping_ds):
        ping(state, conn, pulse)


# ---- the hand ----------------------------------------------------------------------------------

cdef inline void look_at_blocked(State* state, Conn* conn) noexcept nogil:
    if is_dismissed(conn):
        end(state, conn, conn.reason)
        return
    judge(state, conn)
    if conn.state != CLOSED and conn.flags & BLOCKED and not is_waiting(state, conn):
        rescue_if_missed(state, conn)


cdef inline void look_at_age(State* state, Conn* conn) noexcept nogil:
    """Ends a stream that is older than the lifetime, sooner or later by its slot, so that streams
    that opened together do not reconnect together. One whose key has sealed nearly all records that it
    may ends too. A stream with a full socket is left to its lag policy until the socket has room."""
    if is_due(state, conn, conn.opened_ds, state.options.lifetime_ds) \
            or has_few_records_left(state, conn):
        part(state, conn, LIFETIME)


cdef inline void look_at(State* state, Conn* conn) noexcept nogil:
    cdef Channel* channel
    if conn.state == CLOSED or conn.state == FREE:
        return
    if conn.flags & CLAIMED and conn.state != DRAINING:
        look_at_claim(state, conn)
    if conn.flags & PINGED and conn.state != DRAINING:
        look_at_pulse(state, conn)
    if conn.flags & BLOCKED:
        look_at_blocked(state, conn)
        return
    if conn.state == LIVE or conn.state == REPLAY:
        look_at_age(state, conn)
    if conn.state != DRAINING and conn.state != CLOSED:
        beat_if_idle(state, conn)
    if conn.state == LIVE:
        channel = conn_channel(state, conn)
        if channel.ring.count and not channel.queued:
            on_idle(state, channel)


cdef inline uint32_t slice_of(State* state) noexcept nogil:
    """Rows to examine now: in proportion to the time since the last slice, but never more than a
    quarter of the table, so that other work does not wait long after a delay of the thread."""
    cdef uint64_t gone_us = state.now_us - state.hand_moved_us
    cdef uint64_t rows = state.used_slots * gone_us // (ROUND_MS * 1000) + 1
    return <uint32_t>min(rows, <uint64_t>state.used_slots // 4 + 1)


cdef inline void move_clock_hand(State* state) noexcept nogil:
    cdef uint32_t left = slice_of(state)
    state.hand_moved_us = state.now_us
    while left and state.used_slots:
        if state.clock_hand >= state.used_slots:
            state.clock_hand = 0
            relaxed_store(&state.counters.lag_bytes, state.lag_seen_bytes)
            state.lag_seen_bytes = 0
        look_at(state, &state.conns[state.clock_hand])
        state.clock_hand += 1
        left -= 1


cdef inline void tick_if_due(State* state) noexcept nogil:
    if state.now_us < state.next_tick_us:
        return
    state.next_tick_us = state.now_us + state.options.tick_ms * 1000
    read_wall_clock(state)
    if state.drain.on:
        drain_some(state)
    share_ends(state)
    if state.over.count:
        end_some(state)
    move_clock_hand(state)
