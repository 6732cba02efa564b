# The loop: pace, epoll, dispatch. One thread, no lock; orders and figures pass through the block.

cimport cython
from libc.stdint cimport uint32_t, uint64_t
from fastsse.swarm.native.engine cimport BATCH, Engine, READ_BYTES, TICK_US, due_by_now, random_below
from fastsse.swarm.native.heap cimport heap_pop
from fastsse.swarm.native.histogram cimport histogram_record
from fastsse.swarm.native.open cimport begin, fail, finish, send_request
from fastsse.swarm.native.os cimport (
    CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_THREAD_CPUTIME_ID, ECONNRESET, EINTR, EPOLLERR,
    EPOLLET, EPOLLHUP, EPOLLIN, EPOLLRDHUP, EPOLL_CTL_MOD, clock_us, epoll_ctl, epoll_event,
    epoll_wait, errno, getppid, pending_error, swarm_load, swarm_store,
)
from fastsse.swarm.native.read cimport count, receive
from fastsse.swarm.native.stats cimport (
    BEGAN_AT_US, COUNT_CPU_US, COUNT_TURNS, GAUGE_SLOW, GAUGE_STREAM, LAST_ERRNO, MEASURE_TURN,
    ORDER_CUT, ORDER_STOP, SETTLED_AT_US, buckets_of,
)
from fastsse.swarm.native.table cimport (
    CHURNED, CONNECTING, CUT, Connection, EOF, HEAD, IS_SLOW, SLOW, STREAM, TIMED_OUT,
)

cdef enum:
    OPENS_A_TURN = 16          # about 0.4 ms: events that wait meanwhile are timed late by that
    ENDS_A_TURN = 64
    READS_A_VISIT = 64
    DEADLINE_TURNS = 10        # every connection's deadline is looked at each tenth tick


cdef inline bint has_stream(const Connection *connection) noexcept nogil:
    return connection.state == STREAM or connection.state == SLOW


cdef inline void read_all(Engine *engine, uint32_t index) noexcept nogil:
    """Edge-triggered: until a short read. After many full ones others come first, and the
    registration is renewed so that the rest is reported again."""
    cdef Connection *connection = &engine.connections[index]
    cdef epoll_event event
    cdef int visit
    for visit in range(READS_A_VISIT):
        if not receive(engine, index, READ_BYTES):
            return
    event.events = EPOLLIN | EPOLLRDHUP | EPOLLET
    event.data.u64 = (<uint64_t>connection.generation << 32) | index
    epoll_ctl(engine.epoll, EPOLL_CTL_MOD, connection.fd, &event)


cdef inline void end_connection(Engine *engine, uint32_t index, uint32_t events) noexcept nogil:
    """The peer's end: an error, or a FIN behind whatever is still to be read."""
    cdef int error = 0
    if events & EPOLLERR:
        error = pending_error(engine.connections[index].fd)
        fail(engine, index, error if error else ECONNRESET)
    elif engine.connections[index].flags & IS_SLOW:
        finish(engine, index, EOF)
    else:
        read_all(engine, index)


cdef inline void on_event(Engine *engine, const epoll_event *event) noexcept nogil:
    cdef uint32_t index = <uint32_t>event.data.u64
    cdef Connection *connection = &engine.connections[index]
    if connection.fd < 0 or connection.generation != <uint32_t>(event.data.u64 >> 32):
        return                 # the fd that this was about is closed
    if connection.state == CONNECTING:
        send_request(engine, index)
    if connection.fd >= 0 and event.events & EPOLLIN:
        read_all(engine, index)
    if connection.fd >= 0 and event.events & (EPOLLERR | EPOLLRDHUP | EPOLLHUP):
        end_connection(engine, index, event.events)


# --- what happens by the clock -------------------------------------------------------------------

cdef inline uint64_t may_open(Engine *engine) noexcept nogil:
    """How many new connections the pace has allowed and not yet seen."""
    cdef uint64_t left = engine.count - engine.next_new
    cdef uint64_t allowed
    if engine.settings.connects_per_s > 0:
        allowed = 1 + due_by_now(engine.settings.connects_per_s, engine.began_us, engine.pace_us)
        left = min(left, allowed - engine.opened if allowed > engine.opened else 0)
    return left


cdef inline uint32_t free_to_open(Engine *engine) noexcept nogil:
    if engine.opening >= engine.settings.max_opening:
        return 0
    return min(<uint32_t>OPENS_A_TURN, engine.settings.max_opening - engine.opening)


cdef inline void open_some(Engine *engine) noexcept nogil:
    """Those that come back first, then new ones, as far as the pace and what is under way allow."""
    cdef uint32_t room = free_to_open(engine)
    cdef uint64_t fresh = may_open(engine)
    while room and engine.waiting.count and engine.waiting.items[0].at_us <= engine.pace_us:
        begin(engine, heap_pop(&engine.waiting))
        room -= 1
    while room and fresh:
        engine.next_new += 1
        engine.opened += 1
        begin(engine, engine.next_new - 1)
        room -= 1
        fresh -= 1
    if engine.settled_us == 0 and engine.next_new == engine.count and engine.opening == 0:
        engine.settled_us = clock_us(CLOCK_MONOTONIC)
        swarm_store(&engine.stats.counters[<int>SETTLED_AT_US], engine.settled_us)


