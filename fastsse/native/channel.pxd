# Topics and channels of the sender; both are numbers here. A topic lists its channels and keeps its
# last value. A channel has a ring and the connections that share it.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from fastsse.native.frame cimport FrameData, frame_drop, frame_keep
from fastsse.native.memory cimport (
    Numbers, release, numbers_add, numbers_clear, numbers_drop_at, numbers_items, resize, alloc)
from fastsse.native.pairs cimport (
    NO_KEY, Pair, Pairs, pairs_drop, pairs_end, pairs_find, pairs_free, pairs_items, pairs_put)
from fastsse.native.ring cimport Ring, ring_clear
from fastsse.native.queue cimport DISCONNECT, LATEST, SKIP
from fastsse.native.table cimport NONE
from fastsse.native.view cimport View, view_drop

cdef enum:
    EVERY_EVENT = 0            # the topic number that every publish has


cdef struct LastValue:         # its number is 2 * topic, and one more if it is the private one
    FrameData* frame           # newest event with policy `latest`; kept when rings trim it
    FrameData* envelope        # the same with an envelope, if a channel was sent it
    uint64_t sequence
    uint32_t older             # neighbours in the list of last values, by sequence
    uint32_t newer


cdef struct Topic:
    Numbers channels
    LastValue* last            # two: public; private, and then newer. NULL before the first
    FrameData* ended           # end event that its streams get; NULL while the topic is open
    uint32_t generation        # moves on when the topic is forgotten, so that its grants are too


cdef struct Waiting:           # an event that waits for its channel's tick, see `rate`
    FrameData* frame           # NULL: a newer one has taken its place
    uint64_t sequence
    uint64_t key               # a hash of topic and type
    uint32_t topic
    uint8_t policy


cdef struct Rate:
    uint32_t interval_ms
    uint32_t index             # in the list of channels in which something waits
    uint64_t span              # the number of the newest span of time
    uint64_t late_ms           # how late recent events came
    uint64_t due_us            # when what waits is sent
    uint64_t bytes
    Waiting* waiting           # in order
    uint32_t count
    uint32_t capacity          # 0: nothing waits
    uint32_t live              # of `count`, those with a frame
    uint32_t slot_count
    uint32_t* slots            # a hash table: places in `waiting`, from 1


cdef struct Judged:            # what a channel with a view has in addition
    uint64_t sequence          # newest event that the view judged, sent or not
    uint64_t ms                # its position
    uint64_t n
    FrameData* mark            # block that moves the id to that; made again when it moves
    Rate* rate                 # NULL: each event at once


cdef struct Channel:
    Numbers conns              # slots
    Pairs links                # topic to this channel's place in that topic's list
    Pairs grants               # topic to the generation of it for which the grant was given
    Ring ring
    uint64_t last_sequence     # newest event appended; the same again came by another topic
    uint64_t last_disconnect   # newest event whose policy is `disconnect`
    uint64_t last_skip
    View* view                 # NULL: every event, as it is
    Judged* judged             # with it
    uint64_t low               # lowest cursor of unblocked connections in this round
    Channel* next_work
    uint32_t number
    uint32_t hand              # where the sweep stands in `conns`
    uint32_t to_visit          # connections to look at until all have what is in the ring
    uint32_t round_left        # connections to look at until the round is whole and `low` holds
    uint32_t blocked
    uint8_t queued             # is in the work list
    uint8_t removed            # its number is free again; freed when it leaves the work list
    uint8_t granted_all
    uint8_t is_quiet           # its streams take no control events, and end in the place of a gap
    uint8_t can_end            # only exact topics: it is over when all of them have ended
    uint8_t is_listed_over     # stands in the list of channels that are over
    uint32_t end_hand          # where the walk over its ending connections stands
    FrameData* end_frame       # last event of its streams when it is over; else NULL


cdef struct Directory:
    Topic* topics
    uint32_t topic_capacity
    Channel** channels
    uint32_t channel_capacity
    uint32_t newest            # number of the newest last value, NONE when there is none


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
    """The topic of this number, created if it is new."""
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
    channel = <Channel*>alloc(sizeof(Channel))
    memset(channel, 0, sizeof(Channel))
    channel.number = number
    directory.channels[number] = channel
    return channel


cdef inline void link(Directory* directory, uint32_t topic, Channel* channel) noexcept nogil:
    cdef Numbers* channels = &topic_at(directory, topic).channels
    if pairs_find(&channel.links, topic) is NULL:
        pairs_put(&channel.links, topic, channels.count)
        numbers_add(channels, channel.number)


cdef inline bint is_linked(Channel* channel, uint32_t topic) noexcept nogil:
    return pairs_find(&channel.links, topic) is not NULL


cdef inline void grant(Directory* directory, uint32_t topic, Channel* channel) noexcept nogil:
    """A topic does not list its grants, because there may be a million. A grant is valid for one
    generation of the topic, so forgetting all of them is one step."""
    if topic == EVERY_EVENT:
        channel.granted_all = True
    else:
        pairs_put(&channel.grants, topic, topic_at(directory, topic).generation)


cdef inline bint is_granted(
        Directory* directory, uint32_t topic, Channel* channel) noexcept nogil:
    cdef Pair* found
    if channel.granted_all:
        return True
    found = pairs_find(&channel.grants, topic)
    return found is not NULL and found.value == topic_at(directory, topic).generation


cdef inline void drop_from_topic(Directory* directory, uint32_t topic, uint32_t place) noexcept nogil:
    """O(1) in the topic's channels, which may be a million: the last one moves into the place."""
    cdef Numbers* channels = &directory.topics[topic].channels
    cdef Channel* moved
    numbers_drop_at(channels, place)
    if place < channels.count:
        moved = directory.channels[numbers_items(channels)[place]]
        pairs_find(&moved.links, topic).value = place


