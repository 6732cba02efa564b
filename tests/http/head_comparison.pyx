"""Mutates requests, and compares `read_publish_head` with llhttp on each; see `fuzz_heads.py`, which
builds this. Everything that is done for an input is native."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcmp, memcpy, memmove, memset

from fastsse.native.publish_head cimport (
    CONNECTION, HOST, IGNORED, LENGTH, MEANINGS, SLOW, TRACED, HeaderNames, HeadBounds, PublishHead, Text,
    add_name, name_index, read_publish_head)

from fastsse._intake import MEANINGS as MEANING_OF

cdef extern from * nogil:
    """
    #include <stddef.h>
    #include <stdint.h>
    #include <string.h>
    /* llhttp's objects, larger than any version of them. httptools has the functions. */
    typedef struct { _Alignas(16) char bytes[1024]; } fuzz_parser;
    typedef struct { void *calls[64]; } fuzz_settings;
    typedef int (*fuzz_cb)(void *);
    typedef int (*fuzz_data_cb)(void *, const char *, size_t);
    static struct {
        void (*init)(fuzz_parser *, int, const fuzz_settings *);
        void (*defaults)(fuzz_settings *);
        int (*execute)(fuzz_parser *, const char *, size_t);
        const char *(*error_pos)(const fuzz_parser *);
        uint8_t (*method)(fuzz_parser *);
        uint8_t (*major)(fuzz_parser *);
        uint8_t (*minor)(fuzz_parser *);
        uint8_t (*upgrade)(fuzz_parser *);
        int (*keeps_alive)(const fuzz_parser *);
    } fuzz_llhttp;
    typedef struct { const char *at; size_t size; } fuzz_span;
    enum { FUZZ_HEADERS = 64, FUZZ_PAUSED = 21 };
    static struct {
        fuzz_span url, body, names[FUZZ_HEADERS], values[FUZZ_HEADERS];
        size_t headers;
        int is_value, is_split, is_whole, keeps_alive;
    } fuzz_seen;
    /* A span that is called in parts must be one piece of the input. */
    static void fuzz_add(fuzz_span *span, const char *at, size_t size) {
        if (!span->at) span->at = at;
        else if (span->at + span->size != at) fuzz_seen.is_split = 1;
        span->size += size;
    }
    static int fuzz_on_url(void *parser, const char *at, size_t size) {
        fuzz_add(&fuzz_seen.url, at, size);
        return 0;
    }
    static int fuzz_on_body(void *parser, const char *at, size_t size) {
        fuzz_add(&fuzz_seen.body, at, size);
        return 0;
    }
    static int fuzz_on_name(void *parser, const char *at, size_t size) {
        if (fuzz_seen.is_value || !fuzz_seen.headers) {
            if (fuzz_seen.headers == FUZZ_HEADERS) { fuzz_seen.is_split = 1; return 0; }
            fuzz_seen.headers++;
            fuzz_seen.is_value = 0;
        }
        fuzz_add(&fuzz_seen.names[fuzz_seen.headers - 1], at, size);
        return 0;
    }
    static int fuzz_on_value(void *parser, const char *at, size_t size) {
        fuzz_seen.is_value = 1;
        if (fuzz_seen.headers) fuzz_add(&fuzz_seen.values[fuzz_seen.headers - 1], at, size);
        return 0;
    }
    static int fuzz_on_whole(void *parser) {
        fuzz_seen.is_whole++;
        fuzz_seen.keeps_alive = fuzz_llhttp.keeps_alive(parser);
        return FUZZ_PAUSED;
    }
    /* Places in the table of calls; `protocol` has one more before the target. */
    static void fuzz_set_calls(fuzz_settings *settings, int has_protocol) {
        fuzz_llhttp.defaults(settings);
        settings->calls[1 + has_protocol] = fuzz_on_url;
        settings->calls[5 + has_protocol] = fuzz_on_name;
        settings->calls[6 + has_protocol] = fuzz_on_value;
        settings->calls[10 + has_protocol] = fuzz_on_body;
        settings->calls[11 + has_protocol] = fuzz_on_whole;
    }
    static int fuzz_run(const fuzz_settings *settings, fuzz_parser *parser, const char *at, size_t size) {
        memset(&fuzz_seen, 0, offsetof(__typeof__(fuzz_seen), names));
        memset(&fuzz_seen.headers, 0, sizeof fuzz_seen - offsetof(__typeof__(fuzz_seen), headers));
        memset(fuzz_seen.names, 0, sizeof fuzz_seen.names);
        memset(fuzz_seen.values, 0, sizeof fuzz_seen.values);
        fuzz_llhttp.init(parser, 1, settings);
        return fuzz_llhttp.execute(parser, at, size);
    }
    #define FUZZ_LINK(field, place) (*(void **)&fuzz_llhttp.field = (void *)(uintptr_t)(place))
    """
    ctypedef struct fuzz_parser:
        pass
    ctypedef struct fuzz_settings:
        pass
    ctypedef struct fuzz_span:
        const char* at
        size_t size
    ctypedef struct Seen:
        fuzz_span url
        fuzz_span body
        fuzz_span names[64]
        fuzz_span values[64]
        size_t headers
        int is_split
        int is_whole
        int keeps_alive
    ctypedef struct Functions:
        const char* (*error_pos)(const fuzz_parser*) noexcept nogil
        uint8_t (*method)(fuzz_parser*) noexcept nogil
        uint8_t (*major)(fuzz_parser*) noexcept nogil
        uint8_t (*minor)(fuzz_parser*) noexcept nogil
        uint8_t (*upgrade)(fuzz_parser*) noexcept nogil
    Seen seen "fuzz_seen"
    Functions llhttp "fuzz_llhttp"
    int FUZZ_PAUSED
    void set_calls "fuzz_set_calls"(fuzz_settings*, int)
    int run "fuzz_run"(const fuzz_settings*, fuzz_parser*, const char*, size_t)

cdef enum:
    INPUT_BYTES_MAX = 32 * 1024
    PIPELINED_MAX = 64
    POST = 3

cdef extern from * nogil:
    """
    static void fuzz_link(const size_t *places) {
        FUZZ_LINK(init, places[0]); FUZZ_LINK(defaults, places[1]); FUZZ_LINK(execute, places[2]);
        FUZZ_LINK(error_pos, places[3]); FUZZ_LINK(method, places[4]); FUZZ_LINK(major, places[5]);
        FUZZ_LINK(minor, places[6]); FUZZ_LINK(upgrade, places[7]); FUZZ_LINK(keeps_alive, places[8]);
    }
    """
    void link "fuzz_link"(const size_t*)

cdef HeaderNames names
cdef HeadBounds bounds
cdef fuzz_settings settings
cdef fuzz_parser parser


def prepare(places, kept_names, size_t head_bytes, size_t headers, size_t body_bytes):
    """Takes the addresses of llhttp's functions, the names that have a meaning for an intake, and its
    bounds."""
    cdef size_t[9] addresses
    cdef size_t i
    for i in range(9):
        addresses[i] = places[i]
    link(addresses)
    memset(&names, 0, sizeof(HeaderNames))
    for name in sorted(kept_names):
        if not add_name(&names, name, len(name), MEANING_OF.get(name, SLOW)):
            raise ValueError("a name does not fit")
    bounds.head_bytes, bounds.headers, bounds.body_bytes = head_bytes, headers, body_bytes
    known = b"POST /t HTTP/1.1\r\nHost: h\r\nX: y\r\nContent-Length: 2\r\n\r\nab"
    for has_protocol in range(2):
        set_calls(&settings, has_protocol)
        if compare(PyBytes_AS_STRING(known), len(known)) == <Py_ssize_t>len(known):
            return
    raise RuntimeError("this version of llhttp has its calls in another order")


cdef const char* wrong = NULL       # what does not agree


cdef Py_ssize_t differs(const char* what) noexcept nogil:
    global wrong
    wrong = what
    return -1


cdef inline bint is_blank(char one) noexcept nogil:
    return one == c' ' or one == c'\t'


cdef Text trimmed(const char* at, size_t size) noexcept nogil:
    """Without blanks at both ends. What the intake does with a value, it does without them."""
    cdef Text text
    while size and is_blank(at[size - 1]):
        size -= 1
    while size and is_blank(at[0]):
        at += 1
        size -= 1
    text.at, text.size = at, size
    return text


cdef bint is_same(Text text, fuzz_span span) noexcept nogil:
    cdef Text one = trimmed(text.at, text.size), other = trimmed(span.at, span.size)
    return one.size == other.size and (not one.size or not memcmp(one.at, other.at, one.size))


cdef Py_ssize_t compare_headers(const PublishHead* head) noexcept nogil:
    """Each header that has a meaning: once, and with the same value. 0: they agree."""
    cdef bint[64] known
    cdef size_t i, index
    cdef uint8_t meaning
    for i in range(64):
        known[i] = False
    for i in range(seen.headers):
        index = name_index(&names, seen.names[i].at, seen.names[i].size)
        if index == 0:
            continue
        meaning = names.names[index - 1].meaning
        if meaning == SLOW:
            return differs(b"a header that is not the intake's")
        if known[index]:
            return differs(b"a header that stands twice")
        known[index] = True
        if meaning in (IGNORED, CONNECTION, TRACED):
            continue
        if head.values[meaning].at is NULL or not is_same(head.values[meaning], seen.values[i]):
            return differs(b"a value")
    for i in range(MEANINGS):
        if i in (IGNORED, CONNECTION, TRACED, SLOW) or head.values[i].at is NULL:
            continue
        for index in range(1, <size_t>names.count + 1):
            if known[index] and names.names[index - 1].meaning == i:
                break
        else:
            return differs(b"a header that llhttp does not see")
    return 0


cdef Py_ssize_t compare_one(const char* at, const char* end) noexcept nogil:
    """Compares the first request of what is left; its bytes, 0 when it is not taken, -1 when the
    two differ."""
    cdef PublishHead head
    cdef Py_ssize_t size
    cdef Text body
    if not read_publish_head(&names, &bounds, at, end, &head):
        return 0
    size = head.size + head.body_bytes
    if end - at < size:
        return 0
    if run(&settings, &parser, at, size) != FUZZ_PAUSED or seen.is_whole != 1:
        return differs(b"llhttp does not accept it")
    if llhttp.error_pos(&parser) != at + size:
        return differs(b"the end")
    if seen.is_split or llhttp.method(&parser) != POST or llhttp.upgrade(&parser):
        return differs(b"the method, or an upgrade")
    if llhttp.major(&parser) != 1 or llhttp.minor(&parser) != 1 or not seen.keeps_alive:
        return differs(b"the version, or the last request of a connection")
    if seen.url.at != head.target.at or seen.url.size != head.target.size:
        return differs(b"the target")
    body.at, body.size = at + head.size, head.body_bytes
    if seen.body.at != body.at or seen.body.size != body.size:
        return differs(b"the body")
    return size if compare_headers(&head) == 0 else -1


cdef Py_ssize_t compare(const char* begin, size_t size) noexcept nogil:
    """As `compare_one`, over all requests of a pipeline; the bytes of those that are taken."""
    cdef const char* at = begin
    cdef const char* end = begin + size
    cdef Py_ssize_t taken
    cdef int count
    for count in range(PIPELINED_MAX):
        taken = compare_one(at, end)
        if taken < 0:
            return -1
        if taken == 0 or at + taken == end:
            return at + taken - begin
        at += taken
    return at - begin


# -- mutation -------------------------------------------------------------------------------------

cdef uint64_t state = 1


cdef inline uint64_t random() noexcept nogil:
    """Xorshift, 64 bits."""
    global state
    state ^= state << 13
    state ^= state >> 7
    state ^= state << 17
    return state >> 12


cdef struct Input:
    char bytes[INPUT_BYTES_MAX]
    size_t size


cdef void replace(Input* one, size_t at, size_t gone, const char* text, size_t size) noexcept nogil:
    """Has a text in the place of some bytes; nothing happens when it does not fit."""
    if at + gone > one.size:
        gone = one.size - at
    if one.size - gone + size > INPUT_BYTES_MAX:
        return
    memmove(one.bytes + at + size, one.bytes + at + gone, one.size - at - gone)
    memcpy(one.bytes + at, text, size)
    one.size += size - gone


cdef Text line_of(Input* one) noexcept nogil:
    """A line with its end, or what is left of one."""
    cdef size_t begin = random() % one.size if one.size else 0
    cdef size_t end
    cdef Text line
    while begin and one.bytes[begin - 1] != c'\n':
        begin -= 1
    end = begin
    while end < one.size and one.bytes[end] != c'\n':
        end += 1
    line.at, line.size = one.bytes + begin, min(end + 1, one.size) - begin
    return line


cdef void mutate(Input* one, Text piece, Text other) noexcept nogil:
    """One change, of the kinds that `fuzz_intake.mutations` has. The length of the body that a head
    states is not made right again: one digit is enough for that."""
    cdef size_t at = random() % (one.size + 1)
    cdef char[1024] copy
    cdef Text line
    cdef char byte
    cdef uint64_t kind = random() & 7
    if kind <= 2:
        replace(one, at, 0, piece.at, piece.size)
    elif kind == 3:
        byte = <char>(random() & 255)
        replace(one, at, 1, &byte, 1)
    elif kind == 4:
        replace(one, at, 1 + (random() & 7), NULL, 0)
    elif kind == 5 and at < one.size:
        one.bytes[at] ^= <char>(1 << (random() & 7))
    elif kind == 6:                 # A line stands twice, or in another place.
        line = line_of(one)
        if line.size <= sizeof(copy):
            memcpy(copy, line.at, line.size)
            line = line_of(one)
            if line.at + line.size < one.bytes + one.size:
                replace(one, line.at + line.size - one.bytes, 0, copy, min(line.size, sizeof(copy)))
    else:
        at = min(at, one.size)
        line.size = random() % (other.size + 1)
        replace(one, at, one.size - at, other.at + line.size, other.size - line.size)


def compare_many(list requests, list pieces, uint64_t seed, uint64_t count):
    """Compares as many mutated requests. Returns how many of them had a request that was taken, and
    None or the input on which the two differ, and in what."""
    global state
    cdef Text[4096] bases, parts
    cdef uint64_t number, changes, taken = 0
    cdef size_t i, base_count = min(4096, len(requests)), part_count = min(4096, len(pieces))
    cdef Py_ssize_t size = 0
    cdef Input one
    cdef Text base
    for i in range(base_count):
        bases[i].at, bases[i].size = PyBytes_AS_STRING(requests[i]), PyBytes_GET_SIZE(requests[i])
    for i in range(part_count):
        parts[i].at, parts[i].size = PyBytes_AS_STRING(pieces[i]), PyBytes_GET_SIZE(pieces[i])
    state = seed * <uint64_t>2654435769 + <uint64_t>88172645463325252
    for i in range(16):
        random()
    with nogil:
        for number in range(count):
            base = bases[random() % base_count]
            one.size = 0
            if random() & 7 == 0:
                replace(&one, 0, 0, base.at, base.size)
            replace(&one, one.size, 0, base.at, base.size)
            changes = 1 + (random() & 7 < 3) + (random() & 7 == 0)
            while changes:
                mutate(&one, parts[random() % part_count], bases[random() % base_count])
                changes -= 1
            size = compare(one.bytes, one.size)
            if size < 0:
                break
            taken += size > 0
    if size < 0:
        return taken, (PyBytes_FromStringAndSize(one.bytes, one.size), (<bytes>wrong).decode())
    return taken, None


def compare_input(bytes data not None):
    """The bytes that are taken of one input; a text when the two differ."""
    cdef Py_ssize_t size = compare(PyBytes_AS_STRING(data), len(data))
    return (<bytes>wrong).decode() if size < 0 else size
