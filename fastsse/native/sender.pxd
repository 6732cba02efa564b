# The sender thread reads commands and epoll events, writes frames, and ticks. It never needs
# the GIL, and waits in one place only, `wait_for_events`. Over 400 lines: each command is a few, and all
# are steps of this one loop.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from fastsse.native.channel cimport (
    EVERY_EVENT, Channel, channel_add, channel_at, channel_free, channel_remove, directory_clear,
    directory_init, grant, is_granted, last_value_set, link, rate_of, take_view, topic_at,
    topic_remove)
from fastsse.native.claims cimport CLAIM_WORDS, Claim, Revocation, revoking_add, revoking_clear
from fastsse.native.clock cimport read_wall_clock, tick_if_due
from fastsse.native.counters cimport (
    CLIENT_CLOSED, CLIENT_DATA, LAGGED, RESET, STOPPED, TIMEOUT, bump)
from fastsse.native.ending cimport be_over, end_some, check_channel_over, set_ended
from fastsse.native.facts cimport all_topics
from fastsse.native.farewell cimport begin_farewell, cut_at_gap, end_all
from fastsse.native.frame cimport (
    FrameData, frame_drop, frame_keep, frame_of_bytes, is_notice)
from fastsse.native.inspection cimport Inspection, on_inspect
from fastsse.native.lag cimport on_writable
from fastsse.native.look cimport find_envelope, look_at_event, look_end, look_free
from fastsse.native.membership cimport (
    STREAM_EVENTS, conn_channel, discard_input, end, join_channel, make_ready, next_ready, next_work,
    tag_of)
from fastsse.native.memory cimport numbers_clear, numbers_items
from fastsse.native.offer cimport offer
from fastsse.native.os cimport (
    EFD_CLOEXEC, EFD_NONBLOCK, EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLL_CLOEXEC,
    ETIMEDOUT, MSG_DONTWAIT, close, epoll_create1, epoll_event, epoll_wait, eventfd, eventfd_read,
    recv, socket_error, watch)
from fastsse.native.queue cimport (
    ADD_CHANNEL, ANNOUNCE, ATTACH, CLOSE, DISCONNECT, DRAIN, END_TOPIC, GRANT, INSPECT, LATEST, LINK,
    OPEN_ROW, PAGE, PONG, SEAL_ROW,
    PUBLISH, REMOVE_CHANNEL, REMOVE_TOPIC, RENEW, REVOKE, SKIP, STOP, SEND_DIRECT, DIRECT, Command,
    Node, command_clear, command_topics, node_end, node_new, nodes_free, queue_awake, queue_clear, queue_init,
    queue_is_empty, queue_may_sleep, queue_take)
from fastsse.native.rate cimport flush, flush_due, rate_clear, rate_new
from fastsse.native.record_seal cimport RECORDS_MAX, sealer_free, sealer_new
from fastsse.native.revoke cimport revoke_some
from fastsse.native.sealed_row cimport SealedRow
from fastsse.native.sealing cimport (
    begin_waiting, change_over, end_waiting, is_sealed, on_sealed_input)
from fastsse.native.state cimport (
    COMMANDS_PER_TURN, EVENTS_PER_TURN, SENDS_PER_TURN, State, now_ds, read_clock)
from fastsse.native.sweep cimport append, sweep, visit
from fastsse.native.table cimport (
    BEAT_PADS, BLOCKED, CHUNKED, CLAIMED, CLOSED, Conn, DRAINING, NONE, PINGED, Pulse, READY, REPLAY)

cdef enum:
    WAKE_TAG = 0xFFFFFFFFFFFFFFFF


# ---- commands ----------------------------------------------------------------------------------

cdef inline bint may_get(State* state, Channel* channel, Command* command) noexcept nogil:
    """Whether a channel may get an event. A private one needs a grant of one of its topics, not
    necessarily of the topic that links the channel."""
    cdef uint32_t index
    if not command.frame.is_private or channel.granted_all:
        return True
    for index in range(command.topic_count):
        if is_granted(&state.directory, command_topics(command)[index], channel):
            return True
    return False


