# The door thread accepts TLS connections, has OpenSSL do the handshakes, and copies bytes between
# clients and the server. It never needs the GIL and waits in one place only, `wait_for_door_events`.
#
# The loop thread sends it commands and reads its notices. An accepted connection reaches the loop as
# one end of a socket pair. A turn copies first, and then makes one step of one handshake, because a
# step takes half a millisecond.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fastsse.native.certificates cimport (
    TICKET_KEY_BYTES, Certificates, certificates_free, certificates_serve, set_ticket_keys)
from fastsse.native.door_accept cimport (
    EVICTABLE_US, LISTENER_TAG, accept_some, advance_handshake, listen_if_room)
from fastsse.native.door_release cimport release_or_keep
from fastsse.native.door_table cimport (
    Door, GENERATIONS, LISTENERS_MAX, Notice, PAIR_SIDE, Waiting, ask_for_room, leave_phase,
    next_visit, notice_free, notify_failure, relay_end, row_release, visit_later, wait_in)
from fastsse.native.memory cimport alloc, release
from fastsse.native.os cimport (
    EAGAIN, EFD_CLOEXEC, EFD_NONBLOCK, EINTR, EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP,
    EPOLL_CLOEXEC, MSG_DONTWAIT, bump, cas_pointer, epoll_create1, epoll_event, epoll_wait,
    errno, eventfd, eventfd_read, eventfd_write, load_pointer, monotonic_us, recv, swap_pointer,
    unwatch, watch)
from fastsse.native.relay cimport (
    BROKE, DEAF, ENDED, FIRST, FLUSHING, GOES_ON, IN_FULL, LAST_SENT, LINGERING, OPEN, OUT_FULL,
    RECORD_BYTES, Relay, SHUT, Step, close_fd, copy_some, drop_ssl, relay_clear)

cdef enum:
    EVENTS_A_TURN = 256
    VISITS_A_TURN = 64
    # After the server has closed: time to send the rest, and then for the client's FIN.
    CLOSING_US = 5_000_000
    WAKE_TAG = 0xFFFFFFFFFFFFFFFF

cdef enum CommandKind:
    LISTEN
    CERTIFY
    SEAL
    PAUSE
    RELEASE
    QUIT


cdef struct DoorCommand:
    DoorCommand* next
    Certificates* certificates
    uint64_t pause_us
    uint64_t number            # of RELEASE: of the connection
    uint64_t asked             # of RELEASE: what the notice repeats
    uint32_t count             # of descriptors
    uint8_t kind
    uint8_t source
    unsigned char[TICKET_KEY_BYTES] ticket_keys
    int32_t[0] fds


# ---- commands ------------------------------------------------------------------------------------

cdef inline size_t door_command_bytes(uint32_t count) noexcept nogil:
    return sizeof(DoorCommand) + count * sizeof(int32_t)


cdef inline DoorCommand* door_command_new(uint8_t kind, uint32_t count) noexcept nogil:
    cdef DoorCommand* command = <DoorCommand*>alloc(door_command_bytes(count))
    command.next = NULL
    command.certificates = NULL
    command.pause_us = 0
    command.number = command.asked = 0
    command.count = count
    command.kind = kind
    command.source = 0
    return command


cdef inline void door_command_free(DoorCommand* command) noexcept nogil:
    """Frees a command and what it still owns."""
    cdef uint32_t index
    certificates_free(command.certificates)
    for index in range(command.count):
        close_fd(&command.fds[index])
    release(command, door_command_bytes(command.count))


cdef inline void door_send(Door* door, DoorCommand* command) noexcept nogil:
    """Loop thread: sends a command."""
    while True:
        command.next = <DoorCommand*>load_pointer(&door.commands)
        if cas_pointer(&door.commands, command.next, command):
            break
    eventfd_write(door.wake_fd, 1)


cdef inline void stop_listening(Door* door, uint8_t source) noexcept nogil:
    """Closes the door's copies of the listeners of one source."""
    cdef uint32_t index
    door.is_listening = False
    for index in range(door.listener_count):
        unwatch(door.poller, door.listeners[index].fd)
    index = 0
    while index < door.listener_count:
        if door.listeners[index].source == source:
            close_fd(&door.listeners[index].fd)
            door.listener_count -= 1
            door.listeners[index] = door.listeners[door.listener_count]
        else:
            index += 1


cdef inline void on_listen(Door* door, DoorCommand* command) noexcept nogil:
    cdef uint32_t index
    stop_listening(door, command.source)
    for index in range(command.count):
        if door.listener_count < LISTENERS_MAX:
            door.listeners[door.listener_count].fd = command.fds[index]
            door.listeners[door.listener_count].source = command.source
            door.listener_count += 1
            command.fds[index] = -1


