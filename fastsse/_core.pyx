# The native face of fastsse: frames, and the sender that owns every handed-over connection.
# The implementation is in the .pxd headers in `native/`, one concept each; ARCHITECTURE.md
# has the map. Arguments are checked here, so that the headers can rely on them.
# Over 400 lines: frames, views, filters and the sender check their arguments with the same functions.

import os

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.errno cimport errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset, strerror

from fastsse._seal cimport SealedSocket
from fastsse.native.aead cimport crypto_load
from fastsse.native.claims cimport CLAIM_WORDS, Claim, Revocation
from fastsse.native.counters cimport BOUNDS_US, BUCKET_COUNT, REASON_COUNT
from fastsse.native.facts cimport (
    Facts, Mask, all_topics, facts_bytes, facts_free, facts_new, facts_topics)
from fastsse.native.fields cimport text_at, type_of
from fastsse.native.filter cimport (
    ROOTS, STEP_CODES, Path, Segment, Step, evaluate, filter_check, filter_drop, filter_keep)
from fastsse.native.filter cimport Filter as NativeFilter
from fastsse.native.filter cimport Run as FilterRun
from fastsse.native.frame cimport (
    BODY_BYTES_MAX, FrameData, Text, encode_event, frame_body, frame_drop, frame_keep,
    frame_of_bytes, frame_wire, frame_wire_bytes, join, text_ends_a_line)
from fastsse.native.inspection cimport (
    INSPECTED_ROWS_MAX as NATIVE_ROWS_MAX, INSPECTION_WORDS, Figures, Inspection, inspection_free,
    inspection_new, inspection_rows)
from fastsse.native.look cimport Look, look_at_event, look_end, look_free
from fastsse.native.memory cimport alloc, frames_alive, native_bytes
from fastsse.native.os cimport (
    eventfd_read, eventfd_write, load_u32, monotonic_us, pthread_join, relaxed_add, relaxed_load,
    relaxed_store, thread_start)
from fastsse.native.queue cimport (
    ADD_CHANNEL, ANNOUNCE, ATTACH, CLOSE, DISCONNECT, DRAIN, END_OF_PAGE, END_TOPIC, GRANT, INSPECT, LATEST,
    LINK, OPEN_ROW, PAGE, PLAIN, PONG, PUBLISH, QUEUE_MAX as NATIVE_QUEUE_MAX, REMOVE_CHANNEL, REMOVE_TOPIC,
    RENEW, REVOKE, SEAL_ROW, SKIP, STOP, SEND_DIRECT, WIRE, Command,
    Node, command_new, command_topics, node_new, queue_pending, queue_push, queue_wake)
from fastsse.native.rate cimport span_of
from fastsse.native.record_seal cimport RECORDS_MAX, seal_wipe
from fastsse.native.sealed_row cimport Release
from fastsse.native.sender cimport sender_main, state_clear, state_init
from fastsse.native.state cimport State, read_clock
from fastsse.native.stream_id cimport (
    ID_KEY_BYTES, ID_TEXT_BYTES, read_stream_id, write_stream_id)
from fastsse.native.table cimport (
    BEAT_PADS, BEAT_PAD_SHIFT, BEAT_SECONDS, BLOCKED, Conn, DRAINING, EXPIRING, FREE, LIVE,
    PAD_UNIT_BYTES, PAGE_SENT, STREAM_CLOSED, notice_bits, notices_take_all)

from fastsse.native.value cimport (
    V_BOOL, V_NULL, Value, numbers_begin, real_value, text_value, truth, value_of, whole_value)
from fastsse.native.view cimport (
    BLOCK_MARK, DATA_MARK, LINE_MARK, NO_MARK, PASSES_OVER, SENDS, SENDS_LAST, Verdict, form_of,
    judge_event, view_bytes, view_drop, view_keep, view_new, view_types)
from fastsse.native.view cimport View as NativeView

cdef extern from *:
    """
    #if defined(__SANITIZE_ADDRESS__)
    #define FASTSSE_SANITIZER "address"
    #elif defined(__SANITIZE_THREAD__)
    #define FASTSSE_SANITIZER "thread"
    #else
    #define FASTSSE_SANITIZER ""
    #endif
    """
    const char* COMPILER "__VERSION__"
    const char* CYTHON "CYTHON_ABI"
    const char* SANITIZER "FASTSSE_SANITIZER"

QUEUE_MAX = NATIVE_QUEUE_MAX
POLICY_DISCONNECT = DISCONNECT
POLICY_SKIP = SKIP
POLICY_LATEST = LATEST
REASONS = (
    "client_closed", "reset", "timeout", "client_data", "lagged", "drained", "ended", "stopped",
    "lifetime", "kicked", "expired", "revoked", "no_pong")
REASON_ENDED = REASONS.index("ended")
INSPECTED_ROWS_MAX = NATIVE_ROWS_MAX
EVERY_EVENT = 0
MAX_CONNECTIONS = 1 << 24

cdef enum:
    EVENT_TOPICS_MAX = 255   # as many as a record holds
    INSPECTIONS_MAX = 64     # under way at once: a megabyte

assert len(REASONS) == REASON_COUNT
assert sizeof(Claim) == CLAIM_WORDS * sizeof(uint32_t)


def build_facts():
    return {
        "compiler": COMPILER.decode(),
        "cython": CYTHON.decode().replace("_", "."),
        "sanitizer": SANITIZER.decode(),
    }


def native_bytes_held():
    """Bytes that all frames, rings, lists and commands of this process hold now. O(1)."""
    return relaxed_load(&native_bytes)


def native_frames_alive():
    """Frames of this process that are still referenced. O(1)."""
    return relaxed_load(&frames_alive)


