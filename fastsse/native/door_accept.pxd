# Accepting connections of the door, and their handshakes up to the first bytes of a request.

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from fastsse.native.door_table cimport (
    ACCEPTED, Door, EXHAUSTED, Listening, PAIR_EVENTS, PAIR_SIDE, PLAIN, ask_for_room,
    leave_phase, notify, notify_failure, relay_end, row_alloc, tag_of, visit_later, wait_in)
from fastsse.native.memory cimport alloc
from fastsse.native.openssl cimport (
    ERROR_WANT_READ, ERROR_WANT_WRITE, ERR_clear_error, ERR_get_error, LimitedSocket, SSL_do_handshake,
    SSL_get_error, SSL_new, SSL_read, SSL_session_reused, SSL_set_accept_state, SSL_set_fd,
    use_limited_socket)
from fastsse.native.os cimport (
    EAGAIN, EINTR, EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP, MSG_DONTWAIT, bump, errno, recv,
    relaxed_load, unwatch, watch)
from fastsse.native.relay cimport (
    ADDRESS_BYTES, FIRST, HANDSHAKE, HELLO, OPEN, RECORD_BYTES, Relay, send_rest, relay_new,
    rest_keep)
from fastsse.native.wire_trace cimport on_handshake_complete, trace_new

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
    ACCEPTS_A_TURN = 16
    # A handshake of this age makes room for a new connection when all places are taken.
    EVICTABLE_US = 1_000_000
    # Pause of accepting after descriptors, or memory for them, ran out.
    PAUSE_US = 1_000_000
    LISTENER_TAG = 0xFFFFFFFE  # in the upper half of a tag, above every generation


# ---- handshakes ----------------------------------------------------------------------------------

cdef inline void fail_handshake(Door* door, Relay* relay, int result) noexcept nogil:
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


cdef inline void hand_over_plain(Door* door, Relay* relay) noexcept nogil:
    """Hands a client that speaks HTTP without TLS to the loop, which answers and logs it."""
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
        hand_over_plain(door, relay)
        return False
    relay.ssl = SSL_new(door.certificates.contexts[0])
    if relay.ssl is NULL or not attach_socket(door, relay):
        bump(&door.counters.failed, 1)
        relay_end(door, relay)
        return False
    if door.options.releases:
        relay.trace = trace_new(relay.ssl)
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


cdef inline void advance_handshake(Door* door, Relay* relay) noexcept nogil:
    """Advances a connection that has no request yet, by one step."""
    cdef int result
    if relay.phase == HELLO and not begin_tls(door, relay):
        return
    if relay.phase == HANDSHAKE:
        ERR_clear_error()
        result = SSL_do_handshake(relay.ssl)
        if result != 1:
            fail_handshake(door, relay, result)
            return
        if SSL_session_reused(relay.ssl):
            bump(&door.counters.resumed, 1)
        else:
            bump(&door.counters.full, 1)
        if relay.trace is not NULL:
            on_handshake_complete(relay.ssl, relay.trace)
        relay.phase = FIRST
    ERR_clear_error()
    result = SSL_read(relay.ssl, door.scratch, RECORD_BYTES)
    if result > 0:
        open_relay(door, relay, <uint32_t>result)
    else:
        fail_handshake(door, relay, result)


cdef inline void open_relay(Door* door, Relay* relay, uint32_t first_bytes) noexcept nogil:
    """Hands the loop one end of a socket pair that already contains the first bytes of the request."""
    cdef int[2] ends
    if socket_pair(ends, door.options.send_buffer_bytes):
        pause_accepting(door, relay)
        relay_end(door, relay)
        return
    relay.pair_fd = ends[0]
    leave_phase(door, relay)
    relay.phase = OPEN
    bump(&door.counters.open, 1)
    rest_keep(&relay.into, door.scratch, first_bytes)
    send_rest(relay, door.options.pair_limit)
    notify(door, relay, ACCEPTED, ends[1], 0)
    if watch(door.poller, relay.pair_fd, tag_of(relay, PAIR_SIDE), PAIR_EVENTS):
        relay_end(door, relay)
    else:
        ask_for_room(door, relay)
        visit_later(&door.copies, relay)


# ---- accepting -----------------------------------------------------------------------------------

cdef inline void pause_accepting(Door* door, Relay* relay) noexcept nogil:
    """Pauses accepting: descriptors, or memory for them, have run out."""
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
    """Whether one more handshake may begin. If all places are taken, the oldest one may end for it."""
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
                pause_accepting(door, NULL)
            if errno != EINTR:
                return
            continue
        relay = relay_new(fd, listening.source)
        memcpy(relay.address, address, ADDRESS_BYTES)
        row_alloc(door, relay)
        bump(&door.counters.under_way, 1)
        wait_in(&door.hellos, relay, door.now_us)
        if watch(door.poller, fd, tag_of(relay, 0), EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET):
            relay_end(door, relay)


cdef inline void listen_if_room(Door* door) noexcept nogil:
    """Listens while there is a place for a connection. Otherwise connections wait in the kernel."""
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
