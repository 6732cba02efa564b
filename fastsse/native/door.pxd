# The door thread accepts connections, shakes hands with OpenSSL, and copies between its clients and
# the server. It never needs the GIL and waits in one place only, `wait_for_events`.
#
# The loop thread gives it commands and takes its notices: an accepted connection is one end of a
# socket pair. Copying goes before handshakes, of which a turn makes one step, because a step takes
# half a millisecond.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from fastsse.native.certificates cimport (
    TICKET_KEY_BYTES, Certificates, certificates_free, certificates_serve, set_ticket_keys)
from fastsse.native.memory cimport alloc, release, resize
from fastsse.native.openssl cimport (
    ERROR_WANT_READ, ERROR_WANT_WRITE, ERR_clear_error, ERR_get_error, LimitedSocket, SSL_do_handshake,
    SSL_get_error, SSL_new, SSL_read, SSL_session_reused, SSL_set_accept_state, SSL_set_fd,
    use_limited_socket)
from fastsse.native.os cimport (
    EAGAIN, EFD_CLOEXEC, EFD_NONBLOCK, EINTR, EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT,
    EPOLLRDHUP, EPOLL_CLOEXEC, MSG_DONTWAIT, bump, cas_pointer, close, epoll_create1, epoll_event,
    epoll_wait, errno, eventfd, eventfd_read, eventfd_write, load_pointer, monotonic_us,
    pthread_t, recv, relaxed_add, relaxed_load, relaxed_store, rewatch, swap_pointer, unwatch,
    watch)
from fastsse.native.relay cimport (
    ADDRESS_BYTES, BROKE, DEAF, ENDED, FIRST, FLUSHING, GOES_ON, HANDSHAKE, HELLO, IN_FULL,
    LAST_SENT, LINGERING, OPEN, OUT_FULL, QUEUED, RECORD_BYTES, ROOM_ASKED, Relay, SHUT, Step, close_fd,
    copy_some, drop_ssl, give_rest, relay_clear, relay_new, rest_keep)

cdef extern from * nogil:
    """
    #ifndef FASTSSE_DOOR_OS
    #define FASTSSE_DOOR_OS
    #include <sys/socket.h>

    /* An accepted socket, or -1; the address of its client goes into `address`. */
    static int fastsse_accept(int listener, char *address, unsigned size) {
        socklen_t length = size;
        memset(address, 0, size);
        return accept4(listener, (struct sockaddr *)address, &length,
                       SOCK_NONBLOCK | SOCK_CLOEXEC);
    }

    /* A pair of stream sockets. What the second one has sent and the first one has not read yet
       is bounded by `send_buffer`. 0, or -1. */
    static int fastsse_socket_pair(int *ends, int send_buffer) {
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends)) return -1;
        setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &send_buffer, sizeof send_buffer);
        return 0;
    }
    #endif
    """
    enum:
        MSG_PEEK
        EMFILE
        ENFILE
        ENOBUFS
        ENOMEM
    int accept_from "fastsse_accept" (int listener, char* address, unsigned int size)
    int socket_pair "fastsse_socket_pair" (int* ends, int send_buffer)

cdef enum:
    EVENTS_A_TURN = 256
    ACCEPTS_A_TURN = 16
    VISITS_A_TURN = 64
    LISTENERS_MAX = 1024
    ROWS_MIN = 64
    # EPOLLOUT is asked for while the server takes no more: a pair announces room after each read.
    PAIR_EVENTS = EPOLLIN | EPOLLRDHUP | EPOLLET
    # A handshake of this age makes room for a new connection when all places are taken.
    EVICTABLE_US = 1_000_000
    # What remains to be sent when the server has closed, and then the client's FIN, have this long.
    CLOSING_US = 5_000_000
    # How long nothing is accepted when descriptors or memory for them have run out.
    PAUSE_US = 1_000_000
    WAKE_TAG = 0xFFFFFFFFFFFFFFFF
    LISTENER_TAG = 0xFFFFFFFE  # in the upper half, above every generation
    PAIR_SIDE = 0x80000000     # in the lower half: the event is of the pair
    GENERATIONS = 0x7FFFFFFF

cdef enum CommandKind:
    LISTEN
    CERTIFY
    SEAL
    REST
    QUIT

