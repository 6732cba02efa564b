# Policy `latest`: what a connection is owed that was lapped, the newest event of each topic after its
# cursor, in order. Nothing is kept for it but a flag: values are looked up when its socket takes
# them, a visit's worth at a time, and each moves the cursor when it is sent.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fastsse._channel cimport EVERY_EVENT, Channel, Topic, channel_policy
from fastsse._frame cimport frame_keep
from fastsse._memory cimport numbers_items
from fastsse._queue cimport LAST_VALUE, LATEST, Node, node_end, node_free, node_new
from fastsse._state cimport State, VISIT_FRAMES
from fastsse._table cimport Conn, LAPPED, NONE


cdef inline bint is_linked(Channel* channel, uint32_t topic) noexcept nogil:
    cdef uint32_t index
    for index in range(0, channel.links.count, 2):
        if numbers_items(&channel.links)[index] == topic:
            return True
    return False


cdef inline Node* last_value_node(Topic* topic) noexcept nogil:
    cdef Node* node = node_new(frame_keep(topic.last), LAST_VALUE)
    node.sequence = topic.last_sequence
    return node


cdef inline uint32_t oldest_after(State* state, uint64_t cursor) noexcept nogil:
    """The topic with the oldest last value after `cursor`, or NONE. O(those after it)."""
    cdef uint32_t found = NONE
    cdef uint32_t number = state.directory.newest
    while number != NONE and state.directory.topics[number].last_sequence > cursor:
        found = number
        number = state.directory.topics[number].older
    return found


cdef inline Node* of_every_topic(State* state, uint64_t cursor) noexcept nogil:
    """The first of all last values after `cursor`, oldest first, as many as a visit sends. An event
    that several topics share stands once: its neighbours in the list have the same sequence."""
    cdef Node* first = NULL
    cdef Node** at = &first
    cdef uint32_t left = VISIT_FRAMES
    cdef uint32_t number = oldest_after(state, cursor)
    cdef Topic* topic
    while number != NONE and left:
        topic = &state.directory.topics[number]
        if topic.last_sequence > cursor:
            cursor = topic.last_sequence
            at[0] = last_value_node(topic)
            at = &at[0].next
            left -= 1
        number = topic.newer
    return first


cdef inline Node* insert_in_order(Node* nodes, Node* node) noexcept nogil:
    """Keeps a short list in order; an event that several topics share goes in once."""
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


cdef inline Node* of_own_topics(State* state, Channel* channel, uint64_t cursor) noexcept nogil:
    """The same for a channel's own topics, of which there are a hundred at most."""
    cdef Node* nodes = NULL
    cdef Topic* topic
    cdef uint32_t index
    for index in range(0, channel.links.count, 2):
        topic = &state.directory.topics[numbers_items(&channel.links)[index]]
        if topic.last is not NULL and topic.last_sequence > cursor:
            nodes = insert_in_order(nodes, last_value_node(topic))
    return nodes


cdef inline bint has_last_value(Node* node) noexcept nogil:
    while node is not NULL:
        if node.kind == LAST_VALUE:
            return True
        node = node.next
    return False


cdef inline void add_last_values(State* state, Channel* channel, Conn* conn) noexcept nogil:
    """Puts the next values that a lapped connection is owed behind its private frames, unless some
    stand there still. When none is left, or an event with a stricter policy came since, it goes on
    with its ring, and is ended if that was trimmed: only `latest` may leave anything out."""
    cdef Node* nodes
    if has_last_value(conn.private):
        return
    if channel_policy(channel, conn.cursor) != LATEST:
        nodes = NULL
    elif is_linked(channel, EVERY_EVENT):
        nodes = of_every_topic(state, conn.cursor)
    else:
        nodes = of_own_topics(state, channel, conn.cursor)
    if nodes is NULL:
        conn.flags &= <uint8_t>~LAPPED
    else:
        node_end(&conn.private)[0] = nodes
