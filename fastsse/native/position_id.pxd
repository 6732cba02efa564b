# A position as the text of an id, `<unix-ms>-<n>`.

from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from fastsse.native.place cimport Place

cdef enum:
    NUMBER_DIGITS = 20         # of the highest number of 64 bits
    ID_BYTES_MAX = 2 * NUMBER_DIGITS + 1


cdef struct PositionId:
    uint64_t ms                # whose digits are written, and the hyphen behind them
    size_t stem_bytes          # 0: of none yet
    char[ID_BYTES_MAX] text


cdef inline size_t write_number(char* at, uint64_t number) noexcept nogil:
    """Writes digits without leading zeros; returns how many."""
    cdef char[NUMBER_DIGITS] digits
    cdef size_t count = 0
    while True:
        digits[NUMBER_DIGITS - 1 - count] = <char>(c'0' + number % 10)
        number //= 10
        count += 1
        if number == 0:
            break
    memcpy(at, digits + NUMBER_DIGITS - count, count)
    return count


cdef inline size_t write_id(PositionId* id, Place place) noexcept nogil:
    """Writes a position into `id.text`; returns its bytes. The milliseconds of most are those of
    the one before."""
    if id.stem_bytes == 0 or id.ms != place.ms:
        id.ms = place.ms
        id.stem_bytes = write_number(id.text, place.ms)
        id.text[id.stem_bytes] = c'-'
        id.stem_bytes += 1
    return id.stem_bytes + write_number(id.text + id.stem_bytes, place.n)
