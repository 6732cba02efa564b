# CRC-32C (Castagnoli): the checksum of records. By the processor's own instruction where it has
# one (x86 SSE4.2, checked once at run time), else eight table lookups for eight bytes.
# RFC 3720 appendix B.4 has the test vectors; the polynomial is 0x1EDC6F41, reflected.

from libc.stdint cimport uint32_t

cdef extern from *:
    """
    #include <stddef.h>
    #include <stdint.h>
    #include <string.h>

    static uint32_t fastsse_crc_table[8][256];

    static void fastsse_crc_make_table(void) {
        for (uint32_t byte = 0; byte < 256; byte++) {
            uint32_t crc = byte;
            for (int bit = 0; bit < 8; bit++)
                crc = (crc >> 1) ^ (0x82F63B78u & (0u - (crc & 1u)));
            fastsse_crc_table[0][byte] = crc;
        }
        for (uint32_t byte = 0; byte < 256; byte++)
            for (int row = 1; row < 8; row++) {
                uint32_t before = fastsse_crc_table[row - 1][byte];
                fastsse_crc_table[row][byte] =
                    (before >> 8) ^ fastsse_crc_table[0][before & 0xFF];
            }
    }

    static uint32_t fastsse_crc_by_table(uint32_t crc, const unsigned char *at, size_t size) {
        for (; size >= 8; size -= 8, at += 8) {
            uint32_t low = crc ^ ((uint32_t)at[0] | (uint32_t)at[1] << 8 |
                                  (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24);
            crc = fastsse_crc_table[7][low & 0xFF] ^ fastsse_crc_table[6][low >> 8 & 0xFF] ^
                  fastsse_crc_table[5][low >> 16 & 0xFF] ^ fastsse_crc_table[4][low >> 24] ^
                  fastsse_crc_table[3][at[4]] ^ fastsse_crc_table[2][at[5]] ^
                  fastsse_crc_table[1][at[6]] ^ fastsse_crc_table[0][at[7]];
        }
        for (; size; size--, at++)
            crc = (crc >> 8) ^ fastsse_crc_table[0][(crc ^ *at) & 0xFF];
        return crc;
    }

    #if defined(__x86_64__)
    #define FASTSSE_CRC_HARDWARE 1
    #ifdef __clang__
    __attribute__((target("sse4.2,crc32")))
    #else
    __attribute__((target("sse4.2")))
    #endif
    static uint32_t fastsse_crc_by_hardware(uint32_t crc, const unsigned char *at, size_t size) {
        uint64_t eight, wide = crc;
        for (; size >= 8; size -= 8, at += 8) {
            memcpy(&eight, at, 8);
            wide = __builtin_ia32_crc32di(wide, eight);
        }
        crc = (uint32_t)wide;
        for (; size; size--, at++)
            crc = __builtin_ia32_crc32qi(crc, *at);
        return crc;
    }
    static int fastsse_crc_has_hardware(void) { return __builtin_cpu_supports("sse4.2") != 0; }
    #else
    #define FASTSSE_CRC_HARDWARE 0
    static uint32_t fastsse_crc_by_hardware(uint32_t crc, const unsigned char *at, size_t size) {
        return fastsse_crc_by_table(crc, at, size);
    }
    static int fastsse_crc_has_hardware(void) { return 0; }
    #endif

    static int fastsse_crc_uses_hardware;

    static void fastsse_crc_begin(void) {
        fastsse_crc_make_table();
        fastsse_crc_uses_hardware = fastsse_crc_has_hardware();
    }

    static inline uint32_t fastsse_crc32c(const char *at, size_t size) {
        const unsigned char *bytes = (const unsigned char *)at;
        return ~(fastsse_crc_uses_hardware ? fastsse_crc_by_hardware(~0u, bytes, size)
                                           : fastsse_crc_by_table(~0u, bytes, size));
    }
    static inline uint32_t fastsse_crc32c_by_table(const char *at, size_t size) {
        return ~fastsse_crc_by_table(~0u, (const unsigned char *)at, size);
    }
    """
    # Fills the table and asks the processor. Once, when a module that uses this is loaded.
    void crc_begin "fastsse_crc_begin"() noexcept nogil
    # The checksum of so many bytes.
    uint32_t crc32c_of "fastsse_crc32c"(const char* at, size_t size) noexcept nogil
    # The same without the instruction, so that tests can compare both on any processor.
    uint32_t crc32c_by_table "fastsse_crc32c_by_table"(const char* at, size_t size) noexcept nogil