cdef enum NoticeKind:
    ACCEPTED                   # `fd` is the server's end of a pair
    PLAIN                      # `fd` is the client's socket: it began with text, not with TLS
    FAILED                     # a handshake failed with OpenSSL's error `code`; 0: another reason
    EXHAUSTED                  # accepting is paused


cdef struct DoorCommand:
    DoorCommand* next
    Certificates* certificates
    uint64_t pause_us
    uint32_t count             # of descriptors
    uint8_t kind
    uint8_t source
    unsigned char[TICKET_KEY_BYTES] ticket_keys
    int32_t[0] fds


cdef struct Notice:
    Notice* next
    unsigned long code
    int32_t fd
    uint8_t kind
    uint8_t source
    char[ADDRESS_BYTES] address


cdef struct DoorCounters:
    int64_t open               # connections that are being copied
    int64_t under_way          # handshakes, and connections without a request yet
    int64_t closing
    int64_t full               # handshakes
    int64_t resumed
    int64_t failed
    int64_t timed_out
    int64_t evicted
    int64_t left               # by the client, before a request
    int64_t plain
    int64_t unclaimed          # notices with a descriptor that the loop has not taken


cdef struct DoorOptions:
    uint32_t handshakes_max
    uint32_t handshake_timeout_us
    int send_buffer_bytes
    # For tests.
    uint32_t net_limit
    uint32_t net_refuse_every
    uint32_t pair_limit


# Connections with a deadline of one kind, the oldest first.
cdef struct Waiting:
    Relay* oldest
    Relay* newest


# Connections to visit, the first one first.
cdef struct Visits:
    Relay* first
    Relay* last


cdef struct Listening:
    int32_t fd
    uint8_t source


cdef struct Door:
    DoorOptions options
    DoorCounters counters
    pthread_t thread
    int32_t poller
    int32_t wake_fd
    int32_t notice_fd
    void* commands             # DoorCommand, newest first
    void* notices              # Notice, newest first
    int64_t failure_notified       # 1 while a notice of a failure is not taken yet
    Certificates* certificates
    Listening[LISTENERS_MAX] listeners
    uint32_t listener_count
    bint is_listening
    bint is_running
    uint64_t now_us
    uint64_t paused_until_us
    Relay** rows
    uint32_t row_count         # rows that were used once
    uint32_t row_capacity
    uint32_t* free_rows
    uint32_t free_count
    uint32_t generation
    Waiting hellos
    Waiting closings
    Visits shakes
    Visits copies
    char[RECORD_BYTES] scratch


# ---- lists ---------------------------------------------------------------------------------------

cdef inline void wait_in(Waiting* waiting, Relay* relay, uint64_t now_us) noexcept nogil:
    relay.since_us = now_us
    relay.newer = NULL
    relay.older = waiting.newest
    if waiting.newest is not NULL:
        waiting.newest.newer = relay
    else:
        waiting.oldest = relay
    waiting.newest = relay


cdef inline void wait_no_more(Waiting* waiting, Relay* relay) noexcept nogil:
    if relay.older is not NULL:
        relay.older.newer = relay.newer
    else:
        waiting.oldest = relay.newer
    if relay.newer is not NULL:
        relay.newer.older = relay.older
    else:
        waiting.newest = relay.older
    relay.older = relay.newer = NULL


cdef inline void visit_later(Visits* visits, Relay* relay) noexcept nogil:
    if relay.flags & QUEUED:
        return
    relay.flags |= QUEUED
    relay.next_queued = NULL
    if visits.first is NULL:
        visits.first = relay
    else:
        visits.last.next_queued = relay
    visits.last = relay


cdef inline Relay* next_visit(Visits* visits) noexcept nogil:
    cdef Relay* relay = visits.first
    if relay is not NULL:
        visits.first = relay.next_queued
        relay.flags &= <uint16_t>~QUEUED
    return relay


# ---- rows ----------------------------------------------------------------------------------------

cdef inline void row_take(Door* door, Relay* relay) noexcept nogil:
    cdef uint32_t capacity
    door.generation = (door.generation + 1) & GENERATIONS
    if door.free_count:
        door.free_count -= 1
        relay.slot = door.free_rows[door.free_count]
    else:
        if door.row_count == door.row_capacity:
            capacity = max(<uint32_t>ROWS_MIN, 2 * door.row_capacity)
            door.rows = <Relay**>resize(
                door.rows, door.row_capacity * sizeof(Relay*), capacity * sizeof(Relay*))
            door.free_rows = <uint32_t*>resize(
                door.free_rows, door.row_capacity * sizeof(uint32_t), capacity * sizeof(uint32_t))
            door.row_capacity = capacity
        relay.slot = door.row_count
        door.row_count += 1
    relay.generation = door.generation
    door.rows[relay.slot] = relay


