# Topics and channels as the sender knows them: numbers. A topic lists the channels that asked for
# it and keeps its last value; a channel has a ring and the connections that share it.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from fastsse._frame cimport FrameData, frame_drop, frame_keep
from fastsse._memory cimport (
    Numbers, give, numbers_add, numbers_clear, numbers_drop_at, numbers_items, resize, take)
from fastsse._ring cimport Ring, ring_clear
from fastsse._queue cimport DISCONNECT, LATEST, SKIP
from fastsse._table cimport NONE

cdef enum:
    EVERY_EVENT = 0            # the topic number that every publish has


cdef struct Topic:
    Numbers channels
    FrameData* last            # newest event with policy `latest`, whatever rings have trimmed
    uint64_t last_sequence
    uint32_t older             # neighbours in the list of last values, by sequence
    uint32_t newer


cdef struct Channel:
    Numbers conns              # slots
    Numbers links              # pairs: a topic, and this channel's place in that topic's list
    Ring ring
    uint64_t last_sequence     # newest event appended; also tells one that came by another topic
    uint64_t last_disconnect   # newest event whose policy is `disconnect`
    uint64_t last_skip
    uint64_t low               # lowest cursor met in this round among those not blocked
    Channel* next_work
    uint32_t number
    uint32_t hand              # where the sweep stands in `conns`
    uint32_t to_visit          # connections to look at until all have what is in the ring
    uint32_t round_left        # connections to look at until the round is whole and `low` holds
    uint32_t blocked
    uint8_t queued             # is in the work list
    uint8_t removed            # its number is free again; freed when it leaves the work list


cdef struct Directory:
    Topic* topics
    uint32_t topic_capacity
    Channel** channels
    uint32_t channel_capacity
    uint32_t newest            # topic with the newest last value, NONE when there is none


cdef inline void directory_init(Directory* directory) noexcept nogil:
    memset(directory, 0, sizeof(Directory))
    directory.newest = NONE


cdef inline uint32_t grown(uint32_t capacity, uint32_t number) noexcept nogil:
    if capacity < 16:
        capacity = 16
    while capacity <= number:
        capacity += capacity // 2
    return capacity


cdef inline Topic* topic_at(Directory* directory, uint32_t number) noexcept nogil:
    """The topic of that number, made when it is new."""
    cdef uint32_t old = directory.topic_capacity
    cdef uint32_t capacity
    if number >= old:
        capacity = grown(old, number)
        directory.topics = <Topic*>resize(
            directory.topics, old * sizeof(Topic), capacity * sizeof(Topic))
        memset(&directory.topics[old], 0, (capacity - old) * sizeof(Topic))
        directory.topic_capacity = capacity
    return &directory.topics[number]


cdef inline Channel* channel_at(Directory* directory, uint32_t number) noexcept nogil:
    """The channel of that number, or NULL."""
    return directory.channels[number] if number < directory.channel_capacity else NULL


cdef inline Channel* channel_add(Directory* directory, uint32_t number) noexcept nogil:
    cdef uint32_t old = directory.channel_capacity
    cdef uint32_t capacity
    cdef Channel* channel
    if number >= old:
        capacity = grown(old, number)
        directory.channels = <Channel**>resize(
            directory.channels, old * sizeof(Channel*), capacity * sizeof(Channel*))
        memset(&directory.channels[old], 0, (capacity - old) * sizeof(Channel*))
        directory.channel_capacity = capacity
    channel = <Channel*>take(sizeof(Channel))
    memset(channel, 0, sizeof(Channel))
    channel.number = number
    directory.channels[number] = channel
    return channel


cdef inline void link(Directory* directory, uint32_t topic, Channel* channel) noexcept nogil:
    """The caller links a pair once."""
    cdef Numbers* channels = &topic_at(directory, topic).channels
    numbers_add(&channel.links, topic)
    numbers_add(&channel.links, channels.count)
    numbers_add(channels, channel.number)


cdef inline uint32_t link_index(Channel* channel, uint32_t topic) noexcept nogil:
    """Where in the channel's links the topic stands: O(topics of the channel), which are few."""
    cdef uint32_t* links = numbers_items(&channel.links)
    cdef uint32_t index = 0
    while links[index] != topic:
        index += 2
    return index


