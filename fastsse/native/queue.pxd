# Commands from the loop thread to the sender thread: first in, first out, one producer, one
# consumer. It is a linked list, so a command that ends or joins a stream never fails. Its length is
# bounded by admission: above QUEUE_MAX publishers and new subscribers are refused (the caller asks
# `pending` first), and each connection has only a few commands under way.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from fastsse.native.facts cimport Facts, facts_free
from fastsse.native.frame cimport FrameData, frame_drop
from fastsse.native.memory cimport release, alloc
from fastsse.native.os cimport (
    eventfd_write, load_pointer, load_u32, relaxed_load, relaxed_store, store_pointer, store_u32,
    swap_u32)
from fastsse.native.sealed_row cimport Release, release_end
from fastsse.native.view cimport View, view_drop

cdef enum:
    QUEUE_MAX = 64 * 1024

cdef enum CommandKind:
    PUBLISH
    ATTACH
    PAGE
    CLOSE
    ADD_CHANNEL
    REMOVE_CHANNEL
    LINK
    GRANT
    REMOVE_TOPIC
    SEND_DIRECT
    ANNOUNCE
    RENEW
    REVOKE
    PONG
    DRAIN
    END_TOPIC
    INSPECT
    SEAL_ROW
    OPEN_ROW
    STOP

cdef enum Policy:              # in order of strictness, see the sender's lag policy
    LATEST
    SKIP
    DISCONNECT


# A connection's private list: frames for it alone, sent before its ring.
cdef enum NodeKind:
    PLAIN
    END_OF_PAGE                # ask the loop for the next page when this one is sent
    LAST_VALUE                 # policy `latest`: moves the cursor when sent
    GAP                        # policy `skip`: replaced when it is skipped again
    CUT                        # a ring's frame of which part is sent
    WIRE                       # sent unchanged, whatever the coding of the response
    DIRECT                       # for this connection only, between any two others


cdef struct Node:
    Node* next
    FrameData* frame
    uint64_t sequence          # of a LAST_VALUE, else 0
    uint8_t kind
    uint8_t ends               # of a CUT: the stream ends after it


cdef inline Node* node_new(FrameData* frame, uint8_t kind) noexcept nogil:
    """Takes over the caller's reference."""
    cdef Node* node = <Node*>alloc(sizeof(Node))
    node.next = NULL
    node.frame = frame
    node.sequence = 0
    node.kind = kind
    node.ends = False
    return node


cdef inline Node* node_free(Node* node) noexcept nogil:
    """Frees one and returns the next."""
    cdef Node* behind = node.next
    frame_drop(node.frame)
    release(node, sizeof(Node))
    return behind


cdef inline Node** node_end(Node** at) noexcept nogil:
    while at[0] is not NULL:
        at = &at[0].next
    return at


cdef inline void nodes_free(Node* node) noexcept nogil:
    while node is not NULL:
        node = node_free(node)


cdef struct Command:
    Command* next
    FrameData* frame
    Node* nodes
    Facts* facts               # of PUBLISH, where a view may need them
    View* view                 # of ADD_CHANNEL
    uint64_t accepted_us
    uint32_t kind
    uint32_t slot
    uint32_t generation
    uint32_t channel
    int32_t fd
    uint32_t window_ms
    uint8_t chunked
    uint8_t live
    uint8_t pinged
    uint8_t beat
    uint8_t waits              # of ATTACH: nothing is sent until SEAL_ROW or OPEN_ROW
    uint8_t quiet              # of ADD_CHANNEL
    uint8_t can_end            # of ADD_CHANNEL
    uint8_t is_over            # of CLOSE: the response ends with its last chunk
    uint8_t policy
    uint8_t reason
    uint32_t topic_count
    uint32_t grant_count       # how many of the last numbers are grants, not links
    # topic_count numbers follow; in their place a Claim, a Revocation, a Release, or an Inspection's
    # address


