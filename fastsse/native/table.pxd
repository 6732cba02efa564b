# The connection table. A connection is one row of tens of bytes, from hand-over to its end:
#
#     state      is                                               becomes
#     FREE       never used yet                                   REPLAY or LIVE by `attach`
#     REPLAY     sent pages of history, in no ring                LIVE by its last page; DRAINING; CLOSED
#     LIVE       in a channel, sent what is after its cursor      DRAINING; CLOSED
#     DRAINING   sent its farewell, then closed                   CLOSED
#     CLOSED     fd closed; the slot is given out again only      REPLAY or LIVE by `attach`
#                after its `closed` notice was taken
#
# BLOCKED is a flag in any state: the socket is full; nothing is sent until epoll reports room.
# The sender thread owns every field but `next_notice`/`notice`, which are the notice queue's; the
# loop thread reads a row's figures only between its closed notice and the slot's next attach.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from fastsse.native.os cimport cas_u32, eventfd_write, load_u32, or_u32, swap_u32
from fastsse.native.queue cimport Node

cdef enum:
    NONE = 0xFFFFFFFF

cdef enum ConnState:
    FREE
    REPLAY
    LIVE
    DRAINING
    CLOSED

cdef enum ConnFlag:
    BLOCKED = 1
    CHUNKED = 2
    READY = 4                  # is in the ready list
    SUSPECT = 8                # was writable without an event; the next check decides
    SKIPPED = 16               # its cursor was moved by policy `skip`, not by an event it got
    LAPPED = 32                # it gets the newest event of each topic after its cursor
    CLAIMED = 64               # has claims in the second table
    PINGED = 128               # is sent pings; has a row in the third table

cdef enum NoticeFlag:
    PAGE_SENT = 1
    STREAM_CLOSED = 2
    EXPIRING = 4


cdef struct Conn:
    uint64_t cursor            # ring entries up to this sequence were sent or left out
    Node* private              # sent before the ring; the first may be partly sent
    uint64_t bytes_sent
    uint64_t events_sent
    int32_t fd
    uint32_t generation
    uint32_t channel
    uint32_t index             # its place in the channel's list while LIVE
    uint32_t offset            # bytes of the first private frame already sent
    uint32_t next_ready
    uint32_t next_notice
    uint32_t notice            # atomic NoticeFlag bits not yet taken
    uint32_t opened_ds         # tenths of a second since the sender began
    uint32_t touched_ds        # last time that bytes went out
    uint32_t stalled_ds        # when the frame that is under way got stuck
    uint8_t state
    uint8_t flags
    uint8_t reason
    uint8_t beat               # which heartbeat, see Beat; 0: the server's


# A stream's heartbeat in one byte, so that all with the same share it and a row stays 80 bytes:
# seconds of silence in the low bits, the comment's length in the high ones.
cdef enum Beat:
    BEAT_SECONDS = 31          # bits of the seconds; 0: the option's
    BEAT_PAD_SHIFT = 5         # above it 0: a short comment, n: 512 << n bytes
    BEAT_PADS = 6
    PAD_UNIT_BYTES = 512


# Whether a stream that asked for pings answers them, in a third table.
cdef struct Pulse:
    uint32_t pinged_ds
    uint32_t unanswered_ds     # when the first ping since the last answer went out, plus 1; 0: none


# Notices go from the sender to the loop through the rows themselves: a row is in the list at most
# once, with bits that say what happened. So a notice costs no memory and can't fail.
cdef struct Notices:
    uint32_t head              # slot + 1 of the newest, 0 when empty
    int32_t fd                 # eventfd the loop watches


cdef inline void notice_push(Notices* notices, Conn* conns, uint32_t slot, uint32_t what) noexcept nogil:
    cdef uint32_t head
    if or_u32(&conns[slot].notice, what):
        return                 # in the list already, or being read: its bits are read after its link
    while True:
        head = load_u32(&notices.head)
        conns[slot].next_notice = head
        if cas_u32(&notices.head, head, slot + 1):
            break
    if head == 0:
        eventfd_write(notices.fd, 1)


cdef inline uint32_t notices_take_all(Notices* notices) noexcept nogil:
    """Loop thread: the whole list, newest first; follow `next_notice` before `notice_bits`."""
    return swap_u32(&notices.head, 0)


cdef inline uint32_t notice_bits(Conn* conn) noexcept nogil:
    """Loop thread: what happened to this row, taken; from here it may be pushed again."""
    return swap_u32(&conn.notice, 0)