# ---- frames ------------------------------------------------------------------------------------

@cython.freelist(256)
cdef class Frame:
    def __init__(self):
        raise TypeError(
            "frames are made by encode_frame, load_frame, join_frames, raw_frame and wire_frame")

    def __dealloc__(self):
        frame_drop(self.data)

    @property
    def position(self):
        return (<object>self.data.position_ms << 64) | self.data.position_n

    @property
    def time_ms(self):
        return self.data.time_ms

    @property
    def expires_ms(self):
        return self.data.expires_ms

    @property
    def lead_ms(self):
        return <int64_t>(self.data.position_ms - self.data.time_ms)

    @property
    def size(self):
        return self.data.body_bytes

    @property
    def events(self):
        return self.data.events

    @property
    def private(self):
        return bool(self.data.is_private)

    @property
    def data_kind(self):
        return self.data.data_kind

    @property
    def body(self):
        return PyBytes_FromStringAndSize(frame_body(self.data), self.data.body_bytes)

    @property
    def wire(self):
        return PyBytes_FromStringAndSize(frame_wire(self.data), frame_wire_bytes(self.data))

    def __repr__(self):
        return f"<Frame {self.data.position_ms}-{self.data.position_n} {self.data.body_bytes} B>"


cdef Frame own(FrameData* data):
    """A Python owner for one reference."""
    cdef Frame frame
    if data is NULL:
        raise ValueError("a frame of more than 1 GiB is not allowed")
    frame = Frame.__new__(Frame)
    frame.data = data
    return frame


cdef Text text_of(bytes value) noexcept:
    """The bytes as text; absent for None. Valid while the caller holds `value`."""
    cdef Text text
    text.at = PyBytes_AS_STRING(value) if value is not None else NULL
    text.size = PyBytes_GET_SIZE(value) if value is not None else 0
    return text


cdef int place(Frame frame, position, bint private, time_ms, uint8_t data_kind) except -1:
    """Gives a new frame its place in the order, its time and its kind; raises when one is out of
    range."""
    frame.data.position_ms = position >> 64
    frame.data.position_n = position & <uint64_t>0xFFFFFFFFFFFFFFFF
    frame.data.time_ms = frame.data.position_ms if time_ms is None else time_ms
    frame.data.is_private = private
    frame.data.data_kind = data_kind
    return 0


cdef Frame encode_at(
        Text data, Text event, Text id, uint64_t retry_ms, bint private,
        uint64_t position_ms, uint64_t position_n, uint64_t time_ms, uint8_t data_kind):
    """One event as a frame with its place in the order."""
    cdef Frame frame
    if text_ends_a_line(event):
        raise ValueError("event must not hold CR, LF or NUL")
    if text_ends_a_line(id):
        raise ValueError("id must not hold CR, LF or NUL")
    frame = own(encode_event(data, event, id, retry_ms))
    frame.data.is_private = private
    frame.data.position_ms = position_ms
    frame.data.position_n = position_n
    frame.data.time_ms = time_ms
    frame.data.data_kind = data_kind
    return frame


def encode_frame(
        bytes data not None, bytes event, bytes id, uint64_t retry_ms, position,
        bint private=False, time_ms=None, uint8_t data_kind=0):
    cdef Frame frame = encode_at(
        text_of(data), text_of(event), text_of(id), retry_ms, private, 0, 0, 0, data_kind)
    place(frame, position, private, time_ms, data_kind)
    return frame


cdef bytes utf8(value, str field):
    if value is None:
        return None
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        (<bytes>value).decode()
        return value
    raise TypeError(f"{field} must be str or bytes, not {type(value).__name__}")


def encode(data, *, event=None, id=None, retry=None):
    if retry is not None and (not isinstance(retry, int) or isinstance(retry, bool) or retry < 0):
        raise ValueError("retry must be a whole number of milliseconds, 0 or more")
    if data is None:
        raise TypeError("data must be str or bytes, not NoneType")
    cdef Frame frame = encode_frame(
        utf8(data, "data"), utf8(event, "event"), utf8(id, "id"), retry or 0, 0)
    return frame.body


def join_frames(frames, Py_ssize_t start=0, stop=None):
    cdef Py_ssize_t end = len(frames) if stop is None else stop
    cdef Py_ssize_t count = end - start
    cdef FrameData** parts
    cdef FrameData* page
    cdef Py_ssize_t index
    if count <= 0:
        raise ValueError("a page holds at least one frame")
    parts = <FrameData**>calloc(count, sizeof(FrameData*))
    if parts is NULL:
        raise MemoryError()
    try:
        for index in range(count):
            parts[index] = (<Frame?>frames[start + index]).data
        page = join(parts, count)
    finally:
        free(parts)
    return own(page)


cdef Frame frame_from(bytes body, bint chunk):
    if PyBytes_GET_SIZE(body) > BODY_BYTES_MAX:
        return own(NULL)
    return own(frame_of_bytes(PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body), chunk))


def raw_frame(bytes body not None):
    if not body:
        raise ValueError("an empty chunk would end the stream")
    return frame_from(body, True)


def load_frame(
        bytes body not None, position, bint private, time_ms=None, bint is_event=True,
        uint8_t data_kind=0, uint64_t expires_ms=0):
    cdef Frame frame = raw_frame(body)
    frame.data.events = is_event
    frame.data.expires_ms = expires_ms
    place(frame, position, private, time_ms, data_kind)
    return frame


def wire_frame(bytes data not None):
    if not data:
        raise ValueError("a wire frame holds at least one byte")
    return frame_from(data, False)


# ---- views -------------------------------------------------------------------------------------

