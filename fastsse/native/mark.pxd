# A mark moves a stream's id past events that its view left out. Without it the id of a quiet stream
# would age until its events are evicted, and each reconnect would be sent a gap. One block is shared
# by all streams of a channel.

from libc.stdio cimport snprintf

from fastsse.native.channel cimport Channel, Judged
from fastsse.native.frame cimport FrameData, frame_drop, frame_keep, frame_of_bytes
from fastsse.native.queue cimport PLAIN, node_free, node_new
from fastsse.native.table cimport BEAT_PAD_SHIFT, Conn
from fastsse.native.view cimport DATA_MARK, LINE_MARK


cdef inline FrameData* mark_of(Channel* channel) noexcept nogil:
    """The block for the channel's newest place. The first call for a place makes it."""
    cdef char body[96]
    cdef int size
    cdef Judged* judged = channel.judged
    if judged.mark is not NULL and judged.mark.position_ms == judged.ms \
            and judged.mark.position_n == judged.n:
        return judged.mark
    frame_drop(judged.mark)
    size = snprintf(
        body, sizeof(body), b"id: %llu-%llu\n%s", <unsigned long long>judged.ms,
        <unsigned long long>judged.n,
        b"" if channel.view.mark == LINE_MARK
        else b"data:\n\n" if channel.view.mark == DATA_MARK else b"\n")
    judged.mark = frame_of_bytes(body, size, True)
    judged.mark.position_ms = judged.ms
    judged.mark.position_n = judged.n
    return judged.mark


cdef inline void add_mark(Channel* channel, Conn* conn) noexcept nogil:
    """Sends the mark instead of a short heartbeat, or after a padded one. The stream has no pending
    events, and the mark moves its cursor past those that its view left out."""
    if conn.beat >> BEAT_PAD_SHIFT:
        conn.private.next = node_new(frame_keep(mark_of(channel)), PLAIN)
    else:
        node_free(conn.private)
        conn.private = node_new(frame_keep(mark_of(channel)), PLAIN)
    conn.cursor = channel.judged.sequence