cdef inline void rate_free(Rate* rate) noexcept nogil:
    cdef uint32_t index
    if rate is NULL:
        return
    for index in range(rate.count):
        frame_drop(rate.waiting[index].frame)
    release(rate.waiting, rate.capacity * sizeof(Waiting))
    release(rate.slots, rate.slot_count * sizeof(uint32_t))
    release(rate, sizeof(Rate))


cdef inline Rate* rate_of(Channel* channel) noexcept nogil:
    """The channel's rate, or NULL."""
    return channel.judged.rate if channel.judged is not NULL else NULL


cdef inline void take_view(Channel* channel, View* view) noexcept nogil:
    """Gives a new channel a view, whose reference it takes over; NULL: none."""
    channel.view = view
    if view is not NULL:
        channel.judged = <Judged*>alloc(sizeof(Judged))
        memset(channel.judged, 0, sizeof(Judged))


cdef inline void judged_free(Judged* judged) noexcept nogil:
    if judged is not NULL:
        rate_free(judged.rate)
        frame_drop(judged.mark)
        release(judged, sizeof(Judged))


cdef inline void channel_free(Channel* channel) noexcept nogil:
    judged_free(channel.judged)
    view_drop(channel.view)
    ring_clear(&channel.ring)
    frame_drop(channel.end_frame)
    pairs_free(&channel.links)
    pairs_free(&channel.grants)
    numbers_clear(&channel.conns)
    release(channel, sizeof(Channel))


cdef inline void channel_remove(Directory* directory, Channel* channel) noexcept nogil:
    """Removes a channel without connections. If it is in the work list, it is freed when it leaves
    the list."""
    cdef Pair* links = pairs_items(&channel.links)
    cdef uint32_t index
    for index in range(pairs_end(&channel.links)):
        if links[index].key != NO_KEY:
            drop_from_topic(directory, links[index].key, links[index].value)
    directory.channels[channel.number] = NULL
    channel.removed = True
    if not channel.queued:
        channel_free(channel)


cdef inline LastValue* value_at(Directory* directory, uint32_t number) noexcept nogil:
    """The last value of that number; NULL if its topic never had one."""
    cdef LastValue* last = directory.topics[number >> 1].last
    return &last[number & 1] if last is not NULL else NULL


cdef inline LastValue* value_made(Directory* directory, uint32_t number) noexcept nogil:
    cdef Topic* topic = topic_at(directory, number >> 1)
    if topic.last is NULL:
        topic.last = <LastValue*>alloc(2 * sizeof(LastValue))
        memset(topic.last, 0, 2 * sizeof(LastValue))
    return &topic.last[number & 1]


cdef inline void last_value_forget(Directory* directory, uint32_t number) noexcept nogil:
    cdef LastValue* value = value_at(directory, number)
    if value is NULL or value.frame is NULL:
        return
    if value.newer != NONE:
        value_at(directory, value.newer).older = value.older
    else:
        directory.newest = value.older
    if value.older != NONE:
        value_at(directory, value.older).newer = value.newer
    frame_drop(value.frame)
    frame_drop(value.envelope)
    value.frame = value.envelope = NULL


cdef inline void last_values_free(Directory* directory, uint32_t topic) noexcept nogil:
    last_value_forget(directory, 2 * topic)
    last_value_forget(directory, 2 * topic + 1)
    release(directory.topics[topic].last, 2 * sizeof(LastValue))
    directory.topics[topic].last = NULL


cdef inline void last_value_set(
        Directory* directory, uint32_t topic, FrameData* frame, FrameData* envelope,
        uint64_t sequence) noexcept nogil:
    """A public event replaces both values. A private one replaces only the private value, so
    streams without a grant keep the public one."""
    cdef uint32_t number = 2 * topic + frame.is_private
    cdef LastValue* value = value_made(directory, number)
    last_value_forget(directory, number)
    if not frame.is_private:
        last_value_forget(directory, 2 * topic + 1)
    value.frame = frame_keep(frame)
    value.envelope = frame_keep(envelope) if envelope is not NULL else NULL
    value.sequence = sequence
    value.newer = NONE
    value.older = directory.newest
    if directory.newest != NONE:
        value_at(directory, directory.newest).newer = number
    directory.newest = number


cdef inline bint is_newest_for(
        Directory* directory, Channel* channel, uint32_t number) noexcept nogil:
    """Whether that last value is its topic's newest event that the channel may see."""
    cdef uint32_t topic = number >> 1
    cdef LastValue* last = directory.topics[topic].last
    if last is NULL or last[1].frame is NULL:
        return True
    return is_granted(directory, topic, channel) == <bint>(number & 1)


cdef inline void topic_remove(Directory* directory, uint32_t number) noexcept nogil:
    cdef Topic* topic = topic_at(directory, number)
    cdef uint32_t index
    last_values_free(directory, number)
    for index in range(topic.channels.count):
        pairs_drop(&directory.channels[numbers_items(&topic.channels)[index]].links, number)
    numbers_clear(&topic.channels)
    topic.generation += 1
    frame_drop(topic.ended)
    topic.ended = NULL


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
        last_values_free(directory, number)
        numbers_clear(&directory.topics[number].channels)
        frame_drop(directory.topics[number].ended)
    release(directory.channels, directory.channel_capacity * sizeof(Channel*))
    release(directory.topics, directory.topic_capacity * sizeof(Topic))
    directory_init(directory)
