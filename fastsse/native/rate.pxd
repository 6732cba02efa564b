# Channels with a rate. Time is divided into spans of one length. When a span is over, the newest event
# of each topic and type in it is sent, in order. Spans are made from the times of events, so a replay
# leaves out the same ones. Events of several topics are never left out.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from fastsse.native.channel cimport Channel, Rate, Waiting, rate_of
from fastsse.native.counters cimport bump
from fastsse.native.fields cimport text_equals, type_of
from fastsse.native.frame cimport FrameData, Text, frame_drop, frame_keep
from fastsse.native.memory cimport (
    alloc, numbers_add, numbers_drop_at, numbers_items, release, resize)
from fastsse.native.os cimport relaxed_load, wall_ms
from fastsse.native.state cimport State, read_clock
from fastsse.native.sweep cimport append

cdef enum:
    NO_TOPIC = 0xFFFFFFFF      # event of several topics: no other replaces it


cdef inline uint64_t span_of(FrameData* frame, uint32_t interval_ms) noexcept nogil:
    """The number of the span that an event lies in."""
    return frame.time_ms // interval_ms


cdef inline uint64_t key_of(uint32_t topic, Text type) noexcept nogil:
    cdef uint64_t hash = 0xCBF29CE484222325u ^ topic
    cdef size_t index
    for index in range(type.size):
        hash = (hash ^ <uint8_t>type.at[index]) * 0x100000001B3u
    hash *= 0x9E3779B97F4A7C15u
    return hash ^ hash >> 32


cdef inline Rate* rate_new(uint32_t interval_ms) noexcept nogil:
    cdef Rate* rate = <Rate*>alloc(sizeof(Rate))
    memset(rate, 0, sizeof(Rate))
    rate.interval_ms = interval_ms
    return rate


# ---- what waits --------------------------------------------------------------------------------

cdef inline uint32_t* slot_of_key(Rate* rate, uint64_t key, uint32_t topic, Text type) noexcept nogil:
    """The slot with the place, from 1, of the event that waits with this key, or the empty one
    where it would stand."""
    cdef uint32_t mask = rate.slot_count - 1
    cdef uint32_t at = <uint32_t>key & mask
    cdef Waiting* waiting
    while rate.slots[at]:
        waiting = &rate.waiting[rate.slots[at] - 1]
        if waiting.key == key and waiting.topic == topic \
                and text_equals(type_of(waiting.frame), type):
            break
        at = (at + 1) & mask
    return &rate.slots[at]


cdef inline void fill_slots(Rate* rate, uint32_t count) noexcept nogil:
    """Fills a new hash table of this size with what waits."""
    cdef uint32_t index
    cdef Waiting* waiting
    release(rate.slots, rate.slot_count * sizeof(uint32_t))
    rate.slots = <uint32_t*>alloc(count * sizeof(uint32_t))
    rate.slot_count = count
    memset(rate.slots, 0, count * sizeof(uint32_t))
    for index in range(rate.count):
        waiting = &rate.waiting[index]
        if waiting.frame is not NULL and waiting.topic != NO_TOPIC:
            slot_of_key(rate, waiting.key, waiting.topic, type_of(waiting.frame))[0] = index + 1


cdef inline void close_holes(Rate* rate) noexcept nogil:
    """Closes the holes in the list of what waits. The hash table must be filled again after it."""
    cdef uint32_t index
    cdef uint32_t to = 0
    for index in range(rate.count):
        if rate.waiting[index].frame is not NULL:
            rate.waiting[to] = rate.waiting[index]
            to += 1
    rate.count = to


cdef inline void make_room(Rate* rate) noexcept nogil:
    """Makes room for one more that waits. Amortized O(1)."""
    cdef uint32_t capacity
    if rate.count == rate.capacity:
        if rate.live < rate.count // 2:
            close_holes(rate)
            fill_slots(rate, rate.slot_count)
        else:
            capacity = rate.capacity * 2 if rate.capacity else 8
            rate.waiting = <Waiting*>resize(
                rate.waiting, rate.capacity * sizeof(Waiting), capacity * sizeof(Waiting))
            rate.capacity = capacity
    if rate.slot_count < 2 * (rate.live + 1):
        fill_slots(rate, max(16, 2 * rate.slot_count))


cdef inline void rate_clear(State* state, Channel* channel) noexcept nogil:
    """Drops all that waits, and takes the channel off the list of those with a tick."""
    cdef Rate* rate = rate_of(channel)
    cdef uint32_t index
    if rate is NULL or rate.capacity == 0:
        return
    for index in range(rate.count):
        frame_drop(rate.waiting[index].frame)
    release(rate.waiting, rate.capacity * sizeof(Waiting))
    release(rate.slots, rate.slot_count * sizeof(uint32_t))
    rate.waiting = NULL
    rate.slots = NULL
    rate.count = rate.capacity = rate.slot_count = rate.live = 0
    rate.bytes = 0
    numbers_drop_at(&state.rated, rate.index)
    if rate.index < state.rated.count:
        state.directory.channels[numbers_items(&state.rated)[rate.index]].judged.rate.index \
            = rate.index


