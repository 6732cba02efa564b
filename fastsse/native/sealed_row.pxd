# What a row has in addition to the connection table when its records are sealed here: its keys, and the rest
# of a record that the socket did not take. In a further table, which only servers with
# `tls_records = native` have.
#
#     phase   is                                                      becomes
#     PLAIN   the socket takes plain bytes                            WAITS by `attach`
#     WAITS   nothing is sent until the door has answered             PLAIN (OpenSSL goes on); SEALS
#     SEALS   each send is sealed into records                        SHUT
#     SHUT    close_notify is sealed; no record follows               PLAIN when the row ends
#
# A sealed record counts as sent. Its unsent rest is sent before anything else, as it is. There is at
# most one, because nothing is sealed while there is one.

from libc.stdint cimport uint32_t
from libc.string cimport memcpy

from fastsse.native.memory cimport alloc, release
from fastsse.native.os cimport close, iovec
from fastsse.native.record_seal cimport PLAIN_BYTES_MAX, Seal, seal_wipe

cdef enum Sealing:
    PLAIN_ROW
    WAITS_ROW
    SEALS_ROW
    SHUT_ROW


# The rest of a record. Its bytes follow.
cdef struct Unsent:
    uint32_t size
    uint32_t at                # how many of them the socket took since


cdef struct SealedRow:
    Seal seal                  # with the phase of the row
    Unsent* unsent             # NULL: none


# A client's socket with its keys, on its way to a row. `pair_fd` is the door's end of the pair that
# the row had.
cdef struct Release:
    int net_fd
    int pair_fd
    Seal seal


cdef inline char* unsent_bytes(Unsent* unsent) noexcept nogil:
    return <char*>unsent + sizeof(Unsent)


cdef inline Unsent* unsent_new(const unsigned char* bytes, uint32_t size) noexcept nogil:
    cdef Unsent* unsent = <Unsent*>alloc(sizeof(Unsent) + size)
    unsent.size = size
    unsent.at = 0
    memcpy(unsent_bytes(unsent), bytes, size)
    return unsent


cdef inline void unsent_free(SealedRow* row) noexcept nogil:
    if row.unsent is not NULL:
        release(row.unsent, sizeof(Unsent) + row.unsent.size)
    row.unsent = NULL


cdef inline iovec unsent_part(Unsent* unsent) noexcept nogil:
    cdef iovec part
    part.iov_base = unsent_bytes(unsent) + unsent.at
    part.iov_len = unsent.size - unsent.at
    return part


cdef inline void sealed_row_end(SealedRow* row) noexcept nogil:
    """Wipes the keys and frees the rest."""
    unsent_free(row)
    if row.seal.phase >= SEALS_ROW:
        seal_wipe(&row.seal)
    row.seal.phase = PLAIN_ROW


cdef inline void release_end(Release* order) noexcept nogil:
    """Closes what was not taken, and wipes the keys. Idempotent."""
    if order.net_fd >= 0:
        close(order.net_fd)
    if order.pair_fd >= 0:
        close(order.pair_fd)
    order.net_fd = order.pair_fd = -1
    seal_wipe(&order.seal)


# ---- plain bytes of several parts, a record at a time -------------------------------------------

cdef struct Pieces:
    iovec* parts
    uint32_t count
    size_t offset              # into the first of them


cdef inline uint32_t pieces_take(Pieces* pieces, unsigned char* into) noexcept nogil:
    """Copies the next bytes, as many as a record has room for; returns how many."""
    cdef uint32_t taken = 0
    cdef size_t size
    while pieces.count and taken < PLAIN_BYTES_MAX:
        size = min(pieces.parts.iov_len - pieces.offset, <size_t>(PLAIN_BYTES_MAX - taken))
        memcpy(into + taken, <char*>pieces.parts.iov_base + pieces.offset, size)
        taken += <uint32_t>size
        pieces.offset += size
        if pieces.offset == pieces.parts.iov_len:
            pieces.parts += 1
            pieces.count -= 1
            pieces.offset = 0
    return taken
