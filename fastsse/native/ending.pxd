# Ends of topics. A channel is over when all of its topics have ended: each of its connections gets,
# after the last event, the end event, the last chunk and FIN. All clients may reconnect, so a process
# ends only a fixed number of streams a second.

from libc.stdint cimport uint32_t

from fastsse.native.channel cimport Channel, Directory, channel_at, topic_at
from fastsse.native.counters cimport ENDED
from fastsse.native.farewell cimport begin_farewell
from fastsse.native.frame cimport FrameData, frame_drop, frame_keep
from fastsse.native.memory cimport numbers_add, numbers_drop_at, numbers_items
from fastsse.native.pairs cimport NO_KEY, Pair, pairs_end, pairs_items
from fastsse.native.rate cimport flush
from fastsse.native.state cimport State
from fastsse.native.sweep cimport lacks_something
from fastsse.native.table cimport BLOCKED, Conn

cdef enum:
    ENDS_PER_SECOND = 2_000
    LOOKS_PER_PASS = 4_096     # connections examined that still have pending events


cdef inline void be_over(State* state, Channel* channel, FrameData* last) noexcept nogil:
    """Marks a channel as over. Its streams get what waits for the tick, then `last`."""
    flush(state, channel)
    if channel.end_frame is not last:
        frame_drop(channel.end_frame)
        channel.end_frame = frame_keep(last)
    if not channel.is_listed_over:
        channel.is_listed_over = True
        numbers_add(&state.over, channel.number)
    state.has_new_ends = True


cdef inline FrameData* newest_end(Directory* directory, Channel* channel) noexcept nogil:
    """The end of the topic that ended last; NULL while one of the channel's topics is open."""
    cdef Pair* links = pairs_items(&channel.links)
    cdef FrameData* newest = NULL
    cdef FrameData* ended
    cdef uint32_t index
    for index in range(pairs_end(&channel.links)):
        if links[index].key == NO_KEY:
            continue
        ended = topic_at(directory, links[index].key).ended
        if ended is NULL:
            return NULL
        if newest is NULL or ended.position_ms > newest.position_ms or (
                ended.position_ms == newest.position_ms and ended.position_n > newest.position_n):
            newest = ended
    return newest


cdef inline void check_channel_over(State* state, Channel* channel) noexcept nogil:
    """Checks whether a channel is over; only one of exact topics can be. O(its topics)."""
    cdef FrameData* last
    if not channel.can_end:
        return
    last = newest_end(&state.directory, channel)
    if last is not NULL:
        be_over(state, channel, last)
    elif channel.end_frame is not NULL:
        frame_drop(channel.end_frame)
        channel.end_frame = NULL


cdef inline void set_ended(State* state, uint32_t number, FrameData* ended) noexcept nogil:
    """Notes that a topic has ended. With NULL it is open again: nothing is kept of it."""
    cdef uint32_t index
    frame_drop(topic_at(&state.directory, number).ended)
    topic_at(&state.directory, number).ended = NULL if ended is NULL else frame_keep(ended)
    for index in range(state.directory.topics[number].channels.count):
        check_channel_over(state, channel_at(
            &state.directory,
            numbers_items(&state.directory.topics[number].channels)[index]))


cdef inline bint is_whole(State* state, Conn* conn) noexcept nogil:
    return not conn.flags & BLOCKED and not lacks_something(state, conn)


cdef inline uint32_t end_streams(State* state, Channel* channel, uint32_t looks) noexcept nogil:
    """Ends connections that have no pending events, up to this tick's share; returns how many may
    still be examined. It goes backwards, because the last one moves to the place of one that leaves."""
    cdef FrameData* farewell
    cdef Conn* conn
    while looks and state.ends_left and channel.end_hand:
        looks -= 1
        channel.end_hand -= 1
        if channel.end_hand >= channel.conns.count:
            continue
        conn = &state.conns[numbers_items(&channel.conns)[channel.end_hand]]
        if is_whole(state, conn):
            farewell = NULL if channel.is_quiet else frame_keep(channel.end_frame)
            state.ends_left -= 1
            begin_farewell(state, conn, ENDED, farewell, True)
    return looks


cdef inline void end_some(State* state) noexcept nogil:
    """Continues the pass over channels that are over, the last one first."""
    cdef uint32_t at = state.over_hand
    cdef uint32_t looks = LOOKS_PER_PASS
    cdef Channel* channel
    state.has_new_ends = False
    if at == 0 or at > state.over.count:
        at = state.over.count
    while at and looks and state.ends_left:
        at -= 1
        channel = channel_at(&state.directory, numbers_items(&state.over)[at])
        if channel is NULL or channel.end_frame is NULL or channel.conns.count == 0:
            if channel is not NULL:
                channel.is_listed_over = False
            numbers_drop_at(&state.over, at)
            continue
        if channel.end_hand == 0:
            channel.end_hand = channel.conns.count
        looks = end_streams(state, channel, looks)
    state.over_hand = at


cdef inline void share_ends(State* state) noexcept nogil:
    """Sets how many streams may end in this tick."""
    state.ends_left = ENDS_PER_SECOND * state.options.tick_ms // 1000 + 1