cdef inline void deliver_to(State* state, uint32_t topic, Command* command) noexcept nogil:
    cdef uint32_t* channels = numbers_items(&topic_at(&state.directory, topic).channels)
    cdef uint32_t index
    cdef bint notice = is_notice(command.frame)
    cdef Channel* channel
    for index in range(state.directory.topics[topic].channels.count):
        channel = state.directory.channels[channels[index]]
        if channel.last_sequence == state.sequence or not may_get(state, channel, command):
            continue
        if notice and (channel.view is NULL or not channel.view.has_notices):
            continue
        if channel.view is not NULL:
            offer(state, channel, command)
        else:
            append(state, channel, command.frame, state.sequence, command.accepted_us,
                   command.policy, False)


cdef inline void set_last_values(State* state, Command* command) noexcept nogil:
    """Keeps the event as the newest of its topics, with its twin that shows all topics, if some
    channel was sent that twin."""
    cdef FrameData* envelope = find_envelope(&state.look, all_topics())
    cdef uint32_t index
    for index in range(command.topic_count):
        last_value_set(&state.directory, command_topics(command)[index], command.frame, envelope,
                       state.sequence)


cdef inline void count_look(State* state) noexcept nogil:
    if state.look.twins_made:
        bump(&state.counters.envelopes, <int64_t>state.look.twins_made)
        state.look.twins_made = 0
    if state.look.filter_errors:
        bump(&state.counters.filter_errors, <int64_t>state.look.filter_errors)
        state.look.filter_errors = 0


cdef inline void on_publish(State* state, Command* command) noexcept nogil:
    cdef uint32_t* topics = command_topics(command)
    cdef uint32_t index
    # A private event on several topics can't be the last value of one topic, because the right to
    # see it does not depend on one topic. A stream that falls behind it receives a `fastsse.gap`
    # event.
    if command.frame.is_private and command.topic_count > 1 and command.policy == LATEST:
        command.policy = SKIP
    state.sequence += 1
    look_at_event(&state.look, command.frame, command.facts)
    if command.frame.position_ms:  # A frame without a position goes to its topics only.
        deliver_to(state, EVERY_EVENT, command)
    for index in range(command.topic_count):
        deliver_to(state, topics[index], command)
    if command.policy == LATEST:
        set_last_values(state, command)
    count_look(state)
    look_end(&state.look)


cdef inline void cut_all_at_gap(State* state, Channel* channel) noexcept nogil:
    """Each ended stream leaves the list. The last one is ended first, so that none moves to
    another's place."""
    cdef uint32_t left = channel.conns.count
    while left:
        left -= 1
        cut_at_gap(state, &state.conns[numbers_items(&channel.conns)[left]])


cdef inline void on_announce(State* state, Command* command) noexcept nogil:
    """LIVE streams get it through their rings. A stream in REPLAY gets it after its present pages
    and before any later command, as every other stream."""
    cdef uint32_t number
    cdef Channel* channel
    cdef Conn* conn
    state.sequence += 1
    for number in range(state.directory.channel_capacity):
        channel = state.directory.channels[number]
        if channel is not NULL and rate_of(channel) is not NULL:
            flush(state, channel)
        if channel is not NULL and channel.is_quiet:
            cut_all_at_gap(state, channel)
        elif channel is not NULL:
            append(state, channel, command.frame, state.sequence, command.accepted_us, DISCONNECT,
                   False)
    for number in range(state.used_slots):
        conn = &state.conns[number]
        if conn.state == REPLAY and conn_channel(state, conn).is_quiet:
            cut_at_gap(state, conn)
        elif conn.state == REPLAY:
            node_end(&conn.private)[0] = node_new(frame_keep(command.frame), DIRECT)
            make_ready(state, conn)
    bump(&state.counters.announced, 1)


