# The sender thread: commands in, epoll events in, frames out, a tick now and then. It never needs
# the GIL and waits in one place only, `wait_for_events`.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from fastsse._channel cimport (
    EVERY_EVENT, Channel, channel_add, channel_at, channel_free, channel_remove, directory_clear,
    directory_init, grant, is_granted, last_value_set, link, topic_at, topic_remove)
from fastsse._counters cimport (
    CLIENT_CLOSED, CLIENT_DATA, DRAINED, RESET, STOPPED, TIMEOUT, bump)
from fastsse._frame cimport FrameData, frame_drop, frame_keep, frame_of_bytes
from fastsse._lag cimport act, judge
from fastsse._memory cimport numbers_items
from fastsse._os cimport (
    EFD_CLOEXEC, EFD_NONBLOCK, EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP,
    EPOLL_CLOEXEC, ETIMEDOUT, MSG_DONTWAIT, close, epoll_create1, epoll_event, epoll_wait, eventfd,
    eventfd_read, is_writable, monotonic_us, recv, relaxed_store, socket_error, watch)
from fastsse._queue cimport (
    ADD_CHANNEL, ATTACH, CLOSE, DRAIN, END_OF_PAGE, GRANT, LATEST, LINK, PAGE, PLAIN, PUBLISH,
    REMOVE_CHANNEL, REMOVE_TOPIC, SKIP, STOP, WIRE, Command, Node, command_topics, node_end, node_free,
    node_new,
    nodes_free, queue_awake, queue_clear, queue_init, queue_is_empty, queue_may_sleep, queue_take)
from fastsse._state cimport (
    COMMANDS_PER_TURN, EVENTS_PER_TURN, SENDS_PER_TURN, State, now_ds, random_below, read_clock)
from fastsse._sweep cimport (
    append, clear_blocked, conn_channel, end, join_channel, lacks_something, leave_channel,
    make_ready, next_ready, next_work, rest, set_blocked, sweep, visit)
from fastsse._table cimport (
    BLOCKED, CHUNKED, CLOSED, Conn, DRAINING, FREE, LIVE, NONE, READY, REPLAY, SUSPECT)

cdef enum:
    CLOCK_ROUND_MS = 1_000     # the clock hand goes once round the table in this time
    WAKE_TAG = 0xFFFFFFFFFFFFFFFF


# ---- commands ----------------------------------------------------------------------------------

cdef inline bint may_get(State* state, Channel* channel, Command* command) noexcept nogil:
    """A private event needs a grant of one of its topics, be it another than the linked one."""
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
    cdef Channel* channel
    for index in range(state.directory.topics[topic].channels.count):
        channel = state.directory.channels[channels[index]]
        if channel.last_sequence != state.sequence and may_get(state, channel, command):
            append(state, channel, command.frame, command.accepted_us, command.policy)


cdef inline void on_publish(State* state, Command* command) noexcept nogil:
    cdef uint32_t* topics = command_topics(command)
    cdef uint32_t index
    # Who may see a private event on several topics is no matter of one of them, so it can't be a
    # topic's last value: who is lapped over it is told a gap.
    if command.frame.is_private and command.topic_count > 1 and command.policy == LATEST:
        command.policy = SKIP
    state.sequence += 1
    deliver_to(state, EVERY_EVENT, command)
    for index in range(command.topic_count):
        deliver_to(state, topics[index], command)
        if command.policy == LATEST:
            last_value_set(&state.directory, topics[index], command.frame, state.sequence)


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
    conn.flags = (conn.flags & READY) | (CHUNKED if command.chunked else 0)
    conn.state = REPLAY
    if command.slot >= state.used_slots:
        state.used_slots = command.slot + 1
    bump(&state.counters.connections, 1)
    bump(&state.counters.connections_total, 1)
    if command.live:
        join_channel(state, conn)
    if watch(state.poller, conn.fd, command.slot | <uint64_t>command.generation << 32,
             EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET):
        end(state, conn, RESET)
    else:
        make_ready(state, conn)


cdef inline Conn* addressed(State* state, Command* command) noexcept nogil:
    """The connection a command means, unless it has ended or is ending."""
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
        join_channel(state, conn)
    make_ready(state, conn)


cdef inline void begin_farewell(
        State* state, Conn* conn, uint8_t reason, FrameData* farewell) noexcept nogil:
    """From a frame boundary: the farewell, the last chunk, FIN. Takes over the reference."""
    cdef Node** at
    cdef Node* node
    if conn.state == LIVE:
        leave_channel(state, conn)
    # A frame that was begun must be ended, and a head not sent yet must be: without it the
    # farewell would be no answer.
    at = &conn.private.next if conn.offset else &conn.private
    while at[0] is not NULL:
        if at[0].kind == WIRE:
            at = &at[0].next
        else:
            at[0] = node_free(at[0])
    if farewell is not NULL:
        at[0] = node_new(farewell, PLAIN)
        at = &at[0].next
    if conn.flags & CHUNKED:
        at[0] = node_new(frame_keep(state.last_chunk), WIRE)
    conn.state = DRAINING
    conn.reason = reason
    conn.stalled_ds = now_ds(state)
    if conn.private is NULL:
        end(state, conn, reason)
    else:
        make_ready(state, conn)