FILTER_STEPS = {
    name: code for code, name in enumerate((
        "field", "has", "const", "in_list", "in", "equal", "not_equal", "below", "at_most",
        "above", "at_least", "starts", "ends", "contains", "and", "or", "not"))}
FILTER_ROOTS = ("data", "meta", "event", "topic")
FILTER_PARTS_MAX = 4096
assert len(FILTER_STEPS) == STEP_CODES and len(FILTER_ROOTS) == ROOTS
numbers_begin()
MARKS = {"": NO_MARK, "block": BLOCK_MARK, "line": LINE_MARK, "data": DATA_MARK}


cdef Text put_text(char** at, bytes value) noexcept:
    """Copies a text to a place, and moves that behind it."""
    cdef Text text
    text.at = at[0]
    text.size = PyBytes_GET_SIZE(value)
    memcpy(at[0], PyBytes_AS_STRING(value), text.size)
    at[0] += text.size
    return text


cdef Facts* facts_of(tuple names, bytes meta) except NULL:
    """What a view may ask of an event, in addition to its frame."""
    cdef Facts* facts
    cdef Py_ssize_t index, size = 0, one
    cdef const char* text
    cdef char* at
    for name in names:
        PyUnicode_AsUTF8AndSize(name, &one)
        size += one
    if meta is not None:
        size += PyBytes_GET_SIZE(meta)
    facts = facts_new(<uint32_t>len(names), size)
    at = facts_bytes(facts)
    for index in range(len(names)):
        text = PyUnicode_AsUTF8AndSize(names[index], &one)
        memcpy(at, text, one)
        facts_topics(facts)[index] = text_at(at, one)
        at += one
    if meta is not None:
        facts.meta = put_text(&at, meta)
    return facts


cdef Mask mask_of(shown):
    """The places of the topics that are shown, as a number; None is all."""
    cdef Mask mask
    if shown is None:
        return all_topics()
    mask.bits[0] = shown & <uint64_t>0xFFFFFFFFFFFFFFFF
    mask.bits[1] = shown >> 64 & <uint64_t>0xFFFFFFFFFFFFFFFF
    return mask


cdef Value constant_of(char** at, value) except *:
    """A constant as filters have it; a text is copied to the place, which moves behind it."""
    if value is None:
        return value_of(V_NULL)
    if isinstance(value, bool):
        return truth(value)
    if isinstance(value, str):
        return text_value(put_text(at, value.encode()))
    if isinstance(value, int) and -(1 << 63) <= value < 1 << 63:
        return whole_value(value)
    return real_value(value)


cdef Path path_of(char** at, Segment* segments, tuple parts) except *:
    """A path whose segments and texts are written to places that there are for them."""
    cdef Path path
    cdef bytes name
    cdef uint64_t hash = 0xCBF29CE484222325u
    cdef Py_ssize_t index
    cdef uint8_t byte
    path.root = FILTER_ROOTS.index(parts[0])
    path.segment_count = <uint32_t>(len(parts) - 1)
    path.segments = segments
    for index in range(1, len(parts)):
        if isinstance(parts[index], str):
            segments[index - 1].key = put_text(at, parts[index].encode())
            segments[index - 1].index = 0
        else:
            segments[index - 1].key = text_at(NULL, 0)
            segments[index - 1].index = parts[index]
    name = repr(parts).encode()
    path.name = put_text(at, name)
    for byte in name:
        hash = (hash ^ byte) * <uint64_t>0x100000001B3
    path.hash = hash ^ hash >> 32
    return path


def text_bytes_of(constants, paths):
    """Bytes that the texts of a filter take."""
    total = sum([len(one.encode()) for one in constants if isinstance(one, str)])
    for parts in paths:
        keys = [part.encode() for part in parts if isinstance(part, str)]
        total += sum(map(len, keys)) + len(repr(parts).encode())
    return total


@cython.final
cdef class Filter:
    cdef NativeFilter* filter

    def __cinit__(self, list steps not None, list constants not None, list lists not None,
                  list paths not None):
        cdef Py_ssize_t parts = sum(map(len, paths))
        cdef Py_ssize_t index
        cdef size_t size
        cdef char* at
        cdef Segment* segments
        if max(len(steps), len(constants), len(lists), parts) > FILTER_PARTS_MAX:
            raise ValueError(f"a filter has at most {FILTER_PARTS_MAX} parts of each kind")
        size = sizeof(NativeFilter) + len(steps) * sizeof(Step) \
            + len(constants) * sizeof(Value) + len(lists) * sizeof(FilterRun) \
            + len(paths) * sizeof(Path) + parts * sizeof(Segment)
        size += <size_t>text_bytes_of(constants, paths)
        self.filter = <NativeFilter*>alloc(size)
        memset(self.filter, 0, size)
        self.filter.refs = 1
        self.filter.size = size
        self.filter.step_count = <uint32_t>len(steps)
        at = <char*>self.filter + sizeof(NativeFilter)
        self.filter.constants = <Value*>at
        self.filter.paths = <Path*>&self.filter.constants[len(constants)]
        segments = <Segment*>&self.filter.paths[len(paths)]
        self.filter.steps = <Step*>&segments[parts]
        self.filter.lists = <FilterRun*>&self.filter.steps[len(steps)]
        at = <char*>&self.filter.lists[len(lists)]
        for index in range(len(constants)):
            self.filter.constants[index] = constant_of(&at, constants[index])
        for index in range(len(paths)):
            self.filter.paths[index] = path_of(&at, segments, paths[index])
            segments += len(paths[index])
        for index in range(len(steps)):
            self.filter.steps[index].code, self.filter.steps[index].argument = steps[index]
        for index in range(len(lists)):
            self.filter.lists[index].first, self.filter.lists[index].count = lists[index]
        if not filter_check(
                self.filter, <uint32_t>len(constants), <uint32_t>len(lists),
                <uint32_t>len(paths)):
            raise ValueError("steps that do not belong together")

    def __dealloc__(self):
        filter_drop(self.filter)

    def test(self, tuple topics not None, bytes data not None, bytes event, bytes meta,
             uint8_t data_kind=0):
        cdef Look look
        cdef Mask shown = all_topics()
        cdef Value value
        memset(&look, 0, sizeof(look))
        look.serial = 1
        look.is_read = True
        look.data_kind = data_kind
        look.event.type = text_of(event)
        look.event.data = text_of(data)
        look.facts = facts_of(topics, meta)
        value = evaluate(self.filter, &look, &shown)
        facts_free(look.facts)
        look_free(&look)
        return bool(value.whole) if value.kind == V_BOOL else None