cdef inline void set_claim(State* state, uint32_t slot, Claim claim) noexcept nogil:
    state.claims_given += 1
    claim.given = state.claims_given
    state.claims[slot] = claim


cdef inline void set_pulse(State* state, uint32_t slot) noexcept nogil:
    cdef Pulse* pulse = &state.pulses[slot]
    pulse.pinged_ds = now_ds(state)
    pulse.unanswered_ds = 0


cdef inline void go_live(State* state, Conn* conn) noexcept nogil:
    """Makes a stream live. If its channel is already over, the stream ends next."""
    cdef Channel* channel = conn_channel(state, conn)
    join_channel(state, conn)
    if channel.end_frame is not NULL:
        be_over(state, channel, channel.end_frame)


cdef inline void on_attach(State* state, Command* command) noexcept nogil:
    cdef Conn* conn = &state.conns[command.slot]
    conn.private = command.nodes
    command.nodes = NULL
    conn.fd = command.fd
    conn.generation = command.generation
    conn.channel = command.channel
    conn.bytes_sent = conn.events_sent = 0
    conn.offset = 0
    conn.opened_ds = conn.touched_ds = conn.stalled_ds = now_ds(state)
    conn.beat = command.beat
    conn.flags = (conn.flags & READY) | (CHUNKED if command.chunked else 0)
    conn.state = REPLAY
    if command.topic_count == CLAIM_WORDS:
        conn.flags |= CLAIMED
        set_claim(state, command.slot, (<Claim*>command_topics(command))[0])
    if command.pinged:
        conn.flags |= PINGED
        set_pulse(state, command.slot)
    if command.slot >= state.used_slots:
        state.used_slots = command.slot + 1
    if command.waits:
        begin_waiting(state, conn)
    bump(&state.counters.connections, 1)
    bump(&state.counters.connections_total, 1)
    if command.live:
        go_live(state, conn)
    if watch(state.poller, conn.fd, tag_of(state, conn), STREAM_EVENTS):
        end(state, conn, RESET)
    else:
        make_ready(state, conn)


cdef inline Conn* addressed(State* state, Command* command) noexcept nogil:
    """The connection that a command names; NULL if it has ended or is ending."""
    cdef Conn* conn = &state.conns[command.slot]
    if conn.generation != command.generation or conn.state == CLOSED or conn.state == DRAINING:
        return NULL
    return conn


cdef inline void on_page(State* state, Command* command) noexcept nogil:
    cdef Conn* conn = addressed(state, command)
    if conn is NULL or conn.state != REPLAY:
        return
    node_end(&conn.private)[0] = command.nodes
    command.nodes = NULL
    if command.live:
        go_live(state, conn)
    make_ready(state, conn)


cdef inline void on_close(State* state, Command* command) noexcept nogil:
    cdef Conn* conn = addressed(state, command)
    if conn is not NULL:
        begin_farewell(state, conn, command.reason, command.frame, command.is_over)
        command.frame = NULL


cdef inline void on_send_direct(State* state, Command* command) noexcept nogil:
    """A stream with a full socket may queue as many bytes as its lag limit. Above that it ends."""
    cdef Conn* conn = addressed(state, command)
    cdef uint64_t waiting_bytes = 0
    cdef Node** at
    if conn is NULL:
        return
    at = &conn.private
    while at[0] is not NULL:
        if at[0].kind == DIRECT:
            waiting_bytes += at[0].frame.body_bytes
        at = &at[0].next
    if conn.flags & BLOCKED and waiting_bytes > state.options.max_lag_bytes:
        end(state, conn, LAGGED)
        return
    at[0] = node_new(command.frame, DIRECT)
    command.frame = NULL
    bump(&state.counters.direct, 1)
    make_ready(state, conn)


cdef inline void on_renew(State* state, Command* command) noexcept nogil:
    """Sets the claims of a renewed token. The subject stays: it is the client that opened the
    stream."""
    cdef Conn* conn = addressed(state, command)
    cdef Claim claim
    if conn is NULL:
        return
    claim = (<Claim*>command_topics(command))[0]
    claim.subject = state.claims[command.slot].subject if conn.flags & CLAIMED else 0
    conn.flags |= CLAIMED
    set_claim(state, command.slot, claim)
    bump(&state.counters.renewed, 1)


