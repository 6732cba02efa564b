# Reads the head of a publish, strictly. It is a second parser next to llhttp, so it accepts less than
# llhttp: a head that is not clearly a usual publish, valid or not, is left to llhttp.
# `tests/http/fuzz_intake.py` compares the two.

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memset

cdef extern from * nogil:
    """
    #ifndef FASTSSE_PUBLISH_HEAD
    #define FASTSSE_PUBLISH_HEAD
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <stdint.h>
    #include <string.h>
    extern void *memmem(const void *, size_t, const void *, size_t);

    /* 1: of a token (RFC 9110 5.6.2), 2: of a field value (5.5), 4: of a request target here,
       which is printable ASCII without `#`. */
    static const uint8_t FASTSSE_KINDS[256] = {
        [9] = 2,
        [' '] = 2, ['!'] = 7, ['"'] = 6, ['#'] = 3, ['$'] = 7, ['%'] = 7, ['&'] = 7, ['\\''] = 7,
        ['('] = 6, [')'] = 6, ['*'] = 7, ['+'] = 7, [','] = 6, ['-'] = 7, ['.'] = 7, ['/'] = 6,
        ['0' ... '9'] = 7,
        [':'] = 6, [';'] = 6, ['<'] = 6, ['='] = 6, ['>'] = 6, ['?'] = 6, ['@'] = 6,
        ['A' ... 'Z'] = 7,
        ['['] = 6, ['\\\\'] = 6, [']'] = 6, ['^'] = 7, ['_'] = 7, ['`'] = 7,
        ['a' ... 'z'] = 7,
        ['{'] = 6, ['|'] = 7, ['}'] = 6, ['~'] = 7,
        [0x80 ... 0xff] = 2,
    };
    static const char *fastsse_span(const char *at, const char *end, int kind) {
        while (at < end && FASTSSE_KINDS[(uint8_t)*at] & kind) at++;
        return at;
    }
    /* `lower` has only letters, digits and hyphens, which one bit keeps apart from all others of a
       token. */
    static int fastsse_same_name(const char *name, const char *lower, size_t size) {
        for (size_t i = 0; i < size; i++)
            if ((name[i] | 0x20) != lower[i]) return 0;
        return 1;
    }
    #endif
    """
    const void* memmem(const void*, size_t, const void*, size_t)
    const char* span "fastsse_span"(const char*, const char*, int)
    bint same_name "fastsse_same_name"(const char*, const char*, size_t)

cdef enum:
    OF_TOKEN = 1
    OF_VALUE = 2
    OF_TARGET = 4
    HEADER_NAMES_MAX = 63       # each has a bit
    HEADER_NAME_BYTES = 31
    BUCKETS = 64
    TARGET_BYTES_MAX = 1024
    LENGTH_DIGITS_MAX = 8
    TRACE_BYTES = 55            # of a traceparent; the last digit has the flag `sampled`

# The meaning of a header for a publish. No route reads a name that is not in the table.
cdef enum:
    IGNORED                     # may occur once, and changes nothing
    SLOW                        # the request is left to llhttp
    LENGTH
    HOST
    AUTHORIZATION
    ORIGIN
    FORWARDED
    CONNECTION                  # with another value than `keep-alive` it is left to llhttp
    ACCEPT                      # with an event stream it is left to llhttp
    MEDIA_TYPE                  # a body that is an event stream is left to llhttp
    KEY
    EXPECT
    TRACED                      # a trace that is recorded is left to llhttp
    REQUEST_ID
    PRODUCER_ID                 # of durable streams, as the next three
    PRODUCER_EPOCH
    PRODUCER_SEQ
    STREAM_SEQ
    MEANINGS


cdef struct Text:
    const char* at              # NULL: not there
    size_t size


cdef struct HeaderName:
    char lower[HEADER_NAME_BYTES + 1]
    uint8_t size
    uint8_t meaning
    uint8_t next                # of the same bucket, counted from 1; 0: none


cdef struct HeaderNames:
    HeaderName names[HEADER_NAMES_MAX]
    uint8_t buckets[BUCKETS]    # the first of each, counted from 1
    uint8_t count


cdef struct HeadBounds:
    size_t head_bytes
    size_t headers
    size_t body_bytes


cdef struct PublishHead:
    Text target
    Text values[MEANINGS]       # of headers that may stand once, by meaning
    size_t size                 # of the head, its blank line included
    size_t body_bytes


cdef inline size_t bucket_of(const char* name, size_t size) noexcept nogil:
    return (size * 7 + (name[0] | 0x20) + (name[size - 1] | 0x20) * 3) % BUCKETS


cdef inline bint add_name(HeaderNames* names, const char* lower, size_t size, uint8_t meaning) noexcept nogil:
    """Adds a name of letters, digits and hyphens; False when it does not fit."""
    cdef HeaderName* name
    cdef size_t bucket
    if names.count == HEADER_NAMES_MAX or size == 0 or size > HEADER_NAME_BYTES:
        return False
    name = &names.names[names.count]
    names.count += 1
    bucket = bucket_of(lower, size)
    memcpy(name.lower, lower, size)
    name.size, name.meaning, name.next = <uint8_t>size, meaning, names.buckets[bucket]
    names.buckets[bucket] = names.count
    return True