cdef inline void apply_door_command(Door* door, DoorCommand* command) noexcept nogil:
    if command.kind == LISTEN:
        on_listen(door, command)
    elif command.kind == CERTIFY:
        certificates_free(door.certificates)
        door.certificates = command.certificates
        command.certificates = NULL
        certificates_serve(door.certificates, &door.certificates)
    elif command.kind == SEAL:
        if door.certificates is not NULL:
            set_ticket_keys(door.certificates, command.ticket_keys)
    elif command.kind == PAUSE:
        door.paused_until_us = door.now_us + command.pause_us
    elif command.kind == RELEASE:
        release_or_keep(door, command.number, command.asked)
    elif command.kind == QUIT:
        door.is_running = False


cdef inline void apply_door_commands(Door* door) noexcept nogil:
    cdef DoorCommand* command = <DoorCommand*>swap_pointer(&door.commands, NULL)
    cdef DoorCommand* older
    cdef DoorCommand* first = NULL
    while command is not NULL:             # oldest first
        older = command.next
        command.next = first
        first = command
        command = older
    while first is not NULL:
        command = first
        first = first.next
        apply_door_command(door, command)
        door_command_free(command)


# ---- copying -------------------------------------------------------------------------------------

cdef inline void advance_closing(Door* door, Relay* relay) noexcept nogil:
    """Closes a connection in two steps after the server closed its end: the rest is sent within a
    deadline, then the client's socket is read until its FIN. Closing a socket with unread input
    would reset it, and the client could lose the last data."""
    if relay.phase == OPEN and relay.flags & DEAF:
        leave_phase(door, relay)
        relay.phase = FLUSHING
        bump(&door.counters.closing, 1)
        wait_in(&door.closings, relay, door.now_us)
    if relay.phase == FLUSHING and relay.flags & SHUT:
        drop_ssl(relay)
        close_fd(&relay.pair_fd)
        relay.phase = LINGERING
        linger(door, relay)


cdef inline void linger(Door* door, Relay* relay) noexcept nogil:
    cdef int left = VISITS_A_TURN
    cdef ssize_t got = 1
    while left and got > 0:
        got = recv(relay.net_fd, door.scratch, RECORD_BYTES, MSG_DONTWAIT)
        left -= 1
    if got > 0:
        visit_later(&door.copies, relay)
    elif got == 0 or (errno != EAGAIN and errno != EINTR):
        relay_end(door, relay)


cdef inline void copy_now(Door* door, Relay* relay, bint only_out) noexcept nogil:
    cdef Step step
    if relay.phase == LINGERING:
        linger(door, relay)
        return
    step = copy_some(relay, door.scratch, door.options.pair_limit, only_out)
    if step == BROKE:
        relay_end(door, relay)
        return
    ask_for_room(door, relay)
    if relay.limited is not NULL and not relay.flags & SHUT:
        relay.flags &= <uint16_t>~OUT_FULL  # After a refusal by a test, epoll reports no edge.
        step = GOES_ON
    if step == GOES_ON:
        visit_later(&door.copies, relay)
    advance_closing(door, relay)


# ---- the thread ----------------------------------------------------------------------------------

cdef inline void on_relay_event(Door* door, Relay* relay, uint32_t events, bint is_pair) noexcept nogil:
    if is_pair:
        if events & EPOLLOUT:
            relay.flags &= <uint16_t>~IN_FULL
        if events & (EPOLLHUP | EPOLLRDHUP):
            relay.flags |= LAST_SENT
        if events & EPOLLHUP:
            relay.flags = (relay.flags | DEAF) & <uint16_t>~IN_FULL
    else:
        if events & EPOLLOUT:
            relay.flags &= <uint16_t>~OUT_FULL
        if events & (EPOLLERR | EPOLLHUP) and relay.phase >= OPEN:
            relay_end(door, relay)
            return
    if relay.phase <= FIRST:
        visit_later(&door.shakes, relay)
    else:
        # Bytes from the server are no event of the client, so its socket is not read.
        copy_now(door, relay, is_pair and events == EPOLLIN)


cdef inline void on_door_event(Door* door, epoll_event* event) noexcept nogil:
    cdef uint32_t upper = <uint32_t>(event.data.u64 >> 32)
    cdef uint32_t lower = <uint32_t>event.data.u64
    cdef uint32_t slot = lower & GENERATIONS
    cdef uint64_t count
    if event.data.u64 == WAKE_TAG:
        eventfd_read(door.wake_fd, &count)
    elif upper == LISTENER_TAG:
        if door.is_listening and lower < door.listener_count:
            accept_some(door, &door.listeners[lower])
    elif slot < door.row_count and door.rows[slot] is not NULL \
            and door.rows[slot].generation == upper and door.rows[slot].phase != ENDED:
        on_relay_event(door, door.rows[slot], event.events, lower & PAIR_SIDE)