cdef inline void row_give(Door* door, Relay* relay) noexcept nogil:
    door.rows[relay.slot] = NULL
    door.free_rows[door.free_count] = relay.slot
    door.free_count += 1
    release(relay, sizeof(Relay))


cdef inline void leave_phase(Door* door, Relay* relay) noexcept nogil:
    """Takes a connection out of the list and the count of its phase."""
    if relay.phase <= FIRST:
        wait_no_more(&door.hellos, relay)
        bump(&door.counters.under_way, -1)
    elif relay.phase == OPEN:
        bump(&door.counters.open, -1)
    elif relay.phase < ENDED:
        wait_no_more(&door.closings, relay)
        bump(&door.counters.closing, -1)


cdef inline void relay_end(Door* door, Relay* relay) noexcept nogil:
    """Closes a connection. A row that is in a queue is given back when its turn comes."""
    leave_phase(door, relay)
    relay.phase = ENDED
    relay_clear(relay)
    if not relay.flags & QUEUED:
        row_give(door, relay)


cdef inline uint64_t tag_of(Relay* relay, uint32_t side) noexcept nogil:
    return <uint64_t>relay.generation << 32 | side | relay.slot


# ---- notices -------------------------------------------------------------------------------------

cdef inline void notify(Door* door, Relay* relay, uint8_t kind, int fd, unsigned long code) noexcept nogil:
    cdef Notice* notice = <Notice*>alloc(sizeof(Notice))
    cdef Notice* older
    notice.kind = kind
    notice.fd = fd
    notice.code = code
    notice.source = relay.source if relay is not NULL else 0
    if relay is not NULL:
        memcpy(notice.address, relay.address, ADDRESS_BYTES)
    if fd >= 0:
        relaxed_add(&door.counters.unclaimed, 1)
    while True:
        older = <Notice*>load_pointer(&door.notices)
        notice.next = older
        if cas_pointer(&door.notices, older, notice):
            break              # From here on the loop owns it, and may have freed it.
    if older is NULL:
        eventfd_write(door.notice_fd, 1)


cdef inline void notify_failure(Door* door, Relay* relay, unsigned long code) noexcept nogil:
    """One at a time, so that a flood costs no memory; the counters have them all."""
    if relaxed_load(&door.failure_notified) == 0:
        relaxed_store(&door.failure_notified, 1)
        notify(door, relay, FAILED, -1, code)


# ---- handshakes ----------------------------------------------------------------------------------

cdef inline void shake_failed(Door* door, Relay* relay, int result) noexcept nogil:
    """Ends a connection whose handshake can't go on. OpenSSL has sent its alert."""
    cdef int error = SSL_get_error(relay.ssl, result)
    cdef unsigned long code = ERR_get_error()
    if error == ERROR_WANT_READ or error == ERROR_WANT_WRITE:
        if relay.limited is not NULL:
            visit_later(&door.shakes, relay)
        return
    if code:
        bump(&door.counters.failed, 1)
        notify_failure(door, relay, code)
    else:
        bump(&door.counters.left, 1)
    relay_end(door, relay)


cdef inline void give_plain(Door* door, Relay* relay) noexcept nogil:
    """The server answers who speaks HTTP without TLS, and logs it."""
    bump(&door.counters.plain, 1)
    unwatch(door.poller, relay.net_fd)
    notify(door, relay, PLAIN, relay.net_fd, 0)
    relay.net_fd = -1
    relay_end(door, relay)


cdef inline bint begin_tls(Door* door, Relay* relay) noexcept nogil:
    """Makes the state of OpenSSL once the first byte is there. False: not now, or ended."""
    cdef char first
    cdef ssize_t got = recv(relay.net_fd, &first, 1, MSG_PEEK | MSG_DONTWAIT)
    if got < 0 and (errno == EAGAIN or errno == EINTR):
        return False
    if got <= 0:
        bump(&door.counters.left, 1)
        relay_end(door, relay)
        return False
    # A method of HTTP, or the first byte of a PROXY protocol header.
    if c'A' <= first <= c'Z' or first == c'\r':
        give_plain(door, relay)
        return False
    relay.ssl = SSL_new(door.certificates.contexts[0])
    if relay.ssl is NULL or not attach_socket(door, relay):
        bump(&door.counters.failed, 1)
        relay_end(door, relay)
        return False
    SSL_set_accept_state(relay.ssl)
    relay.phase = HANDSHAKE
    return True


