# The lines of an event's data without the names of their fields: what was published.

cdef extern from *:
    """
    #include <stddef.h>
    #include <string.h>
    #if defined(__SSE2__)
    #include <emmintrin.h>
    #endif

    #define FASTSSE_DATA_FIELD 6   // `data: `

    // The begin of the data of the next line, whose field begins at a place.
    static inline const char *fastsse_line_data(const char *at, const char *end) {
        int is_named = end - at >= FASTSSE_DATA_FIELD && !memcmp(at, "data: ", FASTSSE_DATA_FIELD);
        return is_named ? at + FASTSSE_DATA_FIELD : at;
    }

    // Short lines are copied as 32 bytes, where those may be read and written.
    static inline char *fastsse_copy_line(
            char *out, const char *room, const char *at, size_t size, const char *end) {
        if (size <= 32 && end - at >= 32 && room - out >= 32)
            memcpy(out, at, 32);
        else
            memcpy(out, at, size);
        return out + size;
    }

    static size_t fastsse_unfolded_size(const char *line, const char *end) {
        const char *at = line;
        size_t size = (size_t)(end - line);
    #if defined(__SSE2__)
        const __m128i feed = _mm_set1_epi8(10);
        for (; end - at >= 16; at += 16) {
            __m128i some = _mm_loadu_si128((const __m128i *)at);
            unsigned marks = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(some, feed));
            for (; marks; marks &= marks - 1) {
                const char *behind = at + __builtin_ctz(marks) + 1;
                size -= (size_t)(fastsse_line_data(behind, end) - behind);
            }
        }
    #endif
        while (at < end && (at = (const char *)memchr(at, 10, (size_t)(end - at)))) {
            at++;
            size -= (size_t)(fastsse_line_data(at, end) - at);
        }
        return size;
    }

    static char *fastsse_unfold(char *out, const char *room, const char *line, const char *end) {
        const char *at = line;
    #if defined(__SSE2__)
        // The places of all line feeds of 16 bytes at once: no step waits for the one before it.
        const __m128i feed = _mm_set1_epi8(10);
        for (; end - at >= 16; at += 16) {
            __m128i some = _mm_loadu_si128((const __m128i *)at);
            unsigned marks = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(some, feed));
            for (; marks; marks &= marks - 1) {
                const char *behind = at + __builtin_ctz(marks) + 1;
                out = fastsse_copy_line(out, room, line, (size_t)(behind - line), end);
                line = fastsse_line_data(behind, end);
            }
        }
        if (at < line)
            at = line;
    #endif
        while (at < end && (at = (const char *)memchr(at, 10, (size_t)(end - at)))) {
            out = fastsse_copy_line(out, room, line, (size_t)(at + 1 - line), end);
            at = line = fastsse_line_data(at + 1, end);
        }
        memcpy(out, line, (size_t)(end - line));
        return out + (end - line);
    }
    """
    # Writes what stands from a place, behind the name of a field, to the end of the last line;
    # returns where it ends. There must be room for it up to `room`.
    char* unfold "fastsse_unfold"(
        char* out, const char* room, const char* line, const char* end) noexcept nogil
    # How many bytes that writes.
    size_t unfolded_size "fastsse_unfolded_size"(const char* line, const char* end) noexcept nogil
