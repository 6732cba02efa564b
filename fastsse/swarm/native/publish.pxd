# An open-loop publisher: request k is due at start + k / rate, whatever became of the ones before it,
# and says so in its data. Keep-alive connections take the requests in turn; one whose answers are late
# sends late, which its figures show (due to sent, sent to answered, due to answered).

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset
from fastsse.swarm.native.os cimport (
    CLOCK_REALTIME, CLOCK_THREAD_CPUTIME_ID, EINPROGRESS, EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP,
    EPOLL_CTL_ADD, TFD_TIMER_ABSTIME, clock_us, connect, epoll_ctl, epoll_event, epoll_wait, errno,
    itimerspec, open_socket, read, sockaddr, swarm_load, swarm_store, timerfd_settime,
)
from fastsse.swarm.native.post cimport (
    PUBLISH_CONNECTS, PUBLISH_CONNECTS_FAILED, PUBLISH_CPU_US, PUBLISH_STARTED_AT_US,
    PUBLISH_UNSENT, Poster, Publisher, RETRY_US, can_send, due_of, flush_out, lose, post_due,
    read_answers, tally,
)

cdef enum:
    POSTERS_READY = 64


cdef inline void dial(Publisher *publisher, uint32_t number) noexcept nogil:
    cdef Poster *poster = &publisher.posters[number]
    cdef epoll_event event
    cdef int fd = open_socket(NULL, 0, publisher.family)
    poster.retry_at_us = clock_us(CLOCK_REALTIME) + RETRY_US
    tally(publisher, PUBLISH_CONNECTS, 1)
    if fd < 0:
        tally(publisher, PUBLISH_CONNECTS_FAILED, 1)
        return
    poster.fd = fd
    event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET
    event.data.u64 = number
    if epoll_ctl(publisher.epoll, EPOLL_CTL_ADD, fd, &event) < 0:
        lose(publisher, poster, errno)
    elif connect(fd, <const sockaddr *>publisher.target, publisher.address_bytes) < 0 and (
        errno != EINPROGRESS
    ):
        lose(publisher, poster, errno)
    else:
        poster.blocked = True      # until EPOLLOUT says that it is connected


cdef inline void on_poster(Publisher *publisher, const epoll_event *event) noexcept nogil:
    cdef uint32_t number = <uint32_t>event.data.u64
    cdef Poster *poster = &publisher.posters[number]
    if poster.fd >= 0 and event.events & ~<uint32_t>EPOLLOUT:
        read_answers(publisher, poster)
    if poster.fd >= 0 and event.events & EPOLLOUT:
        poster.connected = True
        poster.blocked = False
        flush_out(publisher, poster)


cdef inline uint64_t next_wake(Publisher *publisher) noexcept nogil:
    """When some connection will have something to do by the clock. O(connections)."""
    cdef uint64_t when = publisher.end_us + publisher.patience_us
    cdef uint32_t number
    cdef Poster *poster
    for number in range(publisher.poster_count):
        poster = &publisher.posters[number]
        if poster.fd < 0:
            when = min(when, poster.retry_at_us)
        elif publisher.interval_us > 0 and can_send(publisher, poster):
            when = min(when, due_of(publisher, poster.next_request))
    return when


cdef inline void set_timer(Publisher *publisher, uint64_t when_us) noexcept nogil:
    """Absolute and on the stamps' own clock, so that setting the clock cannot part the two."""
    cdef itimerspec when
    memset(&when, 0, sizeof(itimerspec))
    when.it_value.tv_sec = <long>(when_us // 1000000)
    when.it_value.tv_nsec = <long>(when_us % 1000000) * 1000
    if when_us == 0:
        when.it_value.tv_nsec = 1
    timerfd_settime(publisher.timer, TFD_TIMER_ABSTIME, &when, NULL)


cdef inline bint all_answered(Publisher *publisher) noexcept nogil:
    cdef uint32_t number
    for number in range(publisher.poster_count):
        if publisher.posters[number].outstanding:
            return False
    return True


cdef inline bint is_over(Publisher *publisher, uint64_t now_us) noexcept nogil:
    """Whether all that was due was sent and answered, or patience ended."""
    cdef uint32_t number
    if now_us < publisher.end_us:
        return False
    if now_us > publisher.end_us + publisher.patience_us:
        return True
    if publisher.interval_us > 0:
        for number in range(publisher.poster_count):
            if due_of(publisher, publisher.posters[number].next_request) < publisher.end_us:
                return False
    return all_answered(publisher)


cdef inline void count_unsent(Publisher *publisher) noexcept nogil:
    """Requests that came due and were never sent: an open loop must not leave them out."""
    cdef uint32_t number
    cdef uint64_t request
    if publisher.interval_us <= 0:
        return
    for number in range(publisher.poster_count):
        request = publisher.posters[number].next_request
        while due_of(publisher, request) < min(publisher.end_us, clock_us(CLOCK_REALTIME)):
            tally(publisher, PUBLISH_UNSENT, 1)
            request += publisher.poster_count


cdef inline void run_publisher(Publisher *publisher) noexcept nogil:
    """Runs until all is sent and answered, patience ends or the order to stop comes."""
    cdef epoll_event events[POSTERS_READY]
    cdef uint64_t now = clock_us(CLOCK_REALTIME), expirations
    cdef uint64_t cpu_before_us = clock_us(CLOCK_THREAD_CPUTIME_ID)
    cdef uint32_t number
    cdef int ready, i
    swarm_store(&publisher.counters[<int>PUBLISH_STARTED_AT_US], publisher.begin_us)
    while not is_over(publisher, now) and swarm_load(publisher.orders) == 0:
        for number in range(publisher.poster_count):
            if publisher.posters[number].fd < 0 and publisher.posters[number].retry_at_us <= now:
                dial(publisher, number)
            if now >= publisher.begin_us:
                post_due(publisher, number, now)
        set_timer(publisher, next_wake(publisher))
        ready = epoll_wait(publisher.epoll, events, POSTERS_READY, 100)
        for i in range(ready):
            if events[i].data.u64 == publisher.poster_count:
                read(publisher.timer, &expirations, sizeof(expirations))
            else:
                on_poster(publisher, &events[i])
        now = clock_us(CLOCK_REALTIME)
        swarm_store(&publisher.counters[<int>PUBLISH_CPU_US],
                    clock_us(CLOCK_THREAD_CPUTIME_ID) - cpu_before_us)
    count_unsent(publisher)