cdef inline bint attach_socket(Door* door, Relay* relay) noexcept nogil:
    if not door.options.net_limit and not door.options.net_refuse_every:
        return SSL_set_fd(relay.ssl, relay.net_fd) == 1
    relay.limited = <LimitedSocket*>alloc(sizeof(LimitedSocket))
    relay.limited.fd = relay.net_fd
    relay.limited.limit = <int>door.options.net_limit
    relay.limited.refuse_every = <int>door.options.net_refuse_every
    relay.limited.calls[0] = relay.limited.calls[1] = 0
    return use_limited_socket(relay.ssl, relay.limited)


cdef inline void shake(Door* door, Relay* relay) noexcept nogil:
    """One step of a connection that has no request yet."""
    cdef int result
    if relay.phase == HELLO and not begin_tls(door, relay):
        return
    if relay.phase == HANDSHAKE:
        ERR_clear_error()
        result = SSL_do_handshake(relay.ssl)
        if result != 1:
            shake_failed(door, relay, result)
            return
        if SSL_session_reused(relay.ssl):
            bump(&door.counters.resumed, 1)
        else:
            bump(&door.counters.full, 1)
        relay.phase = FIRST
    ERR_clear_error()
    result = SSL_read(relay.ssl, door.scratch, RECORD_BYTES)
    if result > 0:
        open_relay(door, relay, <uint32_t>result)
    else:
        shake_failed(door, relay, result)


cdef inline void open_relay(Door* door, Relay* relay, uint32_t first_bytes) noexcept nogil:
    """Gives the server one end of a pair, in which the beginning of the request is already."""
    cdef int[2] ends
    if socket_pair(ends, door.options.send_buffer_bytes):
        rest_for_a_while(door, relay)
        relay_end(door, relay)
        return
    relay.pair_fd = ends[0]
    leave_phase(door, relay)
    relay.phase = OPEN
    bump(&door.counters.open, 1)
    rest_keep(&relay.into, door.scratch, first_bytes)
    give_rest(relay, door.options.pair_limit)
    notify(door, relay, ACCEPTED, ends[1], 0)
    if watch(door.poller, relay.pair_fd, tag_of(relay, PAIR_SIDE), PAIR_EVENTS):
        relay_end(door, relay)
    else:
        ask_for_room(door, relay)
        visit_later(&door.copies, relay)


# ---- accepting -----------------------------------------------------------------------------------

cdef inline void rest_for_a_while(Door* door, Relay* relay) noexcept nogil:
    """Descriptors, or memory for them, have run out."""
    if door.paused_until_us <= door.now_us:
        door.paused_until_us = door.now_us + PAUSE_US
        notify(door, NULL, EXHAUSTED, -1, 0)


cdef inline bint has_place(Door* door) noexcept nogil:
    return door.counters.under_way + relaxed_load(&door.counters.unclaimed) \
        < door.options.handshakes_max


cdef inline bint can_evict(Door* door) noexcept nogil:
    return door.hellos.oldest is not NULL \
        and door.hellos.oldest.since_us + EVICTABLE_US <= door.now_us


cdef inline bint make_place(Door* door) noexcept nogil:
    """Whether one more handshake may begin, if need be instead of the oldest."""
    if has_place(door):
        return True
    if not can_evict(door):
        return False
    bump(&door.counters.evicted, 1)
    notify_failure(door, door.hellos.oldest, 0)
    relay_end(door, door.hellos.oldest)
    return has_place(door)


cdef inline void accept_some(Door* door, Listening* listening) noexcept nogil:
    cdef Relay* relay
    cdef char[ADDRESS_BYTES] address
    cdef int left = ACCEPTS_A_TURN
    cdef int fd
    while left and make_place(door):
        left -= 1
        fd = accept_from(listening.fd, address, ADDRESS_BYTES)
        if fd < 0:
            if errno == EMFILE or errno == ENFILE or errno == ENOBUFS or errno == ENOMEM:
                rest_for_a_while(door, NULL)
            if errno != EINTR:
                return
            continue
        relay = relay_new(fd, listening.source)
        memcpy(relay.address, address, ADDRESS_BYTES)
        row_take(door, relay)
        bump(&door.counters.under_way, 1)
        wait_in(&door.hellos, relay, door.now_us)
        if watch(door.poller, fd, tag_of(relay, 0), EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET):
            relay_end(door, relay)