cdef inline int64_t due_in_us(Door* door, Waiting* waiting, uint64_t span_us, int64_t soonest_us) noexcept nogil:
    if waiting.oldest is NULL:
        return soonest_us
    return min(soonest_us, <int64_t>(waiting.oldest.since_us + span_us - door.now_us))


cdef inline int door_sleep_ms(Door* door) noexcept nogil:
    cdef int64_t never = 1 << 40
    cdef int64_t left_us = never
    if door.shakes.first is not NULL or door.copies.first is not NULL:
        return 0
    left_us = due_in_us(door, &door.hellos, door.options.handshake_timeout_us, left_us)
    left_us = due_in_us(door, &door.closings, CLOSING_US, left_us)
    if not door.is_listening:
        left_us = due_in_us(door, &door.hellos, EVICTABLE_US, left_us)
        if door.paused_until_us > door.now_us:
            left_us = min(left_us, <int64_t>(door.paused_until_us - door.now_us))
    if left_us == never:
        return -1
    return <int>((left_us + 999) // 1000) if left_us > 0 else 0


cdef inline void wait_for_door_events(Door* door) noexcept nogil:
    cdef epoll_event[EVENTS_A_TURN] events
    cdef int count = epoll_wait(door.poller, events, EVENTS_A_TURN, door_sleep_ms(door))
    cdef int index
    door.now_us = monotonic_us()
    for index in range(count):
        on_door_event(door, &events[index])


cdef inline void visit_some(Door* door) noexcept nogil:
    cdef int left = VISITS_A_TURN
    cdef Relay* relay
    while left:
        relay = next_visit(&door.copies)
        if relay is NULL:
            break
        left -= 1
        if relay.phase == ENDED:
            row_release(door, relay)
        else:
            copy_now(door, relay, False)
    relay = next_visit(&door.shakes)
    if relay is NULL:
        return
    if relay.phase == ENDED:
        row_release(door, relay)
    else:
        advance_handshake(door, relay)


cdef inline void end_overdue(Door* door) noexcept nogil:
    while door.hellos.oldest is not NULL \
            and door.hellos.oldest.since_us + door.options.handshake_timeout_us <= door.now_us:
        bump(&door.counters.timed_out, 1)
        notify_failure(door, door.hellos.oldest, 0)
        relay_end(door, door.hellos.oldest)
    while door.closings.oldest is not NULL \
            and door.closings.oldest.since_us + CLOSING_US <= door.now_us:
        relay_end(door, door.closings.oldest)


cdef inline void* door_main(void* argument) noexcept nogil:
    cdef Door* door = <Door*>argument
    door.now_us = monotonic_us()
    while True:
        apply_door_commands(door)
        if not door.is_running:
            return NULL
        listen_if_room(door)
        wait_for_door_events(door)
        visit_some(door)
        end_overdue(door)


cdef inline int door_init(Door* door) noexcept nogil:
    """0, or -1 with errno set and nothing left open."""
    door.poller = epoll_create1(EPOLL_CLOEXEC)
    door.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
    door.notice_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
    door.is_running = True
    if door.poller < 0 or door.wake_fd < 0 or door.notice_fd < 0 \
            or watch(door.poller, door.wake_fd, WAKE_TAG, EPOLLIN):
        door_clear(door)
        return -1
    return 0


cdef inline void door_clear(Door* door) noexcept nogil:
    """Closes and frees everything except the counters. Call it once, after the thread ended or if
    it never ran."""
    cdef Notice* notice
    cdef Notice* next_notice
    cdef Relay* relay
    cdef uint32_t index
    apply_door_commands(door)
    notice = <Notice*>swap_pointer(&door.notices, NULL)
    while notice is not NULL:
        next_notice = notice.next
        close_fd(&notice.fd)
        close_fd(&notice.pair_fd)
        notice_free(notice)
        notice = next_notice
    for index in range(door.row_count):
        relay = door.rows[index]
        if relay is not NULL:
            leave_phase(door, relay)
            relay_clear(relay)
            release(relay, sizeof(Relay))
    for index in range(door.listener_count):
        close_fd(&door.listeners[index].fd)
    door.listener_count = door.row_count = 0
    release(door.rows, door.row_capacity * sizeof(Relay*))
    release(door.free_rows, door.row_capacity * sizeof(uint32_t))
    door.rows = NULL
    door.free_rows = NULL
    door.row_capacity = door.free_count = 0
    certificates_free(door.certificates)
    door.certificates = NULL
    close_fd(&door.poller)
    close_fd(&door.wake_fd)
    close_fd(&door.notice_fd)