cdef inline void drop_from_topic(Directory* directory, uint32_t topic, uint32_t place) noexcept nogil:
    """O(1) in the topic's channels, which may be a million: the last one moves into the place."""
    cdef Numbers* channels = &directory.topics[topic].channels
    cdef Channel* moved
    numbers_drop_at(channels, place)
    if place < channels.count:
        moved = directory.channels[numbers_items(channels)[place]]
        numbers_items(&moved.links)[link_index(moved, topic) + 1] = place


cdef inline void channel_free(Channel* channel) noexcept nogil:
    ring_clear(&channel.ring)
    numbers_clear(&channel.links)
    numbers_clear(&channel.conns)
    give(channel, sizeof(Channel))


cdef inline void channel_remove(Directory* directory, Channel* channel) noexcept nogil:
    """Takes a channel that has no connection out; whoever holds it in a list frees it later."""
    cdef uint32_t* links = numbers_items(&channel.links)
    cdef uint32_t index
    for index in range(0, channel.links.count, 2):
        drop_from_topic(directory, links[index], links[index + 1])
    directory.channels[channel.number] = NULL
    channel.removed = True
    if not channel.queued:
        channel_free(channel)


cdef inline void last_value_unlink(Directory* directory, uint32_t number) noexcept nogil:
    cdef Topic* topic = &directory.topics[number]
    if topic.newer != NONE:
        directory.topics[topic.newer].older = topic.older
    else:
        directory.newest = topic.older
    if topic.older != NONE:
        directory.topics[topic.older].newer = topic.newer


cdef inline void last_value_forget(Directory* directory, uint32_t number) noexcept nogil:
    cdef Topic* topic = topic_at(directory, number)
    if topic.last is not NULL:
        last_value_unlink(directory, number)
        frame_drop(topic.last)
        topic.last = NULL


cdef inline void last_value_set(
        Directory* directory, uint32_t number, FrameData* frame, uint64_t sequence) noexcept nogil:
    cdef Topic* topic
    last_value_forget(directory, number)
    topic = topic_at(directory, number)
    topic.last = frame_keep(frame)
    topic.last_sequence = sequence
    topic.newer = NONE
    topic.older = directory.newest
    if directory.newest != NONE:
        directory.topics[directory.newest].newer = number
    directory.newest = number


cdef inline void unlink_topic(Channel* channel, uint32_t topic) noexcept nogil:
    """Takes the pair out by moving the last pair into its place."""
    cdef uint32_t* links = numbers_items(&channel.links)
    cdef uint32_t index = link_index(channel, topic)
    links[index] = links[channel.links.count - 2]
    links[index + 1] = links[channel.links.count - 1]
    channel.links.count -= 2
    if channel.links.count == 0:
        numbers_clear(&channel.links)


cdef inline void topic_remove(Directory* directory, uint32_t number) noexcept nogil:
    cdef Topic* topic = topic_at(directory, number)
    cdef uint32_t index
    last_value_forget(directory, number)
    for index in range(topic.channels.count):
        unlink_topic(directory.channels[numbers_items(&topic.channels)[index]], number)
    numbers_clear(&topic.channels)


cdef inline uint8_t channel_policy(Channel* channel, uint64_t cursor) noexcept nogil:
    """The strictest policy among the channel's events after `cursor`, trimmed ones included."""
    if channel.last_disconnect > cursor:
        return DISCONNECT
    return SKIP if channel.last_skip > cursor else LATEST


cdef inline void directory_clear(Directory* directory) noexcept nogil:
    cdef uint32_t number
    for number in range(directory.channel_capacity):
        if directory.channels[number] is not NULL:
            channel_remove(directory, directory.channels[number])
    for number in range(directory.topic_capacity):
        last_value_forget(directory, number)
        numbers_clear(&directory.topics[number].channels)
    give(directory.channels, directory.channel_capacity * sizeof(Channel*))
    give(directory.topics, directory.topic_capacity * sizeof(Topic))
    directory_init(directory)
