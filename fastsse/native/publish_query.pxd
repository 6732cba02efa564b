# Reads the own id from the query of a publish. It differs from request to request, so it is removed,
# and the rest of the target is looked up in a cache.

from libc.stdint cimport uint8_t
from libc.string cimport memchr, memcmp, memcpy

from fastsse.native.hex cimport hex_digit
from fastsse.native.publish_head cimport Text, memmem, same_name

cdef enum:
    OWN_ID_BYTES_MAX = 256      # as in events.py


cdef struct OwnId:
    size_t size                 # 0: there is none
    char text[OWN_ID_BYTES_MAX]


cdef inline bint decode_id(const char* at, const char* end, OwnId* own) noexcept nogil:
    """Percent-decodes; False if the text has anything but printable ASCII, or a blank, a quote or a
    backslash."""
    cdef int high, low
    cdef char letter
    own.size = 0
    while at < end:
        letter = at[0]
        at += 1
        if letter == c'%':
            if end - at < 2:
                return False
            high, low = hex_digit(at[0]), hex_digit(at[1])
            if high < 0 or low < 0:
                return False
            letter = <char>(high << 4 | low)
            at += 2
        if not c'!' <= letter <= c'~' or letter == c'"' or letter == c'\\' or letter == c'+':
            return False
        if own.size == OWN_ID_BYTES_MAX:
            return False
        own.text[own.size] = letter
        own.size += 1
    return own.size > 0


cdef inline bint looks_like_a_position(const OwnId* own) noexcept nogil:
    """Whether the server could have given this id: digits, a hyphen and digits, or a UUID; or it
    names the start of the history. More than these count."""
    cdef size_t i
    if own.size == 8 and not memcmp(own.text, b"earliest", 8):
        return True
    if own.size >= 9 and same_name(own.text, b"urn", 3) and own.text[3] == c':':
        return True
    for i in range(own.size):
        if not c'0' <= own.text[i] <= c'9' and own.text[i] != c'-':
            return False
    return True


cdef inline bint take_own_id(Text target, char* rest, size_t* rest_size, OwnId* own) noexcept nogil:
    """Takes `id=…` out of the query of a target; what is left is in `rest`, which has room for the
    whole. Nothing is written when there is no such part. False when the id is not plain, or there
    are two."""
    cdef const char* end = target.at + target.size
    cdef const char* at = <const char*>memchr(target.at, c'?', target.size)
    cdef const char* stop
    own.size = rest_size[0] = 0
    if at is NULL or memmem(at, end - at, b"id=", 3) is NULL:
        return True
    at += 1
    memcpy(rest, target.at, at - target.at)
    rest_size[0] = at - target.at
    while at < end:
        stop = <const char*>memchr(at, c'&', end - at)
        if stop is NULL:
            stop = end
        if stop - at > 3 and not memcmp(at, b"id=", 3):
            if own.size or not decode_id(at + 3, stop, own) or looks_like_a_position(own):
                return False
        else:
            memcpy(rest + rest_size[0], at, stop - at)
            rest_size[0] += stop - at
            if stop < end:
                rest[rest_size[0]] = c'&'
                rest_size[0] += 1
        at = stop + 1
    return True