cdef inline void on_close(State* state, Command* command) noexcept nogil:
    cdef Conn* conn = addressed(state, command)
    if conn is not NULL:
        begin_farewell(state, conn, command.reason, command.frame)
        command.frame = NULL


cdef inline void on_add_channel(State* state, Command* command) noexcept nogil:
    cdef Channel* channel = channel_add(&state.directory, command.channel)
    cdef uint32_t index
    cdef uint32_t links = command.topic_count - command.grant_count
    for index in range(command.topic_count):
        if index < links:
            link(&state.directory, command_topics(command)[index], channel)
        else:
            grant(&state.directory, command_topics(command)[index], channel)
    bump(&state.counters.channels, 1)


cdef inline void on_remove_channel(State* state, Command* command) noexcept nogil:
    cdef Channel* channel = channel_at(&state.directory, command.channel)
    if channel is not NULL and channel.conns.count == 0:
        if state.span.channel is channel:
            state.span.channel = NULL
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


cdef inline void obey(State* state, Command* command) noexcept nogil:
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
    elif command.kind == DRAIN:
        on_drain(state, command)
    elif command.kind == STOP:
        state.running = False


cdef inline void obey_some(State* state) noexcept nogil:
    cdef uint32_t left = COMMANDS_PER_TURN
    cdef Command* command
    while left and state.running:
        command = queue_take(&state.queue)
        if command is NULL:
            return
        obey(state, command)
        frame_drop(command.frame)
        command.frame = NULL
        nodes_free(command.nodes)
        command.nodes = NULL
        left -= 1


# ---- events ------------------------------------------------------------------------------------

cdef inline void on_writable(State* state, Conn* conn) noexcept nogil:
    """The socket has room again. If the ring was trimmed past the cursor meanwhile, the lag policy
    decides before anything is sent."""
    clear_blocked(state, conn)
    if conn.state == LIVE and conn.cursor < conn_channel(state, conn).ring.trimmed_through:
        act(state, conn_channel(state, conn), conn)
    if conn.state != CLOSED:
        make_ready(state, conn)


cdef inline void on_error(State* state, Conn* conn) noexcept nogil:
    cdef int error = socket_error(conn.fd)
    if error == ETIMEDOUT:
        end(state, conn, TIMEOUT)
    else:
        end(state, conn, RESET if error else CLIENT_CLOSED)


cdef inline void on_readable(State* state, Conn* conn) noexcept nogil:
    """A subscriber has nothing more to say after its request."""
    cdef char byte
    cdef ssize_t got = recv(conn.fd, &byte, 1, MSG_DONTWAIT)
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
        or not queue_is_empty(&state.queue) or not state.running


cdef inline int sleep_ms(State* state) noexcept nogil:
    cdef int64_t left_us = <int64_t>(state.next_tick_us - read_clock(state))
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


# ---- the tick ----------------------------------------------------------------------------------

cdef inline bint heartbeat_is_due(State* state, Conn* conn) noexcept nogil:
    """After 80 to 100 % of the interval, by slot, so that a broadcast does not line up all the
    heartbeats that follow it."""
    cdef uint32_t interval = state.options.heartbeat_ds
    cdef uint32_t early = interval * ((slot_hash(conn, state) & 255)) // 1280
    return interval and now_ds(state) - conn.touched_ds >= interval - early


cdef inline uint32_t slot_hash(Conn* conn, State* state) noexcept nogil:
    return (<uint32_t>(conn - state.conns) * 2654435761u) >> 16


cdef inline void rescue_if_missed(State* state, Conn* conn) noexcept nogil:
    """A blocked socket that poll calls writable on two looks in a row, with no event between, has
    lost its edge. It should never happen, and is counted so that it can be seen not to."""
    if not is_writable(conn.fd):
        conn.flags &= <uint8_t>~SUSPECT
    elif not conn.flags & SUSPECT:
        conn.flags |= SUSPECT
    else:
        bump(&state.counters.missed_edges, 1)
        on_writable(state, conn)


cdef inline void look_at(State* state, Conn* conn) noexcept nogil:
    cdef Channel* channel
    if conn.state == CLOSED or conn.state == FREE:
        return
    if conn.flags & BLOCKED:
        judge(state, conn)
        if conn.state != CLOSED and conn.flags & BLOCKED:
            rescue_if_missed(state, conn)
        return
    if conn.private is NULL and conn.state != DRAINING and heartbeat_is_due(state, conn) \
            and not lacks_something(state, conn):
        bump(&state.counters.heartbeats, 1)
        conn.private = node_new(frame_keep(state.heartbeat), PLAIN)
        make_ready(state, conn)
    if conn.state == LIVE:
        channel = conn_channel(state, conn)
        if channel.ring.count and not channel.queued:
            rest(state, channel)


