# Revocations: a walk over the table finds and ends the streams that match, a slice each turn. A walk
# handles all revocations that wait when it begins.

from libc.stdint cimport uint32_t

from fastsse.native.claims cimport Revoking, begin_walk, end_walk, is_revoked
from fastsse.native.counters cimport REVOKED
from fastsse.native.farewell cimport dismiss
from fastsse.native.state cimport State
from fastsse.native.table cimport CLAIMED, Conn, LIVE, REPLAY

cdef enum:
    ROWS_PER_TURN = 4096


cdef inline void revoke_some(State* state) noexcept nogil:
    cdef Revoking* revoking = &state.revoking
    cdef uint32_t left = ROWS_PER_TURN
    cdef Conn* conn
    if revoking.first is NULL:
        return
    if revoking.in_walk == 0:
        begin_walk(revoking)
    while left and revoking.slot < state.used_slots:
        conn = &state.conns[revoking.slot]
        if conn.flags & CLAIMED and (conn.state == LIVE or conn.state == REPLAY) \
                and is_revoked(revoking, &state.claims[revoking.slot]):
            dismiss(state, conn, REVOKED)
        revoking.slot += 1
        left -= 1
    if revoking.slot >= state.used_slots:
        end_walk(revoking)
