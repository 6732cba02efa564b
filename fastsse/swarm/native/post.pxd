# One keep-alive connection of the publisher: requests written with their due times, answers read in
# order, and what became of each request counted.

cimport cython
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memmove, memset
from fastsse.swarm.native.chunks cimport CHUNK_BAD, CHUNK_END, Chunks, chunks_decode
from fastsse.swarm.native.head cimport Head, read_head
from fastsse.swarm.native.histogram cimport HISTOGRAM_LENGTH, histogram_record
from fastsse.swarm.native.os cimport (
    CLOCK_REALTIME, EAGAIN, EINTR, MSG_NOSIGNAL, clock_us, close, errno, recv, send, socklen_t,
    swarm_add, swarm_store,
)
from fastsse.swarm.native.stamp cimport put_number, put_text, stamp_write

cdef enum PublishCounter:
    PUBLISH_REQUESTS           # handed to the socket
    PUBLISH_EVENTS             # in them
    PUBLISH_ACCEPTED           # requests answered 2xx
    PUBLISH_EVENTS_ACCEPTED
    PUBLISH_REFUSED            # requests answered otherwise
    PUBLISH_UNKNOWN            # the connection ended before the answer
    PUBLISH_UNSENT             # due, but not sent when the run ended
    PUBLISH_CONNECTS
    PUBLISH_CONNECTS_FAILED
    PUBLISH_BYTES
    PUBLISH_CPU_US
    PUBLISH_LAST_STATUS        # of a refused one
    PUBLISH_LAST_ERRNO
    PUBLISH_STARTED_AT_US      # real-time clock
    PUBLISH_ENDED_AT_US        # real-time clock, last answer
    PUBLISH_COUNTERS

cdef enum PublishMeasure:
    PUBLISH_DELAY              # due to sent
    PUBLISH_ANSWER             # sent to answered
    PUBLISH_TOTAL              # due to answered
    PUBLISH_MEASURES

cdef enum:
    PUBLISH_ORDERS = 8         # the first is the order to stop
    PUBLISH_WORDS = PUBLISH_ORDERS + PUBLISH_COUNTERS + PUBLISH_MEASURES * HISTOGRAM_LENGTH
    IN_BYTES = 64 * 1024       # the longest head of an answer
    OUT_BYTES = 64 * 1024      # requests are added to one send up to here
    RETRY_US = 100 * 1000

cdef struct Sent:
    uint64_t due_us
    uint64_t sent_us

cdef struct Poster:            # a keep-alive connection
    int fd
    bint connected
    bint in_body
    bint closing               # the answer being read says `Connection: close`
    bint blocked               # the socket took less than all: EPOLLOUT reports room
    Chunks chunks
    bint chunked
    uint64_t body_left
    uint32_t outstanding
    uint32_t oldest            # in `sent`, a ring of `depth`
    Sent *sent
    uint64_t next_request
    uint64_t retry_at_us
    char *out
    size_t out_bytes
    size_t out_sent
    char *incoming
    size_t incoming_bytes

cdef struct Topic:
    const char *head           # request up to its Content-Length
    uint32_t head_bytes
    const char *prefix         # before each event's data
    uint32_t prefix_bytes

cdef struct Publisher:
    int epoll
    int timer
    int family
    const char *target
    socklen_t address_bytes
    Poster *posters
    uint32_t poster_count
    uint32_t depth             # requests under way on one connection
    Topic *topics
    uint32_t topic_count
    const char *suffix         # after each event's data
    uint32_t suffix_bytes
    uint32_t *counts           # per (poster, topic): the last count given
    uint32_t first_source
    uint32_t batch             # events a request
    size_t event_bytes
    size_t request_bytes       # room that the largest request needs
    double interval_us         # between requests; 0: closed loop, each due when it can be sent
    uint64_t begin_us          # real-time clock
    uint64_t end_us            # nothing is due from here on
    uint64_t patience_us       # for the last answers
    uint64_t *orders
    uint64_t *counters
    uint64_t *measures


cdef inline void tally(Publisher *publisher, PublishCounter counter, uint64_t by) noexcept nogil:
    swarm_add(&publisher.counters[<int>counter], by)


cdef inline void note(Publisher *publisher, PublishMeasure measure,
                      uint64_t from_us, uint64_t to_us) noexcept nogil:
    histogram_record(publisher.measures + <size_t>measure * HISTOGRAM_LENGTH,
                     to_us - from_us if to_us > from_us else 0)


