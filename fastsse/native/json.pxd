# JSON (RFC 8259), read in one pass into a list of places and written with escapes. Nothing is
# recursive: depth and places are bounded, and text over a bound counts as no JSON. Over 400 lines:
# reading and writing share the rules of strings.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from fastsse.native.buffer cimport (
    Buffer, buffer_clear, buffer_free, buffer_put_byte, buffer_put_bytes, buffer_room)
from fastsse.native.frame cimport Text
from fastsse.native.hex cimport hex_digit
from fastsse.native.memory cimport release, resize

cdef enum:
    JSON_DEPTH_MAX = 128
    JSON_PLACES_MAX = 64 * 1024

cdef enum JsonKind:
    JSON_NULL
    JSON_TRUE
    JSON_FALSE
    JSON_NUMBER
    JSON_STRING                # the text is what stands between the quotes
    JSON_LIST
    JSON_OBJECT                # its members: a string, then the value


cdef struct Place:
    const char* at
    uint32_t size
    uint32_t behind            # index of the place behind this value and all that is in it
    uint8_t kind
    uint8_t is_escaped         # a string with a backslash


cdef struct Json:
    Place* places              # the first is the value of the whole text
    uint32_t count
    uint32_t capacity
    size_t text_bytes
    Buffer texts               # of strings that were written with escapes


cdef inline void json_free(Json* json) noexcept nogil:
    release(json.places, json.capacity * sizeof(Place))
    buffer_free(&json.texts)
    memset(json, 0, sizeof(Json))


# ---- reading -----------------------------------------------------------------------------------

cdef inline const char* skip_blanks(const char* at, const char* end) noexcept nogil:
    while at < end and (at[0] == c' ' or at[0] == c'\n' or at[0] == c'\r' or at[0] == c'\t'):
        at += 1
    return at


cdef inline bint is_digit(const char* at, const char* end) noexcept nogil:
    return at < end and c'0' <= at[0] <= c'9'


cdef inline const char* skip_digits(const char* at, const char* end) noexcept nogil:
    while is_digit(at, end):
        at += 1
    return at


cdef inline const char* number_end(const char* at, const char* end) noexcept nogil:
    """Where a number ends; NULL for none."""
    if at < end and at[0] == c'-':
        at += 1
    if not is_digit(at, end):
        return NULL
    at = at + 1 if at[0] == c'0' else skip_digits(at, end)
    if at < end and at[0] == c'.':
        if not is_digit(at + 1, end):
            return NULL
        at = skip_digits(at + 1, end)
    if at < end and (at[0] == c'e' or at[0] == c'E'):
        at += 1
        if at < end and (at[0] == c'+' or at[0] == c'-'):
            at += 1
        if not is_digit(at, end):
            return NULL
        at = skip_digits(at, end)
    return at


cdef inline int hex_unit(const char* at, const char* end) noexcept nogil:
    """The UTF-16 unit of four hex digits; -1 for none."""
    cdef int unit = 0
    cdef int digit
    cdef uint32_t index
    if end - at < 4:
        return -1
    for index in range(4):
        digit = hex_digit(at[index])
        if digit < 0:
            return -1
        unit = unit << 4 | digit
    return unit


cdef enum:
    WORD_BYTES = 8


cdef inline const char* skip_plain(const char* at, const char* end) noexcept nogil:
    """Skips bytes of a string eight at a time, to the eight that hold a quote, a backslash or a
    control character."""
    cdef uint64_t word
    cdef uint64_t quotes
    cdef uint64_t backslashes
    while end - at >= WORD_BYTES:
        memcpy(&word, at, WORD_BYTES)
        # A byte minus 1 borrows from its highest bit where it is 0; minus 0x20 where it is less.
        quotes = word ^ 0x2222222222222222u
        backslashes = word ^ 0x5C5C5C5C5C5C5C5Cu
        if ((quotes - 0x0101010101010101u) & ~quotes
                | (backslashes - 0x0101010101010101u) & ~backslashes
                | (word - 0x2020202020202020u) & ~word) & 0x8080808080808080u:
            break
        at += WORD_BYTES
    return at


cdef inline const char* string_end(const char* at, const char* end, uint8_t* is_escaped) noexcept nogil:
    """The closing quote of a string whose text begins here; NULL when it is not one."""
    at = skip_plain(at, end)
    while at < end and at[0] != c'"':
        if <uint8_t>at[0] < 0x20:
            return NULL
        if at[0] == c'\\':
            is_escaped[0] = True
            at += 1
            if at >= end:
                return NULL
            if at[0] == c'u':
                if hex_unit(at + 1, end) < 0:
                    return NULL
                at += 4
            elif not (at[0] == c'"' or at[0] == c'\\' or at[0] == c'/' or at[0] == c'b'
                      or at[0] == c'f' or at[0] == c'n' or at[0] == c'r' or at[0] == c't'):
                return NULL
            at = skip_plain(at + 1, end)
        else:
            at += 1
    return at if at < end else NULL


