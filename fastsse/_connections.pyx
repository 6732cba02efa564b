"""What operators see of each open stream besides its figures: a table of packed rows, 64 bytes a
stream. Loop thread only; `hub/connections.py` gives it texts and takes them."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy

cdef enum:
    AREA = 32                  # the address, then as much of the subject as fits

ROW_BYTES = 64
# Channels that one scan asks about: each is a call of Python.
cdef enum:
    JUDGED_A_SCAN = 2_000


cdef struct Row:
    uint64_t handle            # 0: free
    uint64_t subject_hash      # 0: no subject
    uint32_t channel
    uint32_t opened_ds         # tenths of a second since the table was made
    uint32_t agent
    uint16_t port
    uint8_t address_bytes      # 0, 4 or 16
    uint8_t subject_bytes      # of the whole subject, at most 254: may be more than are kept; 255: a UUID
    uint8_t[AREA] area


assert sizeof(Row) == ROW_BYTES


cdef class ConnectionRows:
    """Rows by slot of the connection table; memory is touched as slots are used."""

    cdef Row* rows
    cdef readonly uint32_t capacity
    cdef readonly uint32_t used        # slots that ever had a row

    def __cinit__(self, uint32_t capacity):
        self.capacity = capacity
        self.rows = <Row*>calloc(max(1, capacity), sizeof(Row))
        if self.rows is NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.rows)

    cdef Row* find(self, uint64_t handle) noexcept:
        cdef uint32_t slot = <uint32_t>handle
        if handle == 0 or slot >= self.used or self.rows[slot].handle != handle:
            return NULL
        return &self.rows[slot]

    def put(self, uint64_t handle, uint32_t channel, uint32_t opened_ds, uint32_t agent,
            bytes address not None, uint16_t port, uint64_t subject_hash, bytes subject not None,
            bint is_uuid=False):
        cdef uint32_t slot = <uint32_t>handle
        cdef Row* row
        cdef Py_ssize_t address_bytes = PyBytes_GET_SIZE(address)
        cdef Py_ssize_t subject_bytes = PyBytes_GET_SIZE(subject)
        if handle == 0 or slot >= self.capacity:
            raise ValueError("no such slot")
        if address_bytes not in (0, 4, 16):
            raise ValueError("an address has 4 or 16 bytes")
        row = &self.rows[slot]
        row.handle = handle
        row.subject_hash = subject_hash
        row.channel = channel
        row.opened_ds = opened_ds
        row.agent = agent
        row.port = port
        row.address_bytes = <uint8_t>address_bytes
        row.subject_bytes = 255 if is_uuid else <uint8_t>min(subject_bytes, 254)
        memcpy(row.area, PyBytes_AS_STRING(address), address_bytes)
        memcpy(&row.area[address_bytes], PyBytes_AS_STRING(subject),
               min(subject_bytes, AREA - address_bytes))
        self.used = max(self.used, slot + 1)

    def drop(self, uint64_t handle):
        cdef Row* row = self.find(handle)
        if row is NULL:
            return None
        row.handle = 0
        return row.agent

    def get(self, uint64_t handle):
        cdef Row* row = self.find(handle)
        cdef Py_ssize_t kept
        if row is NULL:
            return None
        kept = 16 if row.subject_bytes == 255 else min(row.subject_bytes, AREA - row.address_bytes)
        return (
            row.channel, row.opened_ds, row.agent,
            PyBytes_FromStringAndSize(<char*>row.area, row.address_bytes), row.port,
            PyBytes_FromStringAndSize(<char*>&row.area[row.address_bytes], kept),
            row.subject_bytes == 255, row.subject_bytes != 255 and row.subject_bytes > kept)

    def scan(self, uint32_t first, uint32_t slots, uint32_t limit, judge, bytearray verdicts,
             uint64_t subject_hash, bytes prefix not None, uint32_t prefix_bits, agents):
        cdef list found = []
        cdef uint32_t slot = first
        cdef uint32_t end = <uint32_t>min(<uint64_t>first + slots, self.used)
        cdef uint32_t judged = 0
        cdef Row* row
        while slot < end and <uint32_t>len(found) < limit and judged < JUDGED_A_SCAN:
            row = &self.rows[slot]
            slot += 1
            if row.handle == 0 or (subject_hash and row.subject_hash != subject_hash) \
                    or not has_prefix(row, prefix, prefix_bits):
                continue
            if agents is not None and row.agent not in agents:
                continue
            if judge is not None:
                if row.channel >= <uint32_t>len(verdicts):
                    verdicts.extend(bytes(row.channel + 1024 - len(verdicts)))
                if verdicts[row.channel] == 0:
                    verdicts[row.channel] = 1 if judge(row.channel) else 2
                    judged += 1
                if verdicts[row.channel] == 2:
                    continue
            found.append(row.handle)
        return found, slot if slot < self.used else self.capacity


cdef bint has_prefix(Row* row, bytes prefix, uint32_t bits) noexcept:
    """Whether the address begins with so many bits; any with an empty prefix."""
    cdef uint32_t whole = bits // 8
    cdef uint32_t rest = bits % 8
    cdef const uint8_t* wanted = <const uint8_t*>PyBytes_AS_STRING(prefix)
    if PyBytes_GET_SIZE(prefix) == 0:
        return True
    if row.address_bytes != PyBytes_GET_SIZE(prefix) or memcmp(row.area, wanted, whole) != 0:
        return False
    return rest == 0 or (row.area[whole] ^ wanted[whole]) >> (8 - rest) == 0