cdef inline uint64_t due_of(Publisher *publisher, uint64_t request) noexcept nogil:
    return publisher.begin_us + <uint64_t>(<double>request * publisher.interval_us)


# --- writing --------------------------------------------------------------------------------------

@cython.cdivision(True)        # there is at least one topic
cdef inline void write_post(Publisher *publisher, Poster *poster, uint32_t number,
                            uint64_t due_us) noexcept nogil:
    """Adds the poster's next request to what it has to send; `out` has room for it."""
    cdef uint64_t event = poster.next_request * publisher.batch
    cdef Topic *topic = &publisher.topics[event % publisher.topic_count]
    cdef char *at = put_text(poster.out + poster.out_bytes, topic.head, topic.head_bytes)
    cdef size_t body = 0
    cdef uint32_t i, which, place
    for i in range(publisher.batch):
        which = <uint32_t>((event + i) % publisher.topic_count)
        body += publisher.topics[which].prefix_bytes
    body += publisher.batch * (publisher.event_bytes + publisher.suffix_bytes)
    at = put_number(put_text(at, b"Content-Length: ", 16), body)
    at = put_text(at, b"\r\n\r\n", 4)
    for i in range(publisher.batch):
        which = <uint32_t>((event + i) % publisher.topic_count)
        place = number * publisher.topic_count + which
        publisher.counts[place] += 1
        at = put_text(at, publisher.topics[which].prefix, publisher.topics[which].prefix_bytes)
        stamp_write(at, publisher.event_bytes, due_us, publisher.first_source + place,
                    publisher.counts[place])
        at = put_text(at + publisher.event_bytes, publisher.suffix, publisher.suffix_bytes)
    poster.out_bytes = at - poster.out


@cython.cdivision(True)        # depth is at least 1
cdef inline void add_request(Publisher *publisher, uint32_t number,
                             uint64_t due_us, uint64_t now_us) noexcept nogil:
    cdef Poster *poster = &publisher.posters[number]
    cdef Sent *sent = &poster.sent[(poster.oldest + poster.outstanding) % publisher.depth]
    write_post(publisher, poster, number, due_us)
    sent.due_us = due_us
    sent.sent_us = now_us
    poster.outstanding += 1
    poster.next_request += publisher.poster_count
    note(publisher, PUBLISH_DELAY, due_us, now_us)
    tally(publisher, PUBLISH_REQUESTS, 1)
    tally(publisher, PUBLISH_EVENTS, publisher.batch)


cdef inline void lose(Publisher *publisher, Poster *poster, int error) noexcept nogil:
    """The connection is gone; what it had not answered is of unknown outcome."""
    if error:
        swarm_store(&publisher.counters[<int>PUBLISH_LAST_ERRNO], <uint64_t>error)
    if not poster.connected:
        tally(publisher, PUBLISH_CONNECTS_FAILED, 1)
    tally(publisher, PUBLISH_UNKNOWN, poster.outstanding)
    close(poster.fd)
    poster.fd = -1
    poster.connected = poster.in_body = poster.blocked = poster.closing = False
    poster.outstanding = 0
    poster.out_bytes = poster.out_sent = poster.incoming_bytes = 0
    poster.retry_at_us = clock_us(CLOCK_REALTIME) + RETRY_US


cdef inline void flush_out(Publisher *publisher, Poster *poster) noexcept nogil:
    cdef ssize_t sent
    if poster.out_sent == poster.out_bytes:
        return
    sent = send(poster.fd, poster.out + poster.out_sent, poster.out_bytes - poster.out_sent,
                MSG_NOSIGNAL)
    if sent < 0:
        if errno == EAGAIN or errno == EINTR:
            poster.blocked = True
        else:
            lose(publisher, poster, errno)
        return
    tally(publisher, PUBLISH_BYTES, sent)
    poster.connected = True
    poster.out_sent += sent
    poster.blocked = poster.out_sent < poster.out_bytes
    if not poster.blocked:
        poster.out_sent = poster.out_bytes = 0


cdef inline bint can_send(Publisher *publisher, const Poster *poster) noexcept nogil:
    return (poster.fd >= 0 and not poster.blocked and poster.outstanding < publisher.depth
            and poster.out_bytes < OUT_BYTES)