cdef inline Place* add_place(Json* json, uint8_t kind, const char* at, size_t size) noexcept nogil:
    """One more place; NULL over the bound."""
    cdef uint32_t capacity
    cdef Place* place
    if json.count == JSON_PLACES_MAX or size > 0xFFFFFFFFu:
        return NULL
    if json.count == json.capacity:
        capacity = json.capacity * 2 if json.capacity else 64
        json.places = <Place*>resize(
            json.places, json.capacity * sizeof(Place), capacity * sizeof(Place))
        json.capacity = capacity
    place = &json.places[json.count]
    json.count += 1
    place.at = at
    place.size = <uint32_t>size
    place.behind = json.count
    place.kind = kind
    place.is_escaped = False
    return place


cdef inline const char* add_string(Json* json, const char* at, const char* end) noexcept nogil:
    """A string that begins behind its quote; returns what lies behind it, NULL for none."""
    cdef uint8_t is_escaped = False
    cdef const char* stop = string_end(at, end, &is_escaped)
    cdef Place* place
    if stop is NULL:
        return NULL
    place = add_place(json, JSON_STRING, at, stop - at)
    if place is NULL:
        return NULL
    place.is_escaped = is_escaped
    return stop + 1


cdef inline const char* add_word(
        Json* json, const char* at, const char* end, uint8_t kind, const char* word,
        size_t size) noexcept nogil:
    if <size_t>(end - at) < size or memcmp(at, word, size) != 0:
        return NULL
    return at + size if add_place(json, kind, at, size) is not NULL else NULL


cdef inline const char* add_scalar(Json* json, const char* at, const char* end) noexcept nogil:
    """A value that is no container; returns what lies behind it, NULL for none."""
    cdef const char* stop
    if at[0] == c'"':
        return add_string(json, at + 1, end)
    if at[0] == c't':
        return add_word(json, at, end, JSON_TRUE, b"true", 4)
    if at[0] == c'f':
        return add_word(json, at, end, JSON_FALSE, b"false", 5)
    if at[0] == c'n':
        return add_word(json, at, end, JSON_NULL, b"null", 4)
    stop = number_end(at, end)
    if stop is NULL or add_place(json, JSON_NUMBER, at, stop - at) is NULL:
        return NULL
    return stop


cdef inline const char* add_key(Json* json, const char* at, const char* end) noexcept nogil:
    """A member's name and its colon; returns where its value begins, NULL for none."""
    at = skip_blanks(at, end)
    if at >= end or at[0] != c'"':
        return NULL
    at = add_string(json, at + 1, end)
    if at is NULL:
        return NULL
    at = skip_blanks(at, end)
    return skip_blanks(at + 1, end) if at < end and at[0] == c':' else NULL


cdef inline bint json_read(Json* json, Text text) noexcept nogil:
    """Reads a whole text; False when it is not JSON, or over a bound. O(bytes)."""
    cdef uint32_t[JSON_DEPTH_MAX] open
    cdef uint32_t depth = 0
    cdef const char* end = text.at + text.size
    cdef const char* at = skip_blanks(text.at, end)
    cdef Place* top
    json.count = 0
    json.text_bytes = text.size
    buffer_clear(&json.texts)
    while True:
        # A value begins here.
        if at is NULL or at >= end:
            return False
        if at[0] == c'{' or at[0] == c'[':
            if depth == JSON_DEPTH_MAX or add_place(
                    json, JSON_OBJECT if at[0] == c'{' else JSON_LIST, at, 0) is NULL:
                return False
            open[depth] = json.count - 1
            depth += 1
            at = skip_blanks(at + 1, end)
            top = &json.places[open[depth - 1]]
            if at >= end:
                return False
            if at[0] != (c'}' if top.kind == JSON_OBJECT else c']'):
                if top.kind == JSON_OBJECT:
                    at = add_key(json, at, end)
                continue
        else:
            at = add_scalar(json, at, end)
            if at is NULL:
                return False
            at = skip_blanks(at, end)
        # A value ends here, and with it perhaps those that it is in.
        while depth and at < end:
            top = &json.places[open[depth - 1]]
            if at[0] != (c'}' if top.kind == JSON_OBJECT else c']'):
                break
            at += 1
            top.size = <uint32_t>(at - top.at)
            top.behind = json.count
            depth -= 1
            at = skip_blanks(at, end)
        if depth == 0:
            return at == end
        if at >= end or at[0] != c',':
            return False
        top = &json.places[open[depth - 1]]
        at = add_key(json, at + 1, end) if top.kind == JSON_OBJECT else skip_blanks(at + 1, end)