cdef inline void flush(State* state, Channel* channel) noexcept nogil:
    """Appends what waits to the ring, in order. For lag it counts as accepted now, because the client
    did not cause the wait."""
    cdef Rate* rate = rate_of(channel)
    cdef uint32_t index
    cdef Waiting* waiting
    cdef uint64_t now_us = read_clock(state)
    if rate is NULL or rate.capacity == 0:
        return
    for index in range(rate.count):
        waiting = &rate.waiting[index]
        if waiting.frame is not NULL:
            append(state, channel, waiting.frame, waiting.sequence, now_us, waiting.policy, False)
    rate_clear(state, channel)


# ---- when it is sent ---------------------------------------------------------------------------

cdef inline uint64_t due_us(State* state, Rate* rate, FrameData* frame) noexcept nogil:
    """When the span of an event is over in this process. Events of other processes come late, so the
    time of the most delayed recent one is added, at most one span."""
    cdef uint64_t now_ms = wall_ms() + <uint64_t>relaxed_load(&state.clock_ahead_us) // 1000
    cdef uint64_t late_ms = min(
        now_ms - frame.time_ms if now_ms > frame.time_ms else 0, <uint64_t>rate.interval_ms)
    cdef uint64_t over_ms = (rate.span + 1) * rate.interval_ms
    rate.late_ms = max(late_ms, rate.late_ms - rate.late_ms // 8)
    over_ms += rate.late_ms
    return read_clock(state) + 1000 * min(
        over_ms - now_ms if over_ms > now_ms else 0, <uint64_t>(2 * rate.interval_ms))


cdef inline void begin_tick(State* state, Channel* channel, uint64_t at_us) noexcept nogil:
    cdef Rate* rate = rate_of(channel)
    if rate.capacity == 0:
        rate.index = state.rated.count
        numbers_add(&state.rated, channel.number)
        rate.due_us = at_us
    rate.due_us = max(rate.due_us, at_us)
    if state.rated.count == 1 or rate.due_us < state.next_rate_us:
        state.next_rate_us = rate.due_us


cdef inline void wait_for_tick(
        State* state, Channel* channel, FrameData* frame, uint32_t topic, uint8_t policy) noexcept nogil:
    """Lets a publish wait for the tick; it replaces an older one of its topic and type. What waits is
    bounded in bytes: above that the tick comes early."""
    cdef Rate* rate = rate_of(channel)
    cdef uint64_t span = span_of(frame, rate.interval_ms)
    cdef Text type = type_of(frame)
    cdef Waiting* waiting
    cdef uint32_t* slot
    if span > rate.span:
        flush(state, channel)
        rate.span = span
    begin_tick(state, channel, due_us(state, rate, frame))
    make_room(rate)
    waiting = &rate.waiting[rate.count]
    waiting.frame = frame_keep(frame)
    waiting.sequence = state.sequence
    waiting.topic = topic
    waiting.policy = policy
    waiting.key = 0
    if topic != NO_TOPIC:
        waiting.key = key_of(topic, type)
        slot = slot_of_key(rate, waiting.key, topic, type)
        if slot[0]:
            leave_out(state, rate, &rate.waiting[slot[0] - 1])
        slot[0] = rate.count + 1
    rate.count += 1
    rate.live += 1
    rate.bytes += frame.body_bytes
    if rate.bytes > state.options.max_lag_bytes:
        flush(state, channel)


cdef inline void leave_out(State* state, Rate* rate, Waiting* older) noexcept nogil:
    rate.bytes -= older.frame.body_bytes
    rate.live -= 1
    frame_drop(older.frame)
    older.frame = NULL
    bump(&state.counters.conflated, 1)


cdef inline void flush_due(State* state) noexcept nogil:
    """The ticks that are due. O(channels in which something waits)."""
    cdef uint64_t now_us
    cdef uint64_t next_us = <uint64_t>-1
    cdef uint32_t index
    cdef Channel* channel
    if state.rated.count == 0:
        return
    now_us = read_clock(state)
    if now_us < state.next_rate_us:
        return
    index = state.rated.count
    while index:               # from the end: a flush moves the last one into its place
        index -= 1
        channel = state.directory.channels[numbers_items(&state.rated)[index]]
        if channel.judged.rate.due_us <= now_us:
            flush(state, channel)
        else:
            next_us = min(next_us, channel.judged.rate.due_us)
    state.next_rate_us = next_us