cdef inline void churn_some(Engine *engine) noexcept nogil:
    """Ends random streams at the churn rate, once all were opened; new visitors follow them."""
    cdef uint64_t due
    cdef uint32_t index
    cdef int tries = ENDS_A_TURN
    if engine.settings.churn_per_s <= 0 or engine.settled_us == 0:
        return
    due = due_by_now(engine.settings.churn_per_s, engine.settled_us, engine.pace_us)
    while engine.churned < due and tries:
        tries -= 1
        index = random_below(engine, engine.count)
        if has_stream(&engine.connections[index]):
            engine.churned += 1
            finish(engine, index, CHURNED)


cdef inline void cut_some(Engine *engine) noexcept nogil:
    """Cuts as many streams as were ordered, one after another round the table; they resume."""
    cdef uint64_t ordered = swarm_load(&engine.stats.orders[<int>ORDER_CUT])
    cdef uint32_t looked = 0
    cdef int ends = 16 * ENDS_A_TURN
    while engine.cut < ordered and ends and looked < engine.count:
        looked += 1
        if has_stream(&engine.connections[engine.cut_hand]):
            engine.cut += 1
            ends -= 1
            finish(engine, engine.cut_hand, CUT)
        engine.cut_hand = engine.cut_hand + 1 if engine.cut_hand + 1 < engine.count else 0


cdef inline void check_deadlines(Engine *engine) noexcept nogil:
    """A slice of the table: connections that did not become streams in time end."""
    cdef uint64_t now = clock_us(CLOCK_REALTIME)
    cdef uint32_t i
    cdef Connection *connection
    for i in range(engine.count // DEADLINE_TURNS + 1):
        connection = &engine.connections[engine.clock_hand]
        if (connection.state == CONNECTING or connection.state == HEAD) and (
            now > connection.since_us + engine.settings.open_timeout_us
        ):
            finish(engine, engine.clock_hand, TIMED_OUT)
        engine.clock_hand = engine.clock_hand + 1 if engine.clock_hand + 1 < engine.count else 0


cdef inline void read_slowly(Engine *engine) noexcept nogil:
    """Slow connections that read at all get their share of a tick. O(connections)."""
    cdef size_t most = <size_t>(engine.settings.slow_bytes_per_s * TICK_US / 1e6)
    cdef uint32_t index
    if most == 0:
        return
    for index in range(engine.next_new):
        if engine.connections[index].state == SLOW:
            receive(engine, index, most)


cdef inline void tick(Engine *engine) noexcept nogil:
    engine.next_tick_us = engine.pace_us + TICK_US
    check_deadlines(engine)
    read_slowly(engine)
    if engine.parent and getppid() != engine.parent:
        swarm_store(&engine.stats.orders[<int>ORDER_STOP], 1)
    swarm_store(&engine.stats.counters[<int>COUNT_CPU_US], clock_us(CLOCK_THREAD_CPUTIME_ID))


@cython.cdivision(True)     # rates are looked at first
cdef inline int timeout_ms(Engine *engine) noexcept nogil:
    """How long epoll may wait: 0 when there is work, at most a tick."""
    cdef uint64_t next_us = engine.next_tick_us
    cdef double pace = engine.settings.connects_per_s
    if engine.cut < swarm_load(&engine.stats.orders[<int>ORDER_CUT]) and (
        engine.stats.counters[<int>GAUGE_STREAM] + engine.stats.counters[<int>GAUGE_SLOW]
    ):
        return 0
    if free_to_open(engine):
        if may_open(engine):
            return 0
        if engine.waiting.count:
            next_us = min(next_us, engine.waiting.items[0].at_us)
        if pace > 0 and engine.next_new < engine.count:
            next_us = min(next_us, engine.began_us + <uint64_t>(engine.opened * 1e6 / pace))
    if engine.settings.churn_per_s > 0 and engine.settled_us:
        next_us = min(next_us, engine.settled_us
                      + <uint64_t>((engine.churned + 1) * 1e6 / engine.settings.churn_per_s))
    if next_us <= engine.pace_us:
        return 0
    return <int>((next_us - engine.pace_us + 999) // 1000)


cdef inline void run_loop(Engine *engine) noexcept nogil:
    """Runs until the order to stop (or until epoll itself fails)."""
    cdef uint64_t woke_us
    cdef int ready, i
    engine.began_us = woke_us = engine.pace_us = clock_us(CLOCK_MONOTONIC)
    swarm_store(&engine.stats.counters[<int>BEGAN_AT_US], engine.began_us)
    while swarm_load(&engine.stats.orders[<int>ORDER_STOP]) == 0:
        if engine.pace_us >= engine.next_tick_us:
            tick(engine)
        open_some(engine)
        churn_some(engine)
        cut_some(engine)
        engine.pace_us = clock_us(CLOCK_MONOTONIC)
        histogram_record(buckets_of(&engine.stats, MEASURE_TURN), engine.pace_us - woke_us)
        count(engine, COUNT_TURNS, 1)
        ready = epoll_wait(engine.epoll, engine.events, BATCH, timeout_ms(engine))
        woke_us = engine.pace_us = clock_us(CLOCK_MONOTONIC)
        if ready < 0 and errno != EINTR:
            swarm_store(&engine.stats.counters[<int>LAST_ERRNO], <uint64_t>errno)
            return
        for i in range(ready):
            on_event(engine, &engine.events[i])
    swarm_store(&engine.stats.counters[<int>COUNT_CPU_US], clock_us(CLOCK_THREAD_CPUTIME_ID))