cdef inline void move_clock_hand(State* state) noexcept nogil:
    """Looks at a slice of the table: lag, missed edges, heartbeats."""
    cdef uint32_t left = state.used_slots * state.options.tick_ms // CLOCK_ROUND_MS + 1
    while left and state.used_slots:
        if state.clock_hand >= state.used_slots:
            state.clock_hand = 0
            relaxed_store(&state.counters.lag_bytes, state.lag_seen_bytes)
            state.lag_seen_bytes = 0
        look_at(state, &state.conns[state.clock_hand])
        state.clock_hand += 1
        left -= 1


cdef inline FrameData* retry_frame(State* state) noexcept nogil:
    """`retry:` between one and two times the usual, and a field line only: a blank line would make
    some client libraries emit an empty event."""
    cdef char body[32]
    cdef uint32_t retry_ms = state.options.retry_ms + random_below(state, state.options.retry_ms + 1)
    return frame_of_bytes(body, snprintf(body, sizeof(body), b"retry: %u\n", retry_ms), True)


cdef inline void send_away(State* state, Conn* conn) noexcept nogil:
    if conn.state == CLOSED or conn.state == FREE or conn.state == DRAINING:
        return
    state.drain.done += 1
    if not conn.flags & BLOCKED:
        visit(state, conn)     # what it still lacks, if one send can give it
    if conn.state != CLOSED:
        begin_farewell(state, conn, DRAINED, retry_frame(state))


cdef inline void end_all(State* state, uint8_t reason) noexcept nogil:
    cdef uint32_t slot
    for slot in range(state.used_slots):
        if state.conns[slot].state != CLOSED and state.conns[slot].state != FREE:
            end(state, &state.conns[slot], reason)


cdef inline void drain_some(State* state) noexcept nogil:
    """Sends as many away as the time gone by since the drain began asks for; the window's end
    closes whoever is still inside a frame, and whoever came after."""
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


cdef inline void tick_if_due(State* state) noexcept nogil:
    if state.now_us < state.next_tick_us:
        return
    state.next_tick_us = state.now_us + state.options.tick_ms * 1000
    if state.drain.on:
        drain_some(state)
    move_clock_hand(state)


# ---- the thread --------------------------------------------------------------------------------

cdef inline void send_some(State* state) noexcept nogil:
    """A turn's worth of sends. Ready connections get at most half of it, so that a storm of
    newcomers or of catching up does not hold up the channels."""
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
        obey_some(state)
        send_some(state)
        wait_for_events(state)
        tick_if_due(state)
    end_all(state, STOPPED)
    return NULL


cdef inline int state_init(State* state) noexcept nogil:
    """Makes what the options ask for; 0, or -1 with errno set and nothing left open. The table is
    mapped whole and touched page by page as it fills, so its size costs nothing in advance."""
    state.conns = <Conn*>calloc(state.options.max_connections, sizeof(Conn))
    state.poller = epoll_create1(EPOLL_CLOEXEC)
    state.notices.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
    queue_init(&state.queue, eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC))
    directory_init(&state.directory)
    state.heartbeat = frame_of_bytes(b":\n", 2, True)
    state.last_chunk = frame_of_bytes(b"0\r\n\r\n", 5, False)
    state.first_ready = NONE
    state.began_us = state.now_us = read_clock(state)
    state.random = state.began_us | 1
    if state.conns is NULL or state.poller < 0 or state.notices.fd < 0 or state.queue.wake_fd < 0 \
            or watch(state.poller, state.queue.wake_fd, WAKE_TAG, EPOLLIN):
        state_clear(state)
        return -1
    return 0


cdef inline void close_if_open(int fd) noexcept nogil:
    if fd >= 0:
        close(fd)


cdef inline void state_clear(State* state) noexcept nogil:
    """Frees everything but the counters, once; the thread has ended or never ran."""
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
    while True:                # an attach that was never obeyed still owns its socket
        command = queue_take(&state.queue)
        if command is NULL:
            break
        close_if_open(command.fd)
        frame_drop(command.frame)
        nodes_free(command.nodes)
        command.frame = NULL
        command.nodes = NULL
    queue_clear(&state.queue)
    directory_clear(&state.directory)
    frame_drop(state.heartbeat)
    frame_drop(state.last_chunk)
    free(state.conns)
    state.conns = NULL
    close_if_open(state.poller)
    close_if_open(state.notices.fd)
    close_if_open(state.queue.wake_fd)
    state.poller = state.notices.fd = state.queue.wake_fd = -1