cdef inline void post_due(Publisher *publisher, uint32_t number, uint64_t now_us) noexcept nogil:
    """Sends all of a connection's requests that are due, as far as answers keep up, in one send."""
    cdef Poster *poster = &publisher.posters[number]
    cdef uint64_t due
    while can_send(publisher, poster):
        due = due_of(publisher, poster.next_request) if publisher.interval_us > 0 else now_us
        if due > now_us or due >= publisher.end_us:
            break
        add_request(publisher, number, due, now_us)
    if poster.fd >= 0 and not poster.blocked:
        flush_out(publisher, poster)


# --- answers --------------------------------------------------------------------------------------

@cython.cdivision(True)        # depth is at least 1
cdef inline bint take_answer(Publisher *publisher, Poster *poster, const Head *head,
                             uint64_t now_us) noexcept nogil:
    """One answer's head; False when nothing was asked."""
    cdef Sent *sent = &poster.sent[poster.oldest]
    if head.status < 200:
        return True                # 100 Continue and its like
    if poster.outstanding == 0:
        return False
    note(publisher, PUBLISH_ANSWER, sent.sent_us, now_us)
    note(publisher, PUBLISH_TOTAL, sent.due_us, now_us)
    swarm_store(&publisher.counters[<int>PUBLISH_ENDED_AT_US], now_us)
    poster.oldest = (poster.oldest + 1) % publisher.depth
    poster.outstanding -= 1
    if head.status < 300:
        tally(publisher, PUBLISH_ACCEPTED, 1)
        tally(publisher, PUBLISH_EVENTS_ACCEPTED, publisher.batch)
    else:
        tally(publisher, PUBLISH_REFUSED, 1)
        swarm_store(&publisher.counters[<int>PUBLISH_LAST_STATUS], <uint64_t>head.status)
    poster.closing = head.closes
    poster.chunked = head.chunked
    memset(&poster.chunks, 0, sizeof(Chunks))
    poster.body_left = 0
    if head.length > 0 and head.status != 204:
        poster.body_left = <uint64_t>head.length
    poster.in_body = head.chunked or poster.body_left > 0
    return True


cdef inline size_t skip_body(Poster *poster, char *at, size_t length) noexcept nogil:
    """How many of these bytes are the rest of an answer's body."""
    cdef size_t taken = 0
    if not poster.chunked:
        taken = min(<uint64_t>length, poster.body_left)
        poster.body_left -= taken
        poster.in_body = poster.body_left > 0
        return taken
    while taken < length and poster.chunks.state < CHUNK_END:
        chunks_decode(&poster.chunks, at + taken, 1)     # answers are a few bytes
        taken += 1
    poster.in_body = poster.chunks.state < CHUNK_END
    return taken


cdef inline bint take_answers(Publisher *publisher, Poster *poster) noexcept nogil:
    """Reads all whole answers in `incoming`; False when it is not HTTP or the connection closes."""
    cdef char *at = poster.incoming
    cdef char *end = at + poster.incoming_bytes
    cdef uint64_t now = clock_us(CLOCK_REALTIME)
    cdef Head head
    cdef int outcome
    while at < end:
        if poster.in_body:
            at += skip_body(poster, at, end - at)
        else:
            outcome = read_head(&head, at, end - at)
            if outcome == 0:
                break
            if outcome < 0 or not take_answer(publisher, poster, &head, now):
                return False
            at += head.taken
        if poster.chunks.state == CHUNK_BAD or (poster.closing and not poster.in_body):
            return False
    poster.incoming_bytes = end - at
    memmove(poster.incoming, at, poster.incoming_bytes)
    return poster.incoming_bytes < IN_BYTES


cdef inline void read_answers(Publisher *publisher, Poster *poster) noexcept nogil:
    cdef ssize_t fresh
    cdef size_t room
    while poster.fd >= 0:
        room = IN_BYTES - poster.incoming_bytes
        fresh = recv(poster.fd, poster.incoming + poster.incoming_bytes, room, 0)
        if fresh < 0 and (errno == EAGAIN or errno == EINTR):
            return
        if fresh <= 0:
            lose(publisher, poster, errno if fresh < 0 else 0)
            return
        poster.incoming_bytes += fresh
        if not take_answers(publisher, poster):
            lose(publisher, poster, 0)
            poster.retry_at_us = 0
            return
        if <size_t>fresh < room:
            return
