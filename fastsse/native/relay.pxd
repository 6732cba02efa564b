# One TLS connection of the door: OpenSSL on the side of the client, one end of a socket pair on the
# side of the server, and the copying between them.
#
#     phase      is                                                 becomes
#     HELLO      accepted, nothing of the client has been read      HANDSHAKE; freed (plain HTTP)
#     HANDSHAKE  OpenSSL shakes hands                               FIRST; freed
#     FIRST      nothing of the request has arrived yet             OPEN; freed
#     OPEN       bytes are copied both ways                         FLUSHING; freed
#     FLUSHING   the server closed; the rest and close_notify go    LINGERING; freed
#     LINGERING  only the client's socket is left, read to its end  freed
#
# Each direction holds at most one record that the other side did not take whole. While it does,
# nothing more is read for that direction, so the kernel's flow control reaches the sender or the
# client. A row's descriptors and memory belong to the door thread, from `relay_new` to `relay_clear`.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fastsse.native.memory cimport alloc, release
from fastsse.native.openssl cimport (
    ERROR_WANT_READ, ERROR_WANT_WRITE, ERROR_ZERO_RETURN, ERR_clear_error, LimitedSocket, SSL, SSL_free,
    SSL_get_error, SSL_read, SSL_shutdown, SSL_write)
from fastsse.native.os cimport (
    EAGAIN, EINTR, EPIPE, MSG_DONTWAIT, SHUT_WR, close, errno, iovec, recv, send_parts, shutdown)
from fastsse.native.wire_trace cimport WireTrace, trace_free

cdef enum:
    # The largest record (RFC 8446 §5.1).
    RECORD_BYTES = 16384
    # Records that one direction of a connection copies in one visit.
    RECORDS_A_VISIT = 4
    ADDRESS_BYTES = 28         # a sockaddr_in6

cdef enum Phase:
    HELLO
    HANDSHAKE
    FIRST
    OPEN
    FLUSHING
    LINGERING
    ENDED                      # everything is released but the row, which is still in a queue

cdef enum RelayFlag:
    OUT_FULL = 1               # the client takes no more for now
    IN_FULL = 2                # the server takes no more for now
    OUT_ENDED = 4              # the server sends no more; what it sent is written
    IN_ENDED = 8               # the client sends no more
    SHUT = 16                  # close_notify is written
    QUEUED = 32                # is in a queue of the door
    DEAF = 64                  # the server closed both directions: client bytes are discarded
    ROOM_ASKED = 128           # EPOLLOUT of the pair is requested
    LAST_SENT = 256            # the end is behind what the server has sent


# Bytes that one side did not take.
cdef struct Rest:
    char* bytes
    uint32_t size
    uint32_t at


cdef struct Relay:
    SSL* ssl
    LimitedSocket* limited     # tests only
    WireTrace* trace           # of a door that may release connections, else NULL
    Relay* older               # the list of those with a deadline of the same kind
    Relay* newer
    Relay* next_queued
    uint64_t since_us          # when the deadline began
    Rest out                   # plain bytes for the client
    Rest into                  # plain bytes for the server
    int32_t net_fd
    int32_t pair_fd
    uint32_t slot
    uint32_t generation
    uint16_t flags
    uint8_t phase
    uint8_t source             # which listener it came from
    char[ADDRESS_BYTES] address


cdef inline void close_fd(int32_t* fd) noexcept nogil:
    if fd[0] >= 0:
        close(fd[0])
    fd[0] = -1


cdef inline void rest_keep(Rest* rest, const char* bytes, uint32_t size) noexcept nogil:
    rest.bytes = <char*>alloc(size)
    memcpy(rest.bytes, bytes, size)
    rest.size = size
    rest.at = 0


cdef inline void rest_clear(Rest* rest) noexcept nogil:
    release(rest.bytes, rest.size)
    rest.bytes = NULL
    rest.size = rest.at = 0


cdef inline Relay* relay_new(int net_fd, uint8_t source) noexcept nogil:
    cdef Relay* relay = <Relay*>alloc(sizeof(Relay))
    relay.ssl = NULL
    relay.limited = NULL
    relay.trace = NULL
    relay.older = relay.newer = relay.next_queued = NULL
    relay.out.bytes = relay.into.bytes = NULL
    relay.out.size = relay.out.at = relay.into.size = relay.into.at = 0
    relay.net_fd = net_fd
    relay.pair_fd = -1
    relay.phase = HELLO
    relay.flags = 0
    relay.source = source
    return relay


cdef inline void drop_ssl(Relay* relay) noexcept nogil:
    if relay.ssl is not NULL:
        SSL_free(relay.ssl)
    relay.ssl = NULL
    trace_free(relay.trace)
    relay.trace = NULL
    release(relay.limited, sizeof(LimitedSocket))
    relay.limited = NULL


cdef inline void relay_clear(Relay* relay) noexcept nogil:
    """Releases everything but the row."""
    drop_ssl(relay)
    close_fd(&relay.net_fd)
    close_fd(&relay.pair_fd)
    rest_clear(&relay.out)
    rest_clear(&relay.into)


# How a step of one direction went.
cdef enum Step:
    WAITS                      # for an event of the kernel
    GOES_ON                    # there is more to do now
    BROKE                      # the connection is to be freed


cdef inline ssize_t send_some(int fd, const char* bytes, size_t size, uint32_t limit) noexcept nogil:
    """Bytes that a socket took; 0 when it would block; -1 when the other side is gone. `limit`: for
    tests, the most that it takes; 0: any number."""
    cdef iovec part
    cdef ssize_t sent
    part.iov_base = <char*>bytes
    part.iov_len = min(size, limit) if limit else size
    sent = send_parts(fd, &part, 1)
    if sent >= 0:
        return sent
    return 0 if errno == EAGAIN or errno == EINTR else -1