# ---- texts of strings --------------------------------------------------------------------------

cdef inline size_t put_utf8(char* at, uint32_t point) noexcept nogil:
    if point < 0x80:
        at[0] = <char>point
        return 1
    if point < 0x800:
        at[0] = <char>(0xC0 | point >> 6)
        at[1] = <char>(0x80 | (point & 63))
        return 2
    if point < 0x10000:
        at[0] = <char>(0xE0 | point >> 12)
        at[1] = <char>(0x80 | (point >> 6 & 63))
        at[2] = <char>(0x80 | (point & 63))
        return 3
    at[0] = <char>(0xF0 | point >> 18)
    at[1] = <char>(0x80 | (point >> 12 & 63))
    at[2] = <char>(0x80 | (point >> 6 & 63))
    at[3] = <char>(0x80 | (point & 63))
    return 4


cdef inline char unescaped(char byte) noexcept nogil:
    if byte == c'n':
        return c'\n'
    if byte == c't':
        return c'\t'
    if byte == c'r':
        return c'\r'
    if byte == c'b':
        return c'\b'
    return c'\f' if byte == c'f' else byte


cdef inline size_t json_unescape(Place* string, char* to) noexcept nogil:
    """The text of a string as UTF-8, never longer than it is escaped; returns its bytes. A
    surrogate without its half becomes U+FFFD."""
    cdef const char* at = string.at
    cdef const char* end = at + string.size
    cdef char* begin = to
    cdef uint32_t point
    cdef int low
    while at < end:
        if at[0] != c'\\':
            to[0] = at[0]
            to += 1
            at += 1
        elif at[1] != c'u':
            to[0] = unescaped(at[1])
            to += 1
            at += 2
        else:
            point = <uint32_t>hex_unit(at + 2, end)
            at += 6
            if 0xD800 <= point < 0xDC00 and end - at >= 6 and at[0] == c'\\' and at[1] == c'u':
                low = hex_unit(at + 2, end)
                if 0xDC00 <= low < 0xE000:
                    point = 0x10000 + ((point - 0xD800) << 10) + <uint32_t>(low - 0xDC00)
                    at += 6
            if 0xD800 <= point < 0xE000:
                point = 0xFFFD
            to += put_utf8(to, point)
    return to - begin


cdef inline Text string_text(Json* json, Place* string) noexcept nogil:
    """The text of a string as UTF-8, without its escapes. It holds until another document is
    read."""
    cdef Text text
    cdef char* to
    if string.is_escaped:
        # All strings together are shorter than the document, so these never move.
        if json.texts.size == 0:
            buffer_room(&json.texts, json.text_bytes)
        to = json.texts.at + json.texts.size
        string.size = <uint32_t>json_unescape(string, to)
        string.at = to
        string.is_escaped = False
        json.texts.size += string.size
    text.at = string.at
    text.size = string.size
    return text


# ---- writing -----------------------------------------------------------------------------------

cdef inline void put_escape(Buffer* to, uint8_t byte) noexcept nogil:
    cdef char* at = buffer_room(to, 6)
    at[0] = c'\\'
    at[1] = c'u'
    at[2] = at[3] = c'0'
    at[4] = c'0' + (byte >> 4)
    at[5] = b"0123456789abcdef"[byte & 15]
    to.size += 6


cdef inline void put_json_string(Buffer* to, Text text) noexcept nogil:
    """UTF-8 text as a JSON string with its quotes. O(bytes)."""
    cdef const char* at = text.at
    cdef const char* end = at + text.size
    cdef const char* plain = at
    buffer_put_byte(to, c'"')
    while at < end:
        if <uint8_t>at[0] >= 0x20 and at[0] != c'"' and at[0] != c'\\':
            at += 1
            continue
        if at > plain:
            buffer_put_bytes(to, plain, at - plain)
        if at[0] == c'"' or at[0] == c'\\':
            buffer_put_byte(to, c'\\')
            buffer_put_byte(to, at[0])
        elif at[0] == c'\n':
            buffer_put_bytes(to, b"\\n", 2)
        elif at[0] == c'\t':
            buffer_put_bytes(to, b"\\t", 2)
        else:
            put_escape(to, <uint8_t>at[0])
        at += 1
        plain = at
    if at > plain:
        buffer_put_bytes(to, plain, at - plain)
    buffer_put_byte(to, c'"')


cdef inline void put_json_line(Buffer* to, Text text) noexcept nogil:
    """JSON on one line: line feeds, which stand only between its parts, become blanks."""
    cdef char* at = buffer_room(to, text.size)
    cdef size_t index
    for index in range(text.size):
        at[index] = c' ' if text.at[index] == c'\n' else text.at[index]
    to.size += text.size
