# A stream's public name: a ping contains it, and the answer repeats it. It is the sealed handle: 64
# bits of SipHash-2-4 of the handle, and the handle masked with a second SipHash of these. So a name
# is resolved without a table, reveals nothing about slots, and can't be guessed (2^64 tries).

from libc.stdint cimport uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy

from fastsse.native.hex cimport hex_digit

cdef extern from * nogil:
    """
    #define FASTSSE_ROTATE(x, n) (((x) << (n)) | ((x) >> (64 - (n))))
    #define FASTSSE_SIP_ROUND do { \\
        v0 += v1; v1 = FASTSSE_ROTATE(v1, 13) ^ v0; v0 = FASTSSE_ROTATE(v0, 32); \\
        v2 += v3; v3 = FASTSSE_ROTATE(v3, 16) ^ v2; \\
        v0 += v3; v3 = FASTSSE_ROTATE(v3, 21) ^ v0; \\
        v2 += v1; v1 = FASTSSE_ROTATE(v1, 17) ^ v2; v2 = FASTSSE_ROTATE(v2, 32); } while (0)

    /* SipHash-2-4 of a message of eight bytes, as Aumasson and Bernstein define it. */
    static uint64_t fastsse_siphash(const uint64_t *key, uint64_t message) {
        uint64_t v0 = key[0] ^ 0x736f6d6570736575u, v1 = key[1] ^ 0x646f72616e646f6du;
        uint64_t v2 = key[0] ^ 0x6c7967656e657261u, v3 = key[1] ^ 0x7465646279746573u;
        const uint64_t length = (uint64_t)8 << 56;
        v3 ^= message; FASTSSE_SIP_ROUND; FASTSSE_SIP_ROUND; v0 ^= message;
        v3 ^= length; FASTSSE_SIP_ROUND; FASTSSE_SIP_ROUND; v0 ^= length;
        v2 ^= 0xff;
        FASTSSE_SIP_ROUND; FASTSSE_SIP_ROUND; FASTSSE_SIP_ROUND; FASTSSE_SIP_ROUND;
        return v0 ^ v1 ^ v2 ^ v3;
    }
    """
    uint64_t siphash "fastsse_siphash" (const uint64_t* key, uint64_t message)

cdef enum:
    ID_KEY_BYTES = 32
    ID_TEXT_BYTES = 32


cdef struct IdKey:             # fixed before the thread starts
    uint64_t seal[2]
    uint64_t mask[2]


cdef inline void write_stream_id(const IdKey* key, uint64_t handle, char* text) noexcept nogil:
    """ID_TEXT_BYTES of lower-case hex, with no end to them."""
    cdef char written[ID_TEXT_BYTES + 1]
    cdef uint64_t seal = siphash(key.seal, handle)
    cdef uint64_t masked = handle ^ siphash(key.mask, seal)
    snprintf(written, sizeof(written), b"%016llx%016llx",
             <unsigned long long>seal, <unsigned long long>masked)
    memcpy(text, written, ID_TEXT_BYTES)


cdef inline bint read_hex(const char* text, uint64_t* number) noexcept nogil:
    """Reads sixteen digits; False if one is invalid. Upper case is, so that a handle has one name."""
    cdef int index
    cdef int digit
    number[0] = 0
    for index in range(16):
        digit = hex_digit(text[index])
        if digit < 0 or c'A' <= text[index] <= c'F':
            return False
        number[0] = number[0] << 4 | <uint64_t>digit
    return True


cdef inline uint64_t read_stream_id(const IdKey* key, const char* text) noexcept nogil:
    """The handle of a name of ID_TEXT_BYTES, or 0 if this sender never wrote it."""
    cdef uint64_t seal
    cdef uint64_t handle
    if not read_hex(text, &seal) or not read_hex(text + 16, &handle):
        return 0
    handle ^= siphash(key.mask, seal)
    return handle if siphash(key.seal, handle) == seal else 0