# ---- from the server to the client --------------------------------------------------------------

cdef inline Step stalled(Relay* relay, int result) noexcept nogil:
    """What a failed call of OpenSSL waits for."""
    cdef int error = SSL_get_error(relay.ssl, result)
    if error == ERROR_WANT_WRITE:
        relay.flags |= OUT_FULL
        return WAITS
    return WAITS if error == ERROR_WANT_READ else BROKE


cdef inline Step write_record(Relay* relay, const char* bytes, uint32_t size) noexcept nogil:
    """Encrypts and sends. Bytes that the client's socket did not take stay in `out`, because
    SSL_write(3) must be called again with the same bytes."""
    cdef int wrote
    ERR_clear_error()
    wrote = SSL_write(relay.ssl, bytes, <int>size)
    if wrote <= 0:
        if relay.out.bytes is NULL:
            rest_keep(&relay.out, bytes, size)
        return stalled(relay, wrote)
    if relay.out.bytes is NULL:
        if <uint32_t>wrote < size:
            rest_keep(&relay.out, bytes + wrote, size - <uint32_t>wrote)
    else:
        relay.out.at += <uint32_t>wrote
        if relay.out.at == relay.out.size:
            rest_clear(&relay.out)
    return GOES_ON


cdef inline Step shut_ssl(Relay* relay) noexcept nogil:
    """close_notify and FIN, behind everything that the server sent."""
    cdef int done
    if relay.flags & SHUT:
        return WAITS
    ERR_clear_error()
    done = SSL_shutdown(relay.ssl)
    if done < 0:
        return stalled(relay, done)
    relay.flags |= SHUT
    shutdown(relay.net_fd, SHUT_WR)
    return WAITS


cdef inline Step copy_out(Relay* relay, char* scratch) noexcept nogil:
    """Copies one record. epoll reports bytes only when the pair was empty, so a short read means that
    it is empty again; except at the end, which one edge may report together with bytes."""
    cdef ssize_t got
    cdef Step step
    if relay.flags & OUT_FULL:
        return WAITS
    if relay.out.bytes is not NULL:
        return write_record(relay, relay.out.bytes + relay.out.at, relay.out.size - relay.out.at)
    if relay.flags & OUT_ENDED:
        return shut_ssl(relay)
    got = recv(relay.pair_fd, scratch, RECORD_BYTES, MSG_DONTWAIT)
    if got < 0 and (errno == EAGAIN or errno == EINTR):
        return WAITS
    if got <= 0:
        # The server's end closed, perhaps with unread bytes of the client (ECONNRESET).
        relay.flags |= OUT_ENDED
        return shut_ssl(relay)
    step = write_record(relay, scratch, <uint32_t>got)
    if step == GOES_ON and got < RECORD_BYTES and relay.out.bytes is NULL \
            and not relay.flags & LAST_SENT:
        return WAITS
    return step


# ---- from the client to the server --------------------------------------------------------------

cdef inline bint send_rest(Relay* relay, uint32_t limit) noexcept nogil:
    """Sends the server what waits for it; returns whether it took all of it."""
    cdef ssize_t sent
    while relay.into.bytes is not NULL:
        sent = send_some(relay.pair_fd, relay.into.bytes + relay.into.at,
                    relay.into.size - relay.into.at, limit)
        if sent < 0:
            relay.flags |= DEAF
            rest_clear(&relay.into)
            return True
        if sent == 0:
            relay.flags |= IN_FULL
            return False
        relay.into.at += <uint32_t>sent
        if relay.into.at == relay.into.size:
            rest_clear(&relay.into)
    return True


cdef inline Step read_ended(Relay* relay, int result) noexcept nogil:
    """Handles a read without bytes: nothing for now, or the client sends no more."""
    cdef int error = SSL_get_error(relay.ssl, result)
    if error == ERROR_WANT_READ:
        return WAITS
    if error == ERROR_WANT_WRITE:
        relay.flags |= OUT_FULL
        return WAITS
    if error != ERROR_ZERO_RETURN:
        return BROKE
    relay.flags |= IN_ENDED
    if relay.pair_fd >= 0:
        shutdown(relay.pair_fd, SHUT_WR)
    return WAITS


cdef inline Step copy_in(Relay* relay, char* scratch, uint32_t limit) noexcept nogil:
    """Copies one record. OpenSSL may hold more, so it is read until it has nothing."""
    cdef int got
    if relay.flags & (IN_FULL | IN_ENDED) or not send_rest(relay, limit):
        return WAITS
    ERR_clear_error()
    got = SSL_read(relay.ssl, scratch, RECORD_BYTES)
    if got <= 0:
        return read_ended(relay, got)
    if not relay.flags & DEAF:
        rest_keep(&relay.into, scratch, <uint32_t>got)
        send_rest(relay, limit)
    return GOES_ON


cdef inline Step copy_some(Relay* relay, char* scratch, uint32_t limit, bint only_out) noexcept nogil:
    """A visit: both directions, or only that to the client, each a bounded number of records."""
    cdef Step out = GOES_ON
    cdef Step into = WAITS if only_out else GOES_ON
    cdef int left = RECORDS_A_VISIT
    while left and (out == GOES_ON or into == GOES_ON):
        if out == GOES_ON:
            out = copy_out(relay, scratch)
        if into == GOES_ON:
            into = copy_in(relay, scratch, limit)
        if out == BROKE or into == BROKE:
            return BROKE
        left -= 1
    return GOES_ON if out == GOES_ON or into == GOES_ON else WAITS
