"""Publishers' keys in memory, without an object for each. Loop thread only."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint16_t, uint64_t
from libc.string cimport memset

from fastsse._positions cimport Positions
from fastsse.native.key_table cimport (
    KeyRow, KeySlot, KeyTable, keys_append, keys_clear, keys_find, keys_free_slot, keys_oldest,
    keys_reserve, keys_take_oldest, row_digest, row_key)
from fastsse.native.place cimport Place, int_of, set_place
from fastsse.native.publish_head cimport Text

cdef enum:
    # What a key counts for in memory, without its text, and each further position.
    KEY_COST = 320
    POSITION_COST = 48
    # New keys of one call, and places to compare them with each other.
    NEW_MAX = 256
    SEEN = 1024

KEY_COST_BYTES = KEY_COST
POSITION_COST_BYTES = POSITION_COST
NEW_KEYS_MAX = NEW_MAX


cdef inline Text text_of(bytes value) noexcept:
    """Valid while the caller holds `value`."""
    return Text(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))


cdef inline uint64_t hash_of(bytes key) except? 0:
    return <uint64_t>hash(key)


cdef inline bytes key_of(KeyRow* row):
    return PyBytes_FromStringAndSize(row_key(row), row.key_bytes)


cdef bint is_repeated(list keys) except -1:
    """Whether one of at most NEW_MAX keys is there twice."""
    cdef uint16_t[SEEN] seen          # the place of a key, from 1, by its hash
    cdef Py_ssize_t at
    cdef uint64_t slot
    memset(seen, 0, sizeof(seen))
    for at in range(len(keys)):
        if keys[at] is None:
            continue
        slot = hash_of(keys[at]) % SEEN
        while seen[slot]:
            if keys[seen[slot] - 1] == keys[at]:
                return True
            slot = (slot + 1) % SEEN
        seen[slot] = <uint16_t>(at + 1)
    return False


cdef class KeyRows:
    cdef KeyTable table
    cdef object now_ms
    cdef int64_t window_ms, total_bytes, oldest_ms
    cdef readonly int64_t bytes
    cdef dict more             # the positions of keys that do not have exactly one

    def __cinit__(self):
        memset(&self.table, 0, sizeof(KeyTable))

    def __init__(self, int64_t window_ms, int64_t total_bytes, now_ms not None):
        self.window_ms, self.total_bytes, self.now_ms = window_ms, total_bytes, now_ms
        self.more = {}

    def __dealloc__(self):
        keys_clear(&self.table)

    def __len__(self):
        return self.table.count

    def find_row(self, bytes key not None):
        cdef KeySlot* slot = keys_find(&self.table, hash_of(key), text_of(key))
        cdef KeyRow* row
        if slot is NULL or slot.row.until_ms <= <int64_t>self.now_ms():
            return None
        row = slot.row
        digest = PyBytes_FromStringAndSize(row_digest(row), row.digest_bytes)
        return digest, self.more[key] if row.has_more else (int_of(row.place),)

    def has_room(self, int64_t size_bytes):
        cdef int64_t now_ms = self.now_ms()
        if self.oldest_ms <= now_ms:
            self.forget_old(now_ms)
        return self.bytes + size_bytes <= self.total_bytes

    def add_row(self, bytes key not None, bytes digest not None, positions not None, time_ms=None):
        cdef int64_t now_ms = self.now_ms()
        cdef int64_t until_ms = (now_ms if time_ms is None else time_ms) + self.window_ms
        cdef Place place
        if until_ms <= now_ms:
            return
        place.ms = place.n = 0
        if len(positions) == 1:
            set_place(&place, positions[0])
            self.put(key, digest, place, None, until_ms, now_ms)
        else:
            self.put(key, digest, place, positions, until_ms, now_ms)

    def add_new(self, list keys not None, list digests not None, append not None):
        cdef Py_ssize_t at, count = len(keys)
        cdef int64_t size_bytes = 0, now_ms, until_ms
        cdef bytes key
        cdef Positions in_row
        cdef Place place
        if count > NEW_MAX:
            return None
        for at in range(count):
            if keys[at] is not None:
                size_bytes += len(<bytes?>keys[at]) + KEY_COST
        if not self.has_room(size_bytes) or is_repeated(keys) or self.knows_any(keys):
            return None
        keys_reserve(&self.table, count)
        positions = append()
        if not self.window_ms:
            return positions
        in_row = positions if type(positions) is Positions else None
        now_ms = self.now_ms()
        until_ms = now_ms + self.window_ms
        for at in range(count):
            key = keys[at]
            if key is None:
                continue
            if in_row is not None:
                place = in_row.at(at)
            else:
                set_place(&place, positions[at])
            self.put(key, digests[at], place, None, until_ms, now_ms)
        return positions

    cdef bint knows_any(self, list keys) except -1:
        """Whether the table has a row of one of the keys."""
        cdef Py_ssize_t at
        cdef bytes key
        for at in range(len(keys)):
            key = keys[at]
            if key is not None and keys_find(&self.table, hash_of(key), text_of(key)) is not NULL:
                return True
        return False

    cdef int put(
        self, bytes key, bytes digest, Place place, object more, int64_t until_ms, int64_t now_ms
    ) except -1:
        """Remembers a key, perhaps again. `more` are its positions if it does not have exactly one."""
        cdef uint64_t hash = hash_of(key)
        cdef KeyRow* row
        if keys_find(&self.table, hash, text_of(key)) is not NULL:
            self.forget(key, hash, now_ms)
        if self.table.count == 0:
            self.oldest_ms = until_ms
        keys_reserve(&self.table, 1)
        if more is not None:
            self.more[key] = more
        row = keys_append(&self.table, hash, text_of(key), text_of(digest))
        row.until_ms, row.place, row.has_more = until_ms, place, more is not None
        self.bytes += self.cost_of(row)
        return 0

    cdef int64_t cost_of(self, KeyRow* row) except -1:
        cdef int64_t further = len(self.more[key_of(row)]) - 1 if row.has_more else 0
        return <int64_t>row.key_bytes + KEY_COST + POSITION_COST * further

    cdef int forget(self, bytes key, uint64_t hash, int64_t now_ms) except -1:
        """Forgets a key that is used again."""
        cdef KeySlot* slot
        self.forget_old(now_ms)
        slot = keys_find(&self.table, hash, text_of(key))
        if slot is not NULL:
            self.drop(slot.row)
        return 0

    cdef int forget_old(self, int64_t now_ms) except -1:
        cdef KeyRow* row = keys_oldest(&self.table)
        while row is not NULL:
            if not row.is_gone:
                if row.until_ms > now_ms:
                    self.oldest_ms = row.until_ms
                    return 0
                self.drop(row)
            keys_take_oldest(&self.table)
            row = keys_oldest(&self.table)
        return 0

    cdef int drop(self, KeyRow* row) except -1:
        """Frees the slot of a row."""
        self.bytes -= self.cost_of(row)
        if row.has_more:
            del self.more[key_of(row)]
        keys_free_slot(&self.table, keys_find(&self.table, row.hash, Text(row_key(row), row.key_bytes)))
        row.is_gone = True
        return 0