cdef inline void on_revoke(State* state, Command* command) noexcept nogil:
    cdef Revocation revocation = (<Revocation*>command_topics(command))[0]
    state.claims_given += 1
    revocation.given = state.claims_given
    revoking_add(&state.revoking, revocation)
    bump(&state.counters.revocations, 1)


cdef inline void on_pong(State* state, Command* command) noexcept nogil:
    cdef Conn* conn = addressed(state, command)
    if conn is not NULL and conn.flags & PINGED:
        state.pulses[command.slot].unanswered_ds = 0
        bump(&state.counters.pongs, 1)


cdef inline void on_add_channel(State* state, Command* command) noexcept nogil:
    cdef Channel* channel = channel_add(&state.directory, command.channel)
    cdef uint32_t index
    cdef uint32_t links = command.topic_count - command.grant_count
    channel.is_quiet = command.quiet
    take_view(channel, command.view)
    command.view = NULL
    if channel.view is not NULL and channel.view.interval_ms:
        channel.judged.rate = rate_new(channel.view.interval_ms)
    for index in range(command.topic_count):
        if index < links:
            link(&state.directory, command_topics(command)[index], channel)
        else:
            grant(&state.directory, command_topics(command)[index], channel)
    channel.can_end = command.can_end
    check_channel_over(state, channel)
    bump(&state.counters.channels, 1)


cdef inline void on_remove_channel(State* state, Command* command) noexcept nogil:
    cdef Channel* channel = channel_at(&state.directory, command.channel)
    if channel is not NULL and channel.conns.count == 0:
        if state.span.channel is channel:
            state.span.channel = NULL
        rate_clear(state, channel)
        channel_remove(&state.directory, channel)
        bump(&state.counters.channels, -1)


cdef inline void on_link(State* state, Command* command) noexcept nogil:
    cdef Channel* channel = channel_at(&state.directory, command.channel)
    if channel is not NULL:
        link(&state.directory, command_topics(command)[0], channel)


cdef inline void on_grant(State* state, Command* command) noexcept nogil:
    cdef Channel* channel = channel_at(&state.directory, command.channel)
    if channel is not NULL:
        grant(&state.directory, command_topics(command)[0], channel)


cdef inline void on_drain(State* state, Command* command) noexcept nogil:
    state.drain.on = True
    state.drain.window_ms = command.window_ms
    state.drain.began_us = state.now_us
    state.drain.total = <uint32_t>state.counters.connections
    state.drain.done = 0
    state.drain.slot = 0


cdef inline void apply_command(State* state, Command* command) noexcept nogil:
    if command.kind == PUBLISH:
        on_publish(state, command)
    elif command.kind == ATTACH:
        on_attach(state, command)
    elif command.kind == PAGE:
        on_page(state, command)
    elif command.kind == CLOSE:
        on_close(state, command)
    elif command.kind == ADD_CHANNEL:
        on_add_channel(state, command)
    elif command.kind == REMOVE_CHANNEL:
        on_remove_channel(state, command)
    elif command.kind == LINK:
        on_link(state, command)
    elif command.kind == GRANT:
        on_grant(state, command)
    elif command.kind == REMOVE_TOPIC:
        topic_remove(&state.directory, command_topics(command)[0])
    elif command.kind == SEND_DIRECT:
        on_send_direct(state, command)
    elif command.kind == ANNOUNCE:
        on_announce(state, command)
    elif command.kind == RENEW:
        on_renew(state, command)
    elif command.kind == REVOKE:
        on_revoke(state, command)
    elif command.kind == PONG:
        on_pong(state, command)
    elif command.kind == DRAIN:
        on_drain(state, command)
    elif command.kind == END_TOPIC:
        set_ended(state, command_topics(command)[0], command.frame)
    elif command.kind == SEAL_ROW:
        change_over(state, command)
    elif command.kind == OPEN_ROW:
        end_waiting(state, command)
    elif command.kind == INSPECT:
        on_inspect(state, (<Inspection**>command_topics(command))[0], command.live)
    elif command.kind == STOP:
        state.running = False


