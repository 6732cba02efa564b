# Writes JSON values exactly as orjson would after reading them: without blanks, and with the fewest
# escapes. A value is *regular* if that is certain; all others are left to orjson.

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp

from fastsse.native.json cimport (
    JSON_NUMBER, JSON_OBJECT, JSON_STRING, Json, Place, hex_unit, json_unescape, skip_digits)

cdef enum:
    KEYS_MAX = 16              # of an object; its names are compared pairwise
    WHOLE_DIGITS_MAX = 18      # always within 64 bits
    DECIMAL_DIGITS_MAX = 15    # two decimals of so many digits are never the same double
    ZEROS_MAX = 3              # behind "0."; orjson writes smaller numbers with an exponent


cdef inline bint is_shortest(const char* at, size_t size) noexcept nogil:
    """Whole numbers within 64 bits, and decimals that are their double's shortest form."""
    cdef const char* end = at + size
    cdef const char* begin = at + (at[0] == c'-')
    cdef const char* point = skip_digits(begin, end)
    cdef const char* digit
    if point == end:
        return point - begin <= WHOLE_DIGITS_MAX and not (begin > at and begin[0] == c'0')
    if point[0] != c'.' or skip_digits(point + 1, end) != end or end - begin > DECIMAL_DIGITS_MAX + 1:
        return False
    if begin[0] == c'0':
        digit = point + 1
        while digit < end and digit[0] == c'0':
            digit += 1
        return digit < end and digit - point - 1 <= ZEROS_MAX and end[-1] != c'0'
    return end[-1] != c'0' or end - point == 2


cdef inline bint has_distinct_keys(Json* json, uint32_t index) noexcept nogil:
    """Whether all names of an object differ and have no escapes. O(names²), so there is a bound."""
    cdef Place* keys[KEYS_MAX]
    cdef Place* key
    cdef uint32_t count = 0
    cdef uint32_t other
    cdef uint32_t behind = json.places[index].behind
    index += 1
    while index < behind:
        key = &json.places[index]
        if count == KEYS_MAX or key.is_escaped:
            return False
        for other in range(count):
            if keys[other].size == key.size and memcmp(keys[other].at, key.at, key.size) == 0:
                return False
        keys[count] = key
        count += 1
        index = json.places[index + 1].behind
    return True


cdef inline bint has_lone_surrogate(const char* at, size_t size) noexcept nogil:
    """Whether an escape of a string is half a character without the other half."""
    cdef const char* end = at + size
    cdef int unit
    while at < end:
        if at[0] != c'\\':
            at += 1
        elif at[1] != c'u':
            at += 2
        else:
            unit = hex_unit(at + 2, end)
            at += 6
            if 0xDC00 <= unit < 0xE000:
                return True
            if 0xD800 <= unit < 0xDC00:
                if end - at < 6 or at[0] != c'\\' or at[1] != c'u' \
                        or not 0xDC00 <= hex_unit(at + 2, end) < 0xE000:
                    return True
                at += 6
    return False


cdef inline bint is_regular(Json* json, uint32_t index) noexcept nogil:
    """Whether each string of a value is text, its numbers are in their shortest form, and no name
    of an object stands twice. The value must be UTF-8."""
    cdef uint32_t behind = json.places[index].behind
    cdef Place* place
    while index < behind:
        place = &json.places[index]
        if place.is_escaped and has_lone_surrogate(place.at, place.size):
            return False
        if place.kind == JSON_NUMBER and not is_shortest(place.at, place.size):
            return False
        if place.kind == JSON_OBJECT and not has_distinct_keys(json, index):
            return False
        index += 1
    return True


cdef inline size_t put_escaped(uint8_t byte, char* to) noexcept nogil:
    """An escape of one byte; returns the bytes written, at most 6."""
    cdef const char* letters = b"btn fr"
    to[0] = c'\\'
    if byte == c'"' or byte == c'\\':
        to[1] = <char>byte
        return 2
    if c'\b' <= byte <= c'\r' and byte != c'\v':
        to[1] = letters[byte - c'\b']
        return 2
    to[1] = c'u'
    to[2] = to[3] = c'0'
    to[4] = c'0' + (byte >> 4)
    to[5] = b"0123456789abcdef"[byte & 15]
    return 6


cdef inline size_t put_point(const char* at, size_t size, char* to) noexcept nogil:
    """What the escape of a code point says, or of its two halves; returns the bytes written."""
    cdef Place escape
    cdef size_t written
    escape.at = at
    escape.size = <uint32_t>size
    written = json_unescape(&escape, to)
    if written == 1 and (<uint8_t>to[0] < 0x20 or to[0] == c'"' or to[0] == c'\\'):
        return put_escaped(<uint8_t>to[0], to)
    return written


cdef inline size_t put_regular(const char* at, size_t size, char* to) noexcept nogil:
    """Copies a regular value as orjson writes it; returns the bytes written, never more than
    there were."""
    cdef const char* end = at + size
    cdef char* begin = to
    cdef bint is_string = False
    cdef size_t escape
    while at < end:
        if at[0] == c'"':
            is_string = not is_string
        if at[0] == c'\\' and at[1] == c'u':
            escape = 12 if 0xD800 <= hex_unit(at + 2, end) < 0xDC00 else 6
            to += put_point(at, escape, to)
            at += escape
            continue
        if at[0] == c'\\' and at[1] != c'/':
            to[0] = c'\\'
            to += 1
        if at[0] == c'\\':
            at += 1
        if is_string or not (at[0] == c' ' or at[0] == c'\t' or at[0] == c'\r'):
            to[0] = at[0]
            to += 1
        at += 1
    return to - begin
