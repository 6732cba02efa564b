# UTF-8 as Python decodes it strictly: no overlong forms, no surrogates, nothing above U+10FFFF
# (Unicode 15, table 3-7).

cdef extern from * nogil:
    """
    #ifndef FASTSSE_UTF8
    #define FASTSSE_UTF8
    #include <stdint.h>
    #include <string.h>

    static inline int fastsse_tail(uint8_t c) { return (c & 0xc0) == 0x80; }

    /* Bytes of the character at `at`, 0 when it is none. Called for what is not ASCII. */
    static inline int fastsse_character(const uint8_t *at, const uint8_t *end) {
        uint8_t c = at[0];
        if (c < 0xc2 || c > 0xf4) return 0;
        if (c < 0xe0) return end - at > 1 && fastsse_tail(at[1]) ? 2 : 0;
        if (c < 0xf0) {
            if (end - at < 3 || !fastsse_tail(at[1]) || !fastsse_tail(at[2])) return 0;
            if (c == 0xe0 && at[1] < 0xa0) return 0;
            return c == 0xed && at[1] > 0x9f ? 0 : 3;
        }
        if (end - at < 4 || !fastsse_tail(at[1]) || !fastsse_tail(at[2]) || !fastsse_tail(at[3]))
            return 0;
        if (c == 0xf0 && at[1] < 0x90) return 0;
        return c == 0xf4 && at[1] > 0x8f ? 0 : 4;
    }

    static int fastsse_is_utf8(const char *text, size_t size) {
        const uint8_t *at = (const uint8_t *)text, *end = at + size;
        while (at < end) {
            uint64_t eight;
            if (end - at >= 8) {
                memcpy(&eight, at, 8);
                if (!(eight & 0x8080808080808080ULL)) { at += 8; continue; }
            }
            if (*at < 0x80) { at++; continue; }
            int bytes = fastsse_character(at, end);
            if (!bytes) return 0;
            at += bytes;
        }
        return 1;
    }
    #endif
    """
    bint is_utf8 "fastsse_is_utf8"(const char*, size_t)
