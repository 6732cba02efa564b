# Ends that never cut an event: the current frame is finished, then a farewell and FIN are sent. Only a
# complete response gets a last chunk; without it the client knows that the response was cut. This
# header ends one stream, streams that lost their right, and, in a drain, all streams over a window.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf

from fastsse.native.counters cimport DRAINED, ENDED, EXPIRED
from fastsse.native.frame cimport FrameData, frame_keep, frame_of_bytes
from fastsse.native.membership cimport end, leave_channel
from fastsse.native.queue cimport PLAIN, WIRE, Node, node_free, node_new
from fastsse.native.state cimport State, random_below
from fastsse.native.sweep cimport drain, visit
from fastsse.native.table cimport BLOCKED, CHUNKED, CLOSED, Conn, DRAINING, FREE, LIVE


cdef inline void begin_farewell(
        State* state, Conn* conn, uint8_t reason, FrameData* farewell,
        bint is_over) noexcept nogil:
    """Ends a stream at its next frame boundary: the farewell, the last chunk if the response is
    complete, FIN. Takes over the reference. RFC 9112 8: without a last chunk the response was cut."""
    cdef Node** at
    cdef Node* node
    if conn.state == LIVE:
        leave_channel(state, conn)
    # A started frame must be finished, and an unsent head must be sent: without it the farewell
    # would be no HTTP response.
    at = &conn.private.next if conn.offset else &conn.private
    while at[0] is not NULL:
        if at[0].kind == WIRE:
            at = &at[0].next
        else:
            at[0] = node_free(at[0])
    if farewell is not NULL:
        at[0] = node_new(farewell, PLAIN)
        at = &at[0].next
    if is_over and conn.flags & CHUNKED:
        at[0] = node_new(frame_keep(state.last_chunk), WIRE)
    drain(state, conn, reason)


cdef inline FrameData* retry_frame(State* state) noexcept nogil:
    """A `retry:` line with one to two times the usual time. No blank line follows, because some client
    libraries would then emit an empty event."""
    cdef char body[32]
    cdef uint32_t retry_ms = state.options.retry_ms + random_below(state, state.options.retry_ms + 1)
    return frame_of_bytes(body, snprintf(body, sizeof(body), b"retry: %u\n", retry_ms), True)


cdef inline void dismiss(State* state, Conn* conn, uint8_t reason) noexcept nogil:
    """Ends a stream that lost its right. If its socket is full it is cut, because pending data must
    not keep it open. Reconnects are spread, because many such streams end at once."""
    if conn.flags & BLOCKED:
        end(state, conn, reason)
    else:
        begin_farewell(state, conn, reason, retry_frame(state), state.options.clean_end)


cdef inline void cut_at_gap(State* state, Conn* conn) noexcept nogil:
    """Ends a stream without control events in place of a gap event. It sends the pending events if
    one send is enough, and then an end that shows the client that the answer is incomplete."""
    if conn.state == CLOSED or conn.state == FREE or conn.state == DRAINING:
        return
    if not conn.flags & BLOCKED:
        visit(state, conn)
    if conn.state == CLOSED:
        return
    if conn.flags & BLOCKED:
        end(state, conn, ENDED)
    else:
        begin_farewell(state, conn, ENDED, retry_frame(state), False)


cdef inline bint is_dismissed(Conn* conn) noexcept nogil:
    return conn.state == DRAINING and conn.reason >= EXPIRED


cdef inline void part(State* state, Conn* conn, uint8_t reason) noexcept nogil:
    """Ends a stream whose client should reconnect: sends what is pending, if one send is enough, and
    the time after which to reconnect."""
    if not conn.flags & BLOCKED:
        visit(state, conn)
    if conn.state != CLOSED:
        begin_farewell(state, conn, reason, retry_frame(state), state.options.clean_end)


cdef inline void send_away(State* state, Conn* conn) noexcept nogil:
    if conn.state == CLOSED or conn.state == FREE or conn.state == DRAINING:
        return
    state.drain.done += 1
    part(state, conn, DRAINED)


cdef inline void end_all(State* state, uint8_t reason) noexcept nogil:
    cdef uint32_t slot
    for slot in range(state.used_slots):
        if state.conns[slot].state != CLOSED and state.conns[slot].state != FREE:
            end(state, &state.conns[slot], reason)


cdef inline void drain_some(State* state) noexcept nogil:
    """Ends as many streams as are due since the drain began. At the window's end it closes every
    stream that is still inside a frame, and every later stream."""
    cdef uint64_t gone_ms = (state.now_us - state.drain.began_us) // 1000
    cdef uint64_t due
    if gone_ms >= state.drain.window_ms and state.drain.slot >= state.used_slots:
        end_all(state, DRAINED)
        return
    if gone_ms < state.drain.window_ms:
        due = <uint64_t>state.drain.total * gone_ms // state.drain.window_ms + 1
    else:
        due = state.drain.done + state.used_slots
    while state.drain.done < due and state.drain.slot < state.used_slots:
        send_away(state, &state.conns[state.drain.slot])
        state.drain.slot += 1
