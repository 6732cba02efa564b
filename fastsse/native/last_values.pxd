# Policy `latest`: a connection that fell behind gets the newest event of each topic after its
# cursor, in order. Only a flag is kept for it. Values are looked up when its socket is writable, as
# many as one visit sends, and each moves the cursor when it is sent.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fastsse.native.channel cimport (
    EVERY_EVENT, Channel, LastValue, channel_policy, is_linked, is_newest_for, value_at)
from fastsse.native.frame cimport FrameData, frame_keep
from fastsse.native.pairs cimport NO_KEY, Pair, pairs_end, pairs_items
from fastsse.native.queue cimport LAST_VALUE, LATEST, Node, node_end, node_free, node_new
from fastsse.native.state cimport State, VISIT_FRAMES
from fastsse.native.table cimport Conn, LAPPED, NONE

cdef enum:
    OWN_TOPICS_MAX = 128       # a channel with more topics walks over all last values instead


cdef inline FrameData* value_for(Channel* channel, LastValue* value) noexcept nogil:
    """A last value in the channel's form. With an envelope: the twin exists, because the event was
    sent to the channel; otherwise policy `latest` would not apply to it (see `offer`)."""
    return value.envelope if channel.view is not NULL and channel.view.has_envelope else value.frame


cdef inline Node* last_value_node(State* state, Channel* channel, LastValue* value) noexcept nogil:
    cdef FrameData* frame = value_for(channel, value)
    cdef Node* node
    if frame.expires_ms and frame.expires_ms <= state.wall_ms:
        frame = state.blank
    node = node_new(frame_keep(frame), LAST_VALUE)
    node.sequence = value.sequence
    return node


cdef inline uint32_t oldest_after(State* state, uint64_t cursor) noexcept nogil:
    """The oldest last value after `cursor`, or NONE. O(later values)."""
    cdef uint32_t found = NONE
    cdef uint32_t number = state.directory.newest
    while number != NONE and value_at(&state.directory, number).sequence > cursor:
        found = number
        number = value_at(&state.directory, number).older
    return found


cdef inline bint is_owed(
        State* state, Channel* channel, uint32_t number, bint all_topics) noexcept nogil:
    return value_for(channel, value_at(&state.directory, number)) is not NULL \
        and (all_topics or is_linked(channel, number >> 1)) \
        and is_newest_for(&state.directory, channel, number)


cdef inline Node* of_many_topics(State* state, Channel* channel, uint64_t cursor) noexcept nogil:
    """The channel's first last values after `cursor`, oldest first, as many as a visit sends. An
    event of several topics is taken once: its neighbours in the list have the same sequence."""
    cdef bint all_topics = is_linked(channel, EVERY_EVENT)
    cdef Node* first = NULL
    cdef Node** at = &first
    cdef uint32_t left = VISIT_FRAMES
    cdef uint32_t number = oldest_after(state, cursor)
    cdef LastValue* value
    while number != NONE and left:
        value = value_at(&state.directory, number)
        if value.sequence > cursor and is_owed(state, channel, number, all_topics):
            cursor = value.sequence
            at[0] = last_value_node(state, channel, value)
            at = &at[0].next
            left -= 1
        number = value.newer
    return first


cdef inline Node* insert_in_order(Node* nodes, Node* node) noexcept nogil:
    """Inserts into a short sorted list; an event of several topics is inserted once."""
    cdef Node* first = nodes
    cdef Node** at = &first
    while at[0] is not NULL and at[0].sequence < node.sequence:
        at = &at[0].next
    if at[0] is not NULL and at[0].sequence == node.sequence:
        node_free(node)
        return first
    node.next = at[0]
    at[0] = node
    return first


cdef inline Node* of_few_topics(State* state, Channel* channel, uint64_t cursor) noexcept nogil:
    """The same, from the channel's own topics only."""
    cdef Node* nodes = NULL
    cdef Pair* links = pairs_items(&channel.links)
    cdef LastValue* value
    cdef uint32_t index
    cdef uint32_t number
    for index in range(2 * pairs_end(&channel.links)):
        if links[index >> 1].key == NO_KEY:
            continue
        number = 2 * links[index >> 1].key + (index & 1)
        value = value_at(&state.directory, number)
        if value is not NULL and value_for(channel, value) is not NULL \
                and value.sequence > cursor and is_newest_for(&state.directory, channel, number):
            nodes = insert_in_order(nodes, last_value_node(state, channel, value))
    return nodes


cdef inline bint has_last_value(Node* node) noexcept nogil:
    while node is not NULL:
        if node.kind == LAST_VALUE:
            return True
        node = node.next
    return False


cdef inline void add_last_values(State* state, Channel* channel, Conn* conn) noexcept nogil:
    """Appends the next values for a connection that fell behind to its private frames, unless
    earlier ones are still there. If no value is left, or an event with a stricter policy was
    published since, the connection continues with its ring. It is ended if the ring was trimmed,
    because only `latest` may omit events."""
    cdef Node* nodes
    if has_last_value(conn.private):
        return
    if channel_policy(channel, conn.cursor) != LATEST:
        nodes = NULL
    elif is_linked(channel, EVERY_EVENT) or channel.links.count > OWN_TOPICS_MAX:
        nodes = of_many_topics(state, channel, conn.cursor)
    else:
        nodes = of_few_topics(state, channel, conn.cursor)
    if nodes is NULL:
        conn.flags &= <uint8_t>~LAPPED
    else:
        node_end(&conn.private)[0] = nodes