cdef inline void apply_commands(State* state) noexcept nogil:
    cdef uint32_t left = COMMANDS_PER_TURN
    cdef Command* command
    while left and state.running:
        command = queue_take(&state.queue)
        if command is NULL:
            return
        apply_command(state, command)
        command_clear(command)
        left -= 1


# ---- events ------------------------------------------------------------------------------------

cdef inline void on_error(State* state, Conn* conn) noexcept nogil:
    cdef int error = socket_error(conn.fd)
    if error == ETIMEDOUT:
        end(state, conn, TIMEOUT)
    else:
        end(state, conn, RESET if error else CLIENT_CLOSED)


cdef inline void on_readable(State* state, Conn* conn) noexcept nogil:
    """Ends a stream whose client closed, or sent bytes after its request. If the stream is already
    ending, the bytes are discarded."""
    cdef char byte
    cdef ssize_t got
    if conn.state == DRAINING:
        discard_input(conn)
        return
    if is_sealed(state, conn):
        on_sealed_input(state, conn)
        return
    got = recv(conn.fd, &byte, 1, MSG_DONTWAIT)
    if got >= 0:
        end(state, conn, CLIENT_DATA if got else CLIENT_CLOSED)


cdef inline void on_event(State* state, epoll_event* event) noexcept nogil:
    cdef uint32_t slot = <uint32_t>event.data.u64
    cdef uint32_t generation = <uint32_t>(event.data.u64 >> 32)
    cdef uint64_t count
    cdef Conn* conn
    if event.data.u64 == WAKE_TAG:
        eventfd_read(state.queue.wake_fd, &count)
        return
    conn = &state.conns[slot]
    if conn.generation != generation or conn.state == CLOSED:
        return                 # of a socket that ended earlier in this batch
    if event.events & (EPOLLERR | EPOLLHUP):
        on_error(state, conn)
    elif event.events & EPOLLRDHUP:
        end(state, conn, CLIENT_CLOSED)
    elif event.events & EPOLLIN:
        on_readable(state, conn)
    if event.events & EPOLLOUT and conn.state != CLOSED and conn.flags & BLOCKED:
        on_writable(state, conn)


cdef inline bint has_work(State* state) noexcept nogil:
    return state.first_ready != NONE or state.first_work is not NULL \
        or state.revoking.first is not NULL or not queue_is_empty(&state.queue) or not state.running