cdef int leave_out_older(
        dict newest, list sent, uint32_t interval_ms, FrameData* frame, tuple topics) except -1:
    """Leaves out an older event of the same topic, type and span for one that is sent next."""
    cdef Text type = type_of(frame)
    span = max(span_of(frame, interval_ms), newest.get(None, 0))
    if span != newest.get(None):
        newest.clear()
        newest[None] = span
    if len(topics) != 1 or not frame.events:
        return 0
    key = topics[0], type.at[:type.size] if type.at is not NULL else b""
    older = newest.get(key)
    if older is not None:
        sent[older] = None
    newest[key] = len(sent)
    return 0


@cython.final
cdef class View:
    cdef NativeView* view

    def __cinit__(
            self, *, types=(), until=(), bytes until_data=None, bint envelope=False,
            str mark="", Filter filter=None, uint32_t interval_ms=0, bint notices=False):
        cdef list texts = [*types, *until]
        cdef Py_ssize_t index
        cdef char* at
        size = sum([len(<bytes?>text) for text in texts]) + len(until_data or b"")
        kind = MARKS[mark]
        self.view = view_new(<uint32_t>len(types), <uint32_t>len(until), size)
        self.view.has_envelope = envelope
        self.view.has_notices = notices
        self.view.mark = kind
        self.view.interval_ms = interval_ms
        if filter is not None:
            self.view.filter = filter_keep(filter.filter)
        at = view_bytes(self.view)
        for index in range(len(texts)):
            view_types(self.view)[index] = put_text(&at, texts[index])
        if until_data is not None:
            self.view.until_data = put_text(&at, until_data)

    def __dealloc__(self):
        view_drop(self.view)

    def select(self, list frames not None, list topics not None, list metas, list shown=None):
        cdef Look look
        cdef Mask mask = all_topics()
        cdef Verdict verdict = SENDS
        cdef Py_ssize_t index
        cdef list sent = []
        cdef dict newest = {}
        cdef Facts* facts
        memset(&look, 0, sizeof(look))
        try:
            for index in range(len(frames)):
                facts = facts_of(topics[index], None if metas is None else metas[index])
                look_at_event(&look, (<Frame?>frames[index]).data, facts)
                mask = mask_of(None if shown is None else shown[index])
                verdict = judge_event(self.view, &look, &mask)
                if verdict != PASSES_OVER:
                    if self.view.interval_ms and verdict == SENDS and look.frame.events:
                        leave_out_older(
                            newest, sent, self.view.interval_ms, look.frame, topics[index])
                    sent.append(own(frame_keep(form_of(self.view, &look, mask))))
                look_end(&look)
                facts_free(facts)
                if verdict == SENDS_LAST:
                    break
        finally:
            look_free(&look)
        if self.view.interval_ms:
            sent = [frame for frame in sent if frame is not None]
        return sent, verdict == SENDS_LAST


# ---- the sender --------------------------------------------------------------------------------

cdef Node* nodes_of(list frames, bint is_page) noexcept:
    """The frames as a private list with references of its own; NULL for none."""
    cdef Node* first = NULL
    cdef Node** at = &first
    cdef Frame frame
    for frame in frames:
        at[0] = node_new(frame_keep(frame.data), PLAIN if frame.data.head_bytes else WIRE)
        if is_page and frame is frames[-1]:
            at[0].kind = END_OF_PAGE
        at = &at[0].next
    return first