cdef inline void look_whether_to_listen(Door* door) noexcept nogil:
    """Connections wait in the kernel while there is no place for them."""
    cdef bint wanted = door.certificates is not NULL and door.paused_until_us <= door.now_us \
        and (has_place(door) or can_evict(door))
    cdef uint32_t index
    if wanted == door.is_listening:
        return
    door.is_listening = wanted
    for index in range(door.listener_count):
        if wanted:
            watch(door.poller, door.listeners[index].fd, <uint64_t>LISTENER_TAG << 32 | index,
                  EPOLLIN)
        else:
            unwatch(door.poller, door.listeners[index].fd)


# ---- commands ------------------------------------------------------------------------------------

cdef inline size_t door_command_bytes(uint32_t count) noexcept nogil:
    return sizeof(DoorCommand) + count * sizeof(int32_t)


cdef inline DoorCommand* door_command_new(uint8_t kind, uint32_t count) noexcept nogil:
    cdef DoorCommand* command = <DoorCommand*>alloc(door_command_bytes(count))
    command.next = NULL
    command.certificates = NULL
    command.pause_us = 0
    command.count = count
    command.kind = kind
    command.source = 0
    return command


cdef inline void door_command_free(DoorCommand* command) noexcept nogil:
    """With what it still holds."""
    cdef uint32_t index
    certificates_free(command.certificates)
    for index in range(command.count):
        close_fd(&command.fds[index])
    release(command, door_command_bytes(command.count))


cdef inline void door_send(Door* door, DoorCommand* command) noexcept nogil:
    """Loop thread: gives a command."""
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


cdef inline void obey(Door* door, DoorCommand* command) noexcept nogil:
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
    elif command.kind == REST:
        door.paused_until_us = door.now_us + command.pause_us
    elif command.kind == QUIT:
        door.is_running = False


cdef inline void obey_all(Door* door) noexcept nogil:
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
        obey(door, command)
        door_command_free(command)


# ---- copying -------------------------------------------------------------------------------------

cdef inline void look_whether_over(Door* door, Relay* relay) noexcept nogil:
    """The server's end is closed: what is left has a deadline, and then only the FIN of the client
    is waited for. Closing a socket with unread input would reset it, and the client could lose the
    last data."""
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


cdef inline void ask_for_room(Door* door, Relay* relay) noexcept nogil:
    """Asks for EPOLLOUT of the pair while it is full, and no longer."""
    cdef bint wanted = (relay.flags & IN_FULL) != 0 and relay.pair_fd >= 0
    if wanted == ((relay.flags & ROOM_ASKED) != 0):
        return
    relay.flags ^= ROOM_ASKED
    if relay.pair_fd >= 0:
        rewatch(door.poller, relay.pair_fd, tag_of(relay, PAIR_SIDE),
                PAIR_EVENTS | EPOLLOUT if wanted else PAIR_EVENTS)


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
        relay.flags &= <uint16_t>~OUT_FULL  # What a test refuses is followed by no edge.
        step = GOES_ON
    if step == GOES_ON:
        visit_later(&door.copies, relay)
    look_whether_over(door, relay)


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
        # What the server sent says nothing of the client, so it costs no read of the client's socket.
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
            row_give(door, relay)
        else:
            copy_now(door, relay, False)
    relay = next_visit(&door.shakes)
    if relay is NULL:
        return
    if relay.phase == ENDED:
        row_give(door, relay)
    else:
        shake(door, relay)


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
        obey_all(door)
        if not door.is_running:
            return NULL
        look_whether_to_listen(door)
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


cdef inline void notice_free(Notice* notice) noexcept nogil:
    release(notice, sizeof(Notice))


cdef inline void door_clear(Door* door) noexcept nogil:
    """Closes and frees everything except the counters. Call it once, after the thread ended or if
    it never ran."""
    cdef Notice* notice = <Notice*>swap_pointer(&door.notices, NULL)
    cdef Notice* next_notice
    cdef Relay* relay
    cdef uint32_t index
    obey_all(door)
    while notice is not NULL:
        next_notice = notice.next
        close_fd(&notice.fd)
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
