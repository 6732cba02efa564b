# Offers a publish to channels with a view. All such channels share one look at the event.

from libc.stdint cimport uint32_t

from fastsse.native.channel cimport (
    EVERY_EVENT, Channel, is_granted, is_linked)
from fastsse.native.counters cimport bump
from fastsse.native.facts cimport Mask, add_topic, all_topics, no_topics
from fastsse.native.frame cimport FrameData
from fastsse.native.queue cimport LATEST, Command, command_topics
from fastsse.native.rate cimport NO_TOPIC, flush, wait_for_tick
from fastsse.native.state cimport State
from fastsse.native.sweep cimport append
from fastsse.native.view cimport PASSES_OVER, SENDS, SENDS_LAST, Verdict, form_of, judge_event


cdef inline Mask shown_topics(State* state, Channel* channel, Command* command) noexcept nogil:
    """The topics of a publish that the channel may name: all, but of a private event only those
    that it selects and is granted."""
    cdef Mask shown
    cdef uint32_t topic
    cdef uint32_t index
    if not command.frame.is_private or command.topic_count == 1 \
            or (channel.granted_all and is_linked(channel, EVERY_EVENT)):
        return all_topics()
    shown = no_topics()
    for index in range(command.topic_count):
        topic = command_topics(command)[index]
        if (is_linked(channel, topic) or is_linked(channel, EVERY_EVENT)) \
                and is_granted(&state.directory, topic, channel):
            add_topic(&shown, index)
    return shown


cdef inline void note_seen(State* state, Channel* channel, FrameData* frame) noexcept nogil:
    channel.judged.sequence = state.sequence
    channel.judged.ms = frame.position_ms
    channel.judged.n = frame.position_n


cdef inline void pass_over(State* state, Channel* channel, Command* command) noexcept nogil:
    """Notes an event that the view leaves out. A stream that fell behind can't get it as its topic's
    newest value, so policy `latest` becomes `skip`: such a stream gets a gap."""
    if command.policy == LATEST:
        channel.last_skip = state.sequence
    bump(&state.counters.passed_over, 1)


cdef inline void send_as(
        State* state, Channel* channel, Command* command, FrameData* frame,
        Verdict verdict) noexcept nogil:
    """Appends an event at once, or, in a channel with a rate, at the next tick. An event that ends
    the streams, and a frame that is no event, are appended at once, after all that waits."""
    if channel.judged.rate is not NULL and verdict == SENDS and command.frame.events:
        wait_for_tick(
            state, channel, frame,
            command_topics(command)[0] if command.topic_count == 1 else NO_TOPIC, command.policy)
        return
    if channel.judged.rate is not NULL:
        flush(state, channel)
    append(state, channel, frame, state.sequence, command.accepted_us, command.policy,
           verdict == SENDS_LAST)


cdef inline void offer(State* state, Channel* channel, Command* command) noexcept nogil:
    """Puts a publish that the channel may get into its ring, in the form of its view. Once for each
    publish, whichever topics bring it. Without a stream there is nothing to do."""
    cdef Mask shown
    cdef Verdict verdict
    if channel.judged.sequence == state.sequence:
        return
    note_seen(state, channel, command.frame)
    if channel.conns.count == 0:
        return
    shown = shown_topics(state, channel, command)
    verdict = judge_event(channel.view, &state.look, &shown)
    if verdict == PASSES_OVER:
        pass_over(state, channel, command)
    else:
        send_as(state, channel, command, form_of(channel.view, &state.look, shown), verdict)