cdef uint32_t tenths(uint32_t ms) noexcept:
    """Whole tenths of a second, rounded up."""
    return <uint32_t>((<uint64_t>ms + 99) // 100)


cdef int beat_of(unsigned int heartbeat_s, unsigned int pad_bytes) except -1:
    """A stream's heartbeat as a row keeps it."""
    cdef unsigned int pad = 0
    if heartbeat_s > BEAT_SECONDS:
        raise ValueError(f"heartbeat_s must be at most {BEAT_SECONDS}")
    while pad < BEAT_PADS and pad_bytes != (PAD_UNIT_BYTES << pad if pad else 0):
        pad += 1
    if pad == BEAT_PADS:
        raise ValueError(f"pad_bytes must be 0 or a power of two up to "
                         f"{PAD_UNIT_BYTES << (BEAT_PADS - 1)}, not below {2 * PAD_UNIT_BYTES}")
    return heartbeat_s | pad << BEAT_PAD_SHIFT


cdef int check_whole(Frame frame) except -1:
    if frame.data.head_bytes == 0:
        raise ValueError("a wire frame can't stand between others")
    return 0


cdef str word_of(Figures* figures):
    """What an operator calls the state of a connection."""
    if figures.state == DRAINING:
        return "closing"
    if figures.flags & BLOCKED:
        return "blocked"
    return "live" if figures.state == LIVE else "replaying"


cdef tuple inspected(Inspection* inspection):
    cdef Figures* rows = inspection_rows(inspection)
    cdef uint32_t index
    cdef list found = []
    for index in range(inspection.count):
        if rows[index].handle == 0:
            continue
        if rows[index].state == FREE:
            found.append((rows[index].handle, "opening", 0, 0, 0, 0.0, 0.0))
        else:
            found.append((
                rows[index].handle, word_of(&rows[index]), rows[index].events, rows[index].bytes,
                rows[index].lag_bytes, rows[index].lag_ms / 1000, rows[index].idle_ds / 10))
    return "inspected", inspection.number, found, inspection.next_slot


@cython.final
cdef class Sender:
    cdef State* state
    cdef uint32_t* generations         # of each slot, as the loop thread knows it
    cdef uint32_t* free_slots          # slots given back, newest last
    cdef uint32_t free_count
    cdef uint32_t fresh                # slots from here on were never given out
    cdef uint32_t notice_chain         # rest of a taken notice list: slot + 1, 0 for none
    cdef Inspection* inspections       # under way, oldest first
    cdef uint32_t inspection_count
    cdef uint32_t inspections_total
    cdef public object on_waiting      # called with the number of a row's connection, and its handle
    cdef bint started
    cdef bint stopped

    def __cinit__(
            self, *, uint32_t max_connections, uint32_t heartbeat_ms=15_000,
            uint64_t max_lag_bytes=4 * 1024 * 1024, uint32_t max_lag_ms=20_000,
            uint32_t retry_ms=3_000, uint32_t tick_ms=50, uint32_t ping_ms=0,
            uint32_t pong_timeout_ms=0, uint32_t expiry_notice_ms=0, uint32_t lifetime_ms=0,
            bint clean_end=False, bint seals=False, bytes id_key=None,
            uint32_t write_limit_bytes=0, uint32_t refuse_every=0):
        if not 1 <= max_connections <= MAX_CONNECTIONS:
            raise ValueError(f"max_connections must be 1 to {MAX_CONNECTIONS}")
        if not 1 <= tick_ms <= 1000:
            raise ValueError("tick_ms must be 1 to 1000")
        if seals and crypto_load() is not NULL:
            raise ValueError("OpenSSL 3 is needed to seal records")
        if id_key is None:
            id_key = os.urandom(ID_KEY_BYTES)
        if len(id_key) != ID_KEY_BYTES:
            raise ValueError(f"id_key must be {ID_KEY_BYTES} bytes")
        self.state = <State*>calloc(1, sizeof(State))
        self.generations = <uint32_t*>calloc(max_connections, sizeof(uint32_t))
        self.free_slots = <uint32_t*>calloc(max_connections, sizeof(uint32_t))
        if self.state is NULL or self.generations is NULL or self.free_slots is NULL:
            raise MemoryError()
        self.state.options.max_connections = max_connections
        self.state.options.heartbeat_ds = tenths(heartbeat_ms)
        self.state.options.max_lag_bytes = max_lag_bytes
        self.state.options.max_lag_ds = tenths(max_lag_ms)
        self.state.options.retry_ms = retry_ms
        self.state.options.tick_ms = tick_ms
        self.state.options.ping_ds = tenths(ping_ms)
        self.state.options.pong_timeout_ds = tenths(pong_timeout_ms)
        self.state.options.expiry_notice_ms = expiry_notice_ms
        self.state.options.lifetime_ds = tenths(lifetime_ms)
        self.state.options.clean_end = clean_end
        self.state.options.seals = seals
        memcpy(&self.state.id_key, PyBytes_AS_STRING(id_key), ID_KEY_BYTES)
        self.state.options.write_limit_bytes = write_limit_bytes
        self.state.options.refuse_every = refuse_every
        if state_init(self.state):
            raise OSError(errno, strerror(errno).decode())

    def __dealloc__(self):
        if self.started and not self.stopped:
            self.end_thread()
        if self.state is not NULL:
            state_clear(self.state)
        self.drop_inspections()
        free(self.state)
        free(self.generations)
        free(self.free_slots)

    cdef void command(self, Command* command) noexcept:
        queue_push(&self.state.queue, command)
        queue_wake(&self.state.queue)

    cdef void end_thread(self) noexcept:
        self.command(command_new(STOP, 0))
        with nogil:
            pthread_join(self.state.thread, NULL)
        state_clear(self.state)
        self.drop_inspections()
        self.notice_chain = 0
        self.stopped = True

    cdef void drop_inspections(self) noexcept:
        """Only when the thread does not run, which fills them."""
        while self.inspections is not NULL:
            self.inspections = inspection_free(self.inspections)
        self.inspection_count = 0

    cdef int check_running(self) except -1:
        if not self.started or self.stopped:
            raise RuntimeError("the sender is not running")
        return 0

    def start(self):
        if self.started:
            raise RuntimeError("a sender is started once")
        self.state.running = True
        cdef int failed = thread_start(
            &self.state.thread, sender_main, self.state, b"fastsse-sender")
        if failed:
            raise OSError(failed, strerror(failed).decode())
        self.started = True

    def stop(self):
        if self.started and not self.stopped:
            self.end_thread()

    @property
    def notice_fd(self):
        return self.state.notices.fd

    # ---- slots

    def allocate(self):
        cdef uint32_t slot
        if self.free_count:
            self.free_count -= 1
            slot = self.free_slots[self.free_count]
        elif self.fresh < self.state.options.max_connections:
            slot = self.fresh
            self.fresh += 1
        else:
            return 0
        self.generations[slot] += 1
        if self.generations[slot] == 0:
            self.generations[slot] = 1
        return slot | <uint64_t>self.generations[slot] << 32

    cdef bint is_current(self, uint64_t handle) noexcept:
        cdef uint32_t slot = <uint32_t>handle
        return slot < self.fresh and self.generations[slot] == <uint32_t>(handle >> 32)

    cdef void give_back(self, uint32_t slot) noexcept:
        """The generation moves on, so every handle to the slot is stale from here."""
        self.generations[slot] += 1
        self.free_slots[self.free_count] = slot
        self.free_count += 1

    def release(self, uint64_t handle):
        if not self.is_current(handle):
            raise ValueError("a stale handle can't be released")
        self.give_back(<uint32_t>handle)

    @property
    def free_slot_count(self):
        return self.state.options.max_connections - self.fresh + self.free_count

    cdef Command* to_slot(
            self, uint32_t kind, uint64_t handle, uint32_t number_count=0) noexcept:
        cdef Command* command = command_new(kind, number_count)
        command.slot = <uint32_t>handle
        command.generation = <uint32_t>(handle >> 32)
        command.live = False
        return command

    def attach(
            self, uint64_t handle, int fd, uint32_t channel, bint chunked, bint live, first,
            claims=None, bint pings=False, unsigned int heartbeat_s=0, unsigned int pad_bytes=0,
            uint64_t door_number=0):
        cdef Node* nodes
        cdef Command* command
        cdef Claim claim
        cdef unsigned int beat = beat_of(heartbeat_s, pad_bytes)
        if claims is not None:
            claim.expires_ms, claim.subject, claim.token, claim.issued_s = claims
            claim.notified = False
        self.check_running()
        if door_number and not self.state.options.seals:
            raise ValueError("this sender seals no records")
        if not self.is_current(handle):
            raise ValueError("a stale handle can't be attached")
        frames = [<Frame?>frame for frame in first]
        if not live and (not frames or not (<Frame>frames[-1]).data.head_bytes):
            raise ValueError("a replaying stream begins with a page")
        nodes = nodes_of(frames, not live)
        command = self.to_slot(ATTACH, handle, 0 if claims is None else CLAIM_WORDS)
        if claims is not None:
            (<Claim*>command_topics(command))[0] = claim
        command.pinged = pings
        command.beat = <uint8_t>beat
        command.fd = fd
        command.channel = channel
        command.chunked = chunked
        command.live = live
        command.nodes = nodes
        command.waits = door_number != 0
        queue_push(&self.state.queue, command)
        if door_number:
            self.on_waiting(door_number, handle)

    def seal(self, uint64_t handle, SealedSocket sealed not None):
        cdef Command* command
        cdef Release* order
        self.check_running()
        if not self.state.options.seals:
            raise ValueError("this sender seals no records")
        if sealed.net_fd < 0:
            raise ValueError("a sealed socket can be given on once")
        if not self.is_current(handle):
            return False
        command = self.to_slot(
            SEAL_ROW, handle, (sizeof(Release) + sizeof(uint32_t) - 1) // sizeof(uint32_t))
        order = <Release*>command_topics(command)
        order.net_fd, order.pair_fd = sealed.net_fd, sealed.pair_fd
        order.seal = sealed.seal
        sealed.net_fd = sealed.pair_fd = -1
        seal_wipe(&sealed.seal)
        self.command(command)
        return True

    @property
    def sealed_count(self):
        return relaxed_load(&self.state.sealed_count)

    def go_on_plain(self, uint64_t handle):
        self.check_running()
        if not self.is_current(handle):
            return False
        self.command(self.to_slot(OPEN_ROW, handle))
        return True

    def page(self, uint64_t handle, Frame frame, bint live):
        cdef Command* command
        self.check_running()
        if frame is None and not live:
            raise ValueError("only the last page may be empty")
        if not self.is_current(handle):
            return False
        command = self.to_slot(PAGE, handle)
        command.live = live
        if frame is not None:
            command.nodes = node_new(
                frame_keep(frame.data), PLAIN if live else END_OF_PAGE)
        self.command(command)
        return True

    def close(self, uint64_t handle, uint32_t reason, Frame farewell, bint is_over=True):
        cdef Command* command
        self.check_running()
        if reason >= REASON_COUNT:
            raise ValueError(f"reason must be below {REASON_COUNT}")
        if not self.is_current(handle):
            return False
        command = self.to_slot(CLOSE, handle)
        command.reason = reason
        command.is_over = is_over
        if farewell is not None:
            command.frame = frame_keep(farewell.data)
        self.command(command)
        return True

    def send_direct(self, uint64_t handle, Frame frame not None):
        cdef Command* command
        self.check_running()
        check_whole(frame)
        if not self.is_current(handle):
            return False
        command = self.to_slot(SEND_DIRECT, handle)
        command.frame = frame_keep(frame.data)
        self.command(command)
        return True

    def announce(self, Frame frame not None):
        cdef Command* command
        self.check_running()
        check_whole(frame)
        command = command_new(ANNOUNCE, 0)
        command.frame = frame_keep(frame.data)
        command.accepted_us = read_clock(self.state)
        self.command(command)

    # ---- rights

    def renew(
            self, uint64_t handle, uint64_t expires_unix_ms, uint64_t token_hash,
            uint64_t issued_s):
        cdef Command* command
        cdef Claim* claim
        self.check_running()
        if not self.is_current(handle):
            return False
        command = self.to_slot(RENEW, handle, CLAIM_WORDS)
        claim = <Claim*>command_topics(command)
        claim.expires_ms = expires_unix_ms
        claim.token = token_hash
        claim.issued_s = issued_s
        claim.notified = False
        self.command(command)
        return True

    def revoke(
            self, uint64_t subject_hash=0, uint64_t token_hash=0, uint64_t issued_before_s=0):
        cdef Command* command
        cdef Revocation* revocation
        self.check_running()
        if not subject_hash and not token_hash and not issued_before_s:
            raise ValueError("a revocation must name something")
        command = command_new(REVOKE, sizeof(Revocation) // sizeof(uint32_t))
        revocation = <Revocation*>command_topics(command)
        revocation.subject = subject_hash
        revocation.token = token_hash
        revocation.issued_before_s = issued_before_s
        self.command(command)

    # ---- pings

    def pong(self, uint64_t handle):
        self.check_running()
        if not self.is_current(handle):
            return False
        self.command(self.to_slot(PONG, handle))
        return True

    def stream_id(self, uint64_t handle, bint ended=False):
        cdef char[ID_TEXT_BYTES] text
        if not ended and not self.is_current(handle):
            raise ValueError("a stale handle names no stream")
        write_stream_id(&self.state.id_key, handle, text)
        return PyBytes_FromStringAndSize(text, ID_TEXT_BYTES)

    def find_stream(self, bytes id not None):
        cdef uint64_t handle = 0
        if len(id) == ID_TEXT_BYTES:
            handle = read_stream_id(&self.state.id_key, PyBytes_AS_STRING(id))
        return handle if self.is_current(handle) else 0

    # ---- what happened

    def take_notices(self, uint32_t limit=1024):
        cdef uint64_t count
        cdef uint32_t slot
        cdef Conn* conn
        cdef list notices = []
        if self.stopped:
            return notices
        if self.notice_chain == 0:
            eventfd_read(self.state.notices.fd, &count)
            self.notice_chain = notices_take_all(&self.state.notices)
        while self.notice_chain and limit:
            slot = self.notice_chain - 1
            conn = &self.state.conns[slot]
            self.notice_chain = conn.next_notice
            self.add_notices(notices, slot, conn, notice_bits(conn))
            limit -= 1
        if self.notice_chain:
            eventfd_write(self.state.notices.fd, 1)
        while self.inspections is not NULL and load_u32(&self.inspections.done):
            notices.append(inspected(self.inspections))
            self.inspections = inspection_free(self.inspections)
            self.inspection_count -= 1
        return notices

    cdef uint32_t start_inspection(self, Inspection* inspection, bint blocked) noexcept:
        cdef Command* command = command_new(INSPECT, INSPECTION_WORDS)
        cdef Inspection** at = &self.inspections
        while at[0] is not NULL:
            at = &at[0].next
        at[0] = inspection
        self.inspection_count += 1
        self.inspections_total += 1
        (<Inspection**>command_topics(command))[0] = inspection
        command.live = blocked
        self.command(command)
        return inspection.number

    cdef bint may_inspect(self) except -1:
        self.check_running()
        return self.inspection_count < INSPECTIONS_MAX

    def inspect(self, handles):
        cdef list wanted = [<uint64_t>one for one in handles]
        cdef Inspection* inspection
        cdef uint64_t handle
        if len(wanted) > NATIVE_ROWS_MAX:
            raise ValueError(f"at most {NATIVE_ROWS_MAX} handles")
        if not self.may_inspect():
            return 0
        inspection = inspection_new(self.inspections_total + 1, <uint32_t>len(wanted))
        for one in wanted:
            handle = one
            if not self.is_current(handle):
                handle = 0     # No row has the generation 0.
            inspection_rows(inspection)[inspection.count].handle = handle
            inspection.count += 1
        return self.start_inspection(inspection, False)

    def inspect_blocked(self, uint32_t first_slot):
        cdef Inspection* inspection
        if not self.may_inspect():
            return 0
        inspection = inspection_new(self.inspections_total + 1, NATIVE_ROWS_MAX)
        inspection.next_slot = first_slot
        return self.start_inspection(inspection, True)

    cdef int add_notices(
            self, list notices, uint32_t slot, Conn* conn, uint32_t bits) except -1:
        cdef uint64_t handle = slot | <uint64_t>self.generations[slot] << 32
        if bits & STREAM_CLOSED:
            notices.append((
                "closed", handle, conn.channel, REASONS[conn.reason],
                (conn.touched_ds - conn.opened_ds) / 10, conn.events_sent, conn.bytes_sent))
            self.give_back(slot)
            return 0
        if bits & PAGE_SENT:
            notices.append(("page", handle))
        if bits & EXPIRING:
            notices.append(("expiring", handle))
        return 0

    # ---- topics and channels

    cdef Command* with_topics(self, uint32_t kind, topics) except NULL:
        """A command with the topic numbers behind it, each checked before anything is made."""
        cdef tuple numbers = tuple(topics)
        cdef Command* command
        cdef Py_ssize_t index
        for number in numbers:
            if not 0 <= number < 1 << 28:
                raise ValueError(f"topic number {number} is out of range")
        command = command_new(kind, <uint32_t>len(numbers))
        for index in range(len(numbers)):
            command_topics(command)[index] = numbers[index]
        return command

    def add_channel(
            self, uint32_t channel, topics, grants=(), bint quiet=False, bint can_end=False,
            View view=None):
        self.check_running()
        cdef tuple granted = tuple(grants)
        cdef Command* command = self.with_topics(ADD_CHANNEL, (*topics, *granted))
        command.grant_count = <uint32_t>len(granted)
        command.quiet = quiet
        command.can_end = can_end
        if view is not None:
            command.view = view_keep(view.view)
        command.channel = channel
        self.command(command)

    def link(self, topic, uint32_t channel):
        self.check_running()
        cdef Command* command = self.with_topics(LINK, (topic,))
        command.channel = channel
        self.command(command)

    def grant(self, topic, uint32_t channel):
        self.check_running()
        cdef Command* command = self.with_topics(GRANT, (topic,))
        command.channel = channel
        self.command(command)

    def remove_channel(self, uint32_t channel):
        self.check_running()
        cdef Command* command = command_new(REMOVE_CHANNEL, 0)
        command.channel = channel
        self.command(command)

    def end_topic(self, topic, Frame frame):
        cdef Command* command
        self.check_running()
        if frame is not None:
            check_whole(frame)
        command = self.with_topics(END_TOPIC, (topic,))
        if frame is not None:
            command.frame = frame_keep(frame.data)
        self.command(command)

    def remove_topic(self, topic):
        self.check_running()
        self.command(self.with_topics(REMOVE_TOPIC, (topic,)))

    def publish(
            self, Frame frame not None, tuple topics not None, int policy, tuple names=None,
            bytes meta=None):
        cdef Py_ssize_t index
        cdef Run run
        cdef uint32_t[EVENT_TOPICS_MAX] numbers
        if len(topics) > EVENT_TOPICS_MAX:
            raise ValueError(f"an event has at most {EVENT_TOPICS_MAX} topics")
        for index in range(len(topics)):
            numbers[index] = topics[index]
        run_begin(&run, self)
        run_add(&run, frame, numbers, <uint32_t>len(topics), policy, names, meta)

    def wake(self):
        queue_wake(&self.state.queue)

    def drain(self, uint32_t window_ms):
        self.check_running()
        cdef Command* command = command_new(DRAIN, 0)
        command.window_ms = window_ms
        self.command(command)

    # ---- what it knows of itself

    @property
    def pending_commands(self):
        return commands_pending(self)

    @property
    def memory_bytes(self):
        return bytes_held()

    def counters(self):
        counters = &self.state.counters
        known = {
            "connections": relaxed_load(&counters.connections),
            "connections_total": relaxed_load(&counters.connections_total),
            "blocked": relaxed_load(&counters.blocked),
            "deliveries": relaxed_load(&counters.deliveries),
            "sends": relaxed_load(&counters.sends),
            "bytes_sent": relaxed_load(&counters.bytes_sent),
            "heartbeats": relaxed_load(&counters.heartbeats),
            "would_block": relaxed_load(&counters.would_block),
            "missed_edges": relaxed_load(&counters.missed_edges),
            "skipped": relaxed_load(&counters.skipped),
            "gaps_sent": relaxed_load(&counters.gaps_sent),
            "lapped": relaxed_load(&counters.lapped),
            "lag_bytes": relaxed_load(&counters.lag_bytes),
            "ring_entries": relaxed_load(&counters.ring_entries),
            "ring_bytes": relaxed_load(&counters.ring_bytes),
            "channels": relaxed_load(&counters.channels),
            "announced": relaxed_load(&counters.announced),
            "direct": relaxed_load(&counters.direct),
            "pings": relaxed_load(&counters.pings),
            "pongs": relaxed_load(&counters.pongs),
            "renewed": relaxed_load(&counters.renewed),
            "revocations": relaxed_load(&counters.revocations),
            "passed_over": relaxed_load(&counters.passed_over),
            "conflated": relaxed_load(&counters.conflated),
            "filter_errors": relaxed_load(&counters.filter_errors),
            "envelopes": relaxed_load(&counters.envelopes),
        }
        for index, reason in enumerate(REASONS):
            known["closed_" + reason] = relaxed_load(&counters.closed[index])
        return known

    def latency_buckets(self):
        bounds = [BOUNDS_US[index] / 1e6 for index in range(BUCKET_COUNT - 1)]
        counts = [
            relaxed_load(&self.state.counters.latency[index]) for index in range(BUCKET_COUNT)]
        return bounds, counts, relaxed_load(&self.state.counters.latency_sum_us) / 1e6

    # ---- for tests

    def advance_clock(self, uint32_t ms):
        relaxed_add(&self.state.clock_ahead_us, <int64_t>ms * 1000)
        eventfd_write(self.state.queue.wake_fd, 1)

    def limit_records(self, uint32_t count):
        if not 16 <= count <= RECORDS_MAX:
            raise ValueError(f"count must be 16 to {RECORDS_MAX}")
        relaxed_store(&self.state.records_max, count)


cdef int64_t commands_pending(sender) except -1:
    return queue_pending(&(<Sender?>sender).state.queue)


cdef int64_t bytes_held() noexcept:
    return relaxed_load(&native_bytes)


# ---- runs of publishes -------------------------------------------------------------------------

cdef int run_begin(Run* run, sender) except -1:
    (<Sender?>sender).check_running()
    run.state = (<Sender>sender).state
    run.accepted_us = read_clock((<Sender>sender).state)
    return 0


cdef int run_add(
        Run* run, Frame frame, uint32_t* topics, uint32_t count, int policy, tuple names,
        bytes meta) except -1:
    """The next publish. With `names` of its topics, it can be sent to channels with a view. The
    caller holds the sender until `run_end`."""
    cdef uint32_t index
    cdef Facts* facts = NULL
    cdef Command* command
    for index in range(count):
        if topics[index] >= 1 << 28:
            raise ValueError(f"topic number {topics[index]} is out of range")
    if names is not None:
        facts = facts_of(names, meta)
    command = command_new(PUBLISH, count)
    command.facts = facts
    memcpy(command_topics(command), topics, count * sizeof(uint32_t))
    command.frame = frame_keep(frame.data)
    command.policy = <uint8_t>policy
    command.accepted_us = run.accepted_us
    queue_push(&(<State*>run.state).queue, command)
    return 0


cdef void run_end(Run* run) noexcept:
    queue_wake(&(<State*>run.state).queue)