cdef inline int sleep_ms(State* state) noexcept nogil:
    cdef int64_t left_us = <int64_t>(state.next_tick_us - read_clock(state))
    if state.rated.count:
        left_us = min(left_us, <int64_t>(state.next_rate_us - read_clock(state)))
    if state.counters.connections == 0 and not state.drain.on:
        return -1
    return <int>((left_us + 999) // 1000) if left_us > 0 else 0


cdef inline void wait_for_events(State* state) noexcept nogil:
    cdef epoll_event[EVENTS_PER_TURN] events
    cdef int timeout_ms = 0
    cdef int count
    cdef int index
    if not has_work(state) and queue_may_sleep(&state.queue):
        timeout_ms = sleep_ms(state)
    count = epoll_wait(state.poller, events, EVENTS_PER_TURN, timeout_ms)
    queue_awake(&state.queue)
    state.now_us = read_clock(state)
    for index in range(count):
        on_event(state, &events[index])


# ---- the thread --------------------------------------------------------------------------------

cdef inline void send_some(State* state) noexcept nogil:
    """Runs the sends of one turn. Ready connections get at most half of them, so that many new or
    replaying streams do not delay the channels."""
    cdef Conn* conn
    cdef Channel* channel
    state.sends_left = SENDS_PER_TURN // 2
    while state.sends_left:
        conn = next_ready(state)
        if conn is NULL:
            break
        visit(state, conn)
    state.sends_left += SENDS_PER_TURN // 2
    while state.sends_left:
        channel = next_work(state)
        if channel is NULL:
            break
        if channel.removed:
            channel_free(channel)
        else:
            sweep(state, channel)


cdef inline void* sender_main(void* arg) noexcept nogil:
    cdef State* state = <State*>arg
    while state.running:
        apply_commands(state)
        flush_due(state)
        revoke_some(state)
        send_some(state)
        if state.has_new_ends:
            end_some(state)
        wait_for_events(state)
        tick_if_due(state)
    end_all(state, STOPPED)
    return NULL


cdef inline int state_init(State* state) noexcept nogil:
    """Creates everything for the options. Returns 0, or -1 with errno set and nothing left open.
    The table is mapped as a whole and touched page by page as it fills, so its size costs nothing
    in advance. The same holds for the other tables, which only streams with claims and pings
    fill."""
    state.conns = <Conn*>calloc(state.options.max_connections, sizeof(Conn))
    state.claims = <Claim*>calloc(state.options.max_connections, sizeof(Claim))
    state.pulses = <Pulse*>calloc(state.options.max_connections, sizeof(Pulse))
    if state.options.seals:
        state.sealed = <SealedRow*>calloc(state.options.max_connections, sizeof(SealedRow))
        state.sealer = sealer_new()
    state.poller = epoll_create1(EPOLL_CLOEXEC)
    state.notices.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
    queue_init(&state.queue, eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC))
    directory_init(&state.directory)
    state.last_chunk = frame_of_bytes(b"0\r\n\r\n", 5, False)
    state.blank = frame_of_bytes(b":\n\n", 3, True)
    state.first_ready = NONE
    state.records_max = RECORDS_MAX
    state.began_us = state.now_us = state.hand_moved_us = read_clock(state)
    read_wall_clock(state)
    state.random = state.began_us | 1
    if state.conns is NULL or state.claims is NULL or state.pulses is NULL \
            or (state.options.seals and (state.sealed is NULL or state.sealer is NULL)) \
            or state.poller < 0 or state.notices.fd < 0 or state.queue.wake_fd < 0 \
            or watch(state.poller, state.queue.wake_fd, WAKE_TAG, EPOLLIN):
        state_clear(state)
        return -1
    return 0


cdef inline void close_if_open(int fd) noexcept nogil:
    if fd >= 0:
        close(fd)


cdef inline void state_clear(State* state) noexcept nogil:
    """Frees everything except the counters. Call it once, after the thread ended or if it never
    ran."""
    cdef Channel* channel
    cdef uint32_t slot
    cdef Command* command
    if state.queue.head is NULL:
        return
    while True:
        channel = next_work(state)
        if channel is NULL:
            break
        if channel.removed:
            channel_free(channel)
    while True:                # an ATTACH that was never applied still owns its socket
        command = queue_take(&state.queue)
        if command is NULL:
            break
        close_if_open(command.fd)
        command_clear(command)
    queue_clear(&state.queue)
    numbers_clear(&state.over)
    directory_clear(&state.directory)
    for slot in range(BEAT_PADS):
        frame_drop(state.heartbeats[slot])
    frame_drop(state.last_chunk)
    frame_drop(state.blank)
    look_free(&state.look)
    numbers_clear(&state.rated)
    revoking_clear(&state.revoking)
    free(state.conns)
    free(state.claims)
    free(state.pulses)
    free(state.sealed)
    sealer_free(state.sealer)
    state.conns = NULL
    state.claims = NULL
    state.pulses = NULL
    state.sealed = NULL
    state.sealer = NULL
    close_if_open(state.poller)
    close_if_open(state.notices.fd)
    close_if_open(state.queue.wake_fd)
    state.poller = state.notices.fd = state.queue.wake_fd = -1