cdef inline size_t name_index(const HeaderNames* names, const char* at, size_t size) noexcept nogil:
    """The place of a header's name in the table, counted from 1; 0: it is not there."""
    cdef size_t index = names.buckets[bucket_of(at, size)]
    cdef const HeaderName* name
    while index:
        name = &names.names[index - 1]
        if name.size == size and same_name(at, name.lower, size):
            return index
        index = name.next
    return 0


cdef inline bint read_number(Text text, size_t* number) noexcept nogil:
    """Reads digits, at least one and not more than fit."""
    cdef size_t i
    if text.size == 0 or text.size > LENGTH_DIGITS_MAX:
        return False
    number[0] = 0
    for i in range(text.size):
        if not c'0' <= text.at[i] <= c'9':
            return False
        number[0] = number[0] * 10 + <size_t>(text.at[i] - c'0')
    return True


cdef inline bint names_event_stream(Text text) noexcept nogil:
    """Whether a media type, or a list of them, may contain `text/event-stream`; any `event-s` in
    any letter case counts."""
    cdef size_t i
    if text.size < 7:
        return False
    for i in range(text.size - 6):
        if (text.at[i] | 0x20) == c'e' and same_name(text.at + i, b"event-s", 7):
            return True
    return False


cdef inline bint is_json(Text text) noexcept nogil:
    """Whether a media type is `application/json`, with parameters or not."""
    cdef const char* end = <const char*>memchr(text.at, c';', text.size) if text.size else NULL
    cdef size_t size = text.size if end is NULL else <size_t>(end - text.at)
    while size and (text.at[size - 1] == c' ' or text.at[size - 1] == c'\t'):
        size -= 1
    while size and (text.at[0] == c' ' or text.at[0] == c'\t'):
        text.at += 1
        size -= 1
    return size == 16 and is_json_name(text.at)


cdef inline bint is_json_name(const char* name) noexcept nogil:
    # A slash is no character of a name; it is compared alone.
    return same_name(name, b"application", 11) and name[11] == c'/' and same_name(name + 12, b"json", 4)


cdef inline bint read_value(const HeaderName* name, Text value, PublishHead* head) noexcept nogil:
    """Takes one header; False when the request is left to llhttp."""
    if name.meaning == SLOW:
        return False
    if name.meaning == CONNECTION:
        return value.size == 10 and same_name(value.at, b"keep-alive", 10)
    if name.meaning == TRACED:
        return value.size == TRACE_BYTES and value.at[TRACE_BYTES - 1] == c'0'
    if (name.meaning == ACCEPT or name.meaning == MEDIA_TYPE) and names_event_stream(value):
        return False
    if name.meaning == LENGTH and not read_number(value, &head.body_bytes):
        return False
    head.values[name.meaning] = value
    return True


cdef inline const char* read_headers(
    const HeaderNames* names, const char* at, const char* end, size_t most, PublishHead* head
) noexcept nogil:
    """Takes the header lines from `at` to the blank line; returns what is behind that. NULL when the
    request is left to llhttp, also when the blank line is not before `end`."""
    cdef const char* stop
    cdef Text value
    cdef uint64_t seen = 0, bit
    cdef size_t index, count = 0
    while end - at > 2 and not (at[0] == c'\r' and at[1] == c'\n'):
        stop = span(at, end, OF_TOKEN)
        count += 1
        if stop == at or stop == end or stop[0] != c':' or count > most:
            return NULL
        index = name_index(names, at, stop - at)
        value.at = stop + 1
        stop = span(value.at, end, OF_VALUE)
        if end - stop < 2 or stop[0] != c'\r' or stop[1] != c'\n':
            return NULL
        if index:
            while value.at[0] == c' ':
                value.at += 1
            value.size = stop - value.at
            bit = <uint64_t>1 << index
            if seen & bit or not read_value(&names.names[index - 1], value, head):
                return NULL
            seen |= bit
        at = stop + 2
    if end - at < 2 or at[0] != c'\r' or at[1] != c'\n':
        return NULL
    return at + 2


cdef inline bint read_publish_head(
    const HeaderNames* names, const HeadBounds* bounds, const char* at, const char* end,
    PublishHead* head
) noexcept nogil:
    """Reads a whole head; False when it is not clearly that of a publish with a body of a stated
    length within the bounds. The caller checks target, Host and credentials."""
    cdef const char* begin = at
    cdef size_t most = end - at
    if most < 5 or memcmp(at, b"POST ", 5):
        return False
    if most > bounds.head_bytes:
        end = at + bounds.head_bytes
    memset(head, 0, sizeof(PublishHead))
    head.target.at = at + 5
    at = span(head.target.at, end, OF_TARGET)
    head.target.size = at - head.target.at
    if head.target.size > TARGET_BYTES_MAX or end - at < 11:
        return False
    if head.target.at[0] != c'/' or memcmp(at, b" HTTP/1.1\r\n", 11):
        return False
    at = read_headers(names, at + 11, end, bounds.headers, head)
    if at is NULL:
        return False
    head.size = at - begin
    return (head.values[LENGTH].at is not NULL and head.values[HOST].at is not NULL
            and 0 < head.body_bytes <= bounds.body_bytes)