cdef struct Queue:
    Command* head              # consumer's: the last one taken, kept as the list's dummy
    Command* tail              # producer's
    int64_t pushed             # producer's count
    int64_t taken              # consumer's count
    int64_t announced          # producer's: `pushed` when it last woke the consumer or saw it awake
    uint32_t asleep            # 1 while the consumer sleeps, or is about to
    int32_t wake_fd            # eventfd that ends its sleep


cdef inline uint32_t* command_topics(Command* command) noexcept nogil:
    return <uint32_t*>(<char*>command + sizeof(Command))


cdef inline size_t command_size(uint32_t topic_count) noexcept nogil:
    return sizeof(Command) + topic_count * sizeof(uint32_t)


cdef inline Command* command_new(uint32_t kind, uint32_t topic_count) noexcept nogil:
    cdef Command* command = <Command*>alloc(command_size(topic_count))
    command.next = NULL
    command.frame = NULL
    command.nodes = NULL
    command.facts = NULL
    command.view = NULL
    command.kind = kind
    command.fd = -1
    command.topic_count = topic_count
    command.grant_count = 0
    return command


cdef inline void command_clear(Command* command) noexcept nogil:
    """Frees what a command still owns."""
    frame_drop(command.frame)
    nodes_free(command.nodes)
    facts_free(command.facts)
    view_drop(command.view)
    if command.kind == SEAL_ROW:
        release_end(<Release*>command_topics(command))
    command.frame = NULL
    command.nodes = NULL
    command.facts = NULL
    command.view = NULL


cdef inline void command_free(Command* command) noexcept nogil:
    command_clear(command)
    release(command, command_size(command.topic_count))


cdef inline void queue_init(Queue* queue, int32_t wake_fd) noexcept nogil:
    queue.head = queue.tail = command_new(STOP, 0)
    queue.pushed = queue.taken = queue.announced = 0
    queue.asleep = 0
    queue.wake_fd = wake_fd


cdef inline int64_t queue_pending(Queue* queue) noexcept nogil:
    return relaxed_load(&queue.pushed) - relaxed_load(&queue.taken)


cdef inline bint queue_is_empty(Queue* queue) noexcept nogil:
    return load_pointer(<void**>&queue.head.next) is NULL


cdef inline void queue_push(Queue* queue, Command* command) noexcept nogil:
    """Producer only. The consumer may sleep until `queue_wake`."""
    relaxed_store(&queue.pushed, queue.pushed + 1)
    store_pointer(<void**>&queue.tail.next, command)
    queue.tail = command


cdef inline void queue_wake(Queue* queue) noexcept nogil:
    """Producer only. Links and the sleep flag are sequentially consistent on both sides. So either
    the producer sees that the consumer sleeps and wakes it, or the consumer sees the link and stays
    awake."""
    if queue.announced == queue.pushed:
        return
    queue.announced = queue.pushed
    if load_u32(&queue.asleep) and swap_u32(&queue.asleep, 0):
        eventfd_write(queue.wake_fd, 1)


cdef inline bint queue_may_sleep(Queue* queue) noexcept nogil:
    """Consumer only, before it waits. False: a command arrived, so don't wait."""
    store_u32(&queue.asleep, 1)
    if queue_is_empty(queue):
        return True
    store_u32(&queue.asleep, 0)
    return False


cdef inline void queue_awake(Queue* queue) noexcept nogil:
    store_u32(&queue.asleep, 0)


cdef inline Command* queue_take(Queue* queue) noexcept nogil:
    """Consumer only: the next command, which stays the queue's until the next call, or NULL."""
    cdef Command* next = <Command*>load_pointer(<void**>&queue.head.next)
    if next is NULL:
        return NULL
    release(queue.head, command_size(queue.head.topic_count))
    queue.head = next
    relaxed_store(&queue.taken, queue.taken + 1)
    return next


cdef inline void queue_clear(Queue* queue) noexcept nogil:
    """Frees commands that were never taken. Call it when neither thread uses the queue."""
    cdef Command* behind
    cdef Command* command = queue.head.next
    release(queue.head, command_size(queue.head.topic_count))
    while command is not NULL:
        behind = command.next
        command_free(command)
        command = behind
    queue.head = queue.tail = NULL
