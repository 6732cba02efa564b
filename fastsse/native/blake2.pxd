# BLAKE2b (RFC 7693) without a key, for digests of requests: a call of hashlib for each costs more
# than the rest of a publish with a key. `tests/http/test_digests.py` compares both.

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memset

from fastsse.native.publish_head cimport Text

cdef extern from * nogil:
    """
    #ifndef FASTSSE_BLAKE2
    #define FASTSSE_BLAKE2
    #include <endian.h>
    #include <stdint.h>
    #include <string.h>

    static const uint64_t FASTSSE_BLAKE2_IV[8] = {
        0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
        0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
    };
    /* The order of the words of a block in each round; rounds 10 and 11 are 0 and 1 again. */
    static const uint8_t FASTSSE_BLAKE2_ORDER[10][16] = {
        {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
        {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
        {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
        {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
        {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
        {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
        {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
        {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
        {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
        {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
    };
    /* The numbers of rounds and words are constants where these are used, so that the compiler
       keeps the state in registers and looks nothing up. */
    #define FASTSSE_TURN(x, n) ((x) >> (n) | (x) << (64 - (n)))
    #define FASTSSE_MIX(r, i, a, b, c, d) do { \\
        a += b + m[FASTSSE_BLAKE2_ORDER[r][2 * i]]; \\
        d = FASTSSE_TURN(d ^ a, 32); c += d; b = FASTSSE_TURN(b ^ c, 24); \\
        a += b + m[FASTSSE_BLAKE2_ORDER[r][2 * i + 1]]; \\
        d = FASTSSE_TURN(d ^ a, 16); c += d; b = FASTSSE_TURN(b ^ c, 63); \\
    } while (0)
    #define FASTSSE_ROUND(r) do { \\
        FASTSSE_MIX(r, 0, v0, v4, v8, v12); FASTSSE_MIX(r, 1, v1, v5, v9, v13); \\
        FASTSSE_MIX(r, 2, v2, v6, v10, v14); FASTSSE_MIX(r, 3, v3, v7, v11, v15); \\
        FASTSSE_MIX(r, 4, v0, v5, v10, v15); FASTSSE_MIX(r, 5, v1, v6, v11, v12); \\
        FASTSSE_MIX(r, 6, v2, v7, v8, v13); FASTSSE_MIX(r, 7, v3, v4, v9, v14); \\
    } while (0)

    /* Takes one block; `taken` counts it already, `last` has all bits set for the last one. */
    static void fastsse_blake2_block(uint64_t *h, const uint8_t *at, uint64_t taken, uint64_t last) {
        uint64_t m[16];
        uint64_t v0 = h[0], v1 = h[1], v2 = h[2], v3 = h[3], v4 = h[4], v5 = h[5], v6 = h[6], v7 = h[7];
        uint64_t v8 = FASTSSE_BLAKE2_IV[0], v9 = FASTSSE_BLAKE2_IV[1];
        uint64_t v10 = FASTSSE_BLAKE2_IV[2], v11 = FASTSSE_BLAKE2_IV[3];
        uint64_t v12 = FASTSSE_BLAKE2_IV[4] ^ taken, v13 = FASTSSE_BLAKE2_IV[5];
        uint64_t v14 = FASTSSE_BLAKE2_IV[6] ^ last, v15 = FASTSSE_BLAKE2_IV[7];
        memcpy(m, at, sizeof m);
        for (int i = 0; i < 16; i++) m[i] = le64toh(m[i]);
        FASTSSE_ROUND(0); FASTSSE_ROUND(1); FASTSSE_ROUND(2); FASTSSE_ROUND(3);
        FASTSSE_ROUND(4); FASTSSE_ROUND(5); FASTSSE_ROUND(6); FASTSSE_ROUND(7);
        FASTSSE_ROUND(8); FASTSSE_ROUND(9); FASTSSE_ROUND(0); FASTSSE_ROUND(1);
        h[0] ^= v0 ^ v8; h[1] ^= v1 ^ v9; h[2] ^= v2 ^ v10; h[3] ^= v3 ^ v11;
        h[4] ^= v4 ^ v12; h[5] ^= v5 ^ v13; h[6] ^= v6 ^ v14; h[7] ^= v7 ^ v15;
    }
    #endif
    """
    const uint64_t* INITIAL "FASTSSE_BLAKE2_IV"
    void take_block "fastsse_blake2_block"(uint64_t*, const uint8_t*, uint64_t, uint64_t)
    uint64_t little_endian "htole64"(uint64_t)

cdef enum:
    BLOCK_BYTES = 128
    DIGEST_BYTES_MAX = 64


cdef struct Blake2:
    uint64_t words[8]
    uint64_t taken              # bytes, without those in `block`
    size_t filled               # of `block`
    uint8_t block[BLOCK_BYTES]


cdef inline void blake2_begin(Blake2* state, size_t digest_bytes) noexcept nogil:
    """Begins a digest of 1 to 64 bytes."""
    memset(state, 0, sizeof(Blake2))
    memcpy(state.words, INITIAL, sizeof(state.words))
    state.words[0] ^= 0x01010000 ^ digest_bytes


cdef inline void blake2_add(Blake2* state, Text text) noexcept nogil:
    """Adds bytes. A full block waits until more follows, because the last one is taken otherwise."""
    cdef size_t part
    while text.size:
        if state.filled == BLOCK_BYTES:
            state.taken += BLOCK_BYTES
            take_block(state.words, state.block, state.taken, 0)
            state.filled = 0
        part = min(text.size, BLOCK_BYTES - state.filled)
        memcpy(state.block + state.filled, text.at, part)
        state.filled += part
        text.at += part
        text.size -= part


cdef inline void blake2_end(Blake2* state, uint8_t* digest, size_t digest_bytes) noexcept nogil:
    """Writes the digest; as many bytes as it was begun with."""
    cdef size_t i
    state.taken += state.filled
    memset(state.block + state.filled, 0, BLOCK_BYTES - state.filled)
    take_block(state.words, state.block, state.taken, ~<uint64_t>0)
    for i in range(8):
        state.words[i] = little_endian(state.words[i])
    memcpy(digest, state.words, digest_bytes)
