# The intake of single publishes. A connection offers it what it received; whole requests of the
# usual shape join the batch of the loop's turn, which is published in one call and answered with
# one send a connection. What it does not take it has not changed: the connection reads it as any
# other request, and llhttp says what is wrong with it.
#
# Over 400 lines: a request is read, batched and answered here, without a call between files.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject_SetAttr
from cpython.tuple cimport PyTuple_GET_ITEM
from libc.stdint cimport uint8_t, uint16_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memset

from fastsse._batch cimport EventBatch, KeyedBatch, SharedFields, added
from fastsse._positions cimport Positions
from fastsse.native.blake2 cimport Blake2, blake2_add, blake2_begin, blake2_end
from fastsse.native.place cimport Place, set_place
from fastsse.native.position_id cimport PositionId, write_id, write_number
from fastsse.native.publish_head cimport (
    ACCEPT, AUTHORIZATION, CONNECTION, EXPECT, FORWARDED, HOST, IGNORED, KEY, LENGTH, MEDIA_TYPE, ORIGIN,
    PRODUCER_EPOCH, PRODUCER_ID, PRODUCER_SEQ, REQUEST_ID, SLOW, STREAM_SEQ, TARGET_BYTES_MAX, TRACED,
    HeadBounds, HeaderNames, PublishHead, Text, add_name, is_json, read_publish_head)
from fastsse.native.publish_query cimport OWN_ID_BYTES_MAX, OwnId, take_own_id
from fastsse.native.utf8 cimport is_utf8

from fastsse.directives import Directives, Producer
from fastsse.errors import FastsseError
from fastsse.events import DATA_BYTES, DATA_JSON, DATA_TEXT, Event
from fastsse.streamstate import StreamAsk

cdef extern from * nogil:
    """
    #include <sys/socket.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    /* Without libc, whose function may be cancelled in a program of several threads; making that
       possible costs as much as the rest of it. */
    static long fastsse_send_now(int fd, const char *data, size_t size) {
        return syscall(SYS_sendto, fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0);
    }
    """
    long send_now "fastsse_send_now"(int, const char*, size_t)

cdef enum:
    # As in http/connection.py.
    HEAD = 0
    ANSWERING = 2
    # A batch is published in well under a millisecond, then other work has its turn.
    BATCH_EVENTS_MAX = 256
    BATCH_BYTES_MAX = 1024 * 1024
    # Turns in which a batch is gathered, each with another request at least.
    GATHERED_TURNS_MAX = 32
    # Requests of one connection in one batch.
    PIPELINED_MAX = 64
    BODY_BYTES_MAX = 64 * 1024
    HEAD_BYTES_MAX = 8 * 1024
    HEADERS_MAX = 64
    # Bounds of the caches. A full one is emptied.
    TARGETS_MAX = 16384
    TARGETS_BYTES_MAX = 4 * 1024 * 1024
    KNOWN_MAX = 1024
    DIGESTS_MAX = 2            # Media types of one target.
    DIGEST_BYTES = 16          # As in directives.py.
    HOSTS_MAX = 1000
    # Header lines of an answer that depend on the request.
    LINES_BYTES_MAX = 1024
    # Length, line ends, `{"id":""}` and the id.
    ANSWER_BYTES_MAX = 64 + OWN_ID_BYTES_MAX
    # Of a producer: longer ids and larger numbers are left to the connection.
    PRODUCER_BYTES_MAX = 256
    PRODUCER_DIGITS_MAX = 15
    KEY_BYTES_MAX = 256
    STREAM_SEQ_BYTES_MAX = 256
    OFFSET_DIGITS = 16
    # An answer to an append: heads, offset, lines for a producer.
    APPENDED_BYTES_MAX = 512

cdef uint8_t KIND_JSON = DATA_JSON, KIND_TEXT = DATA_TEXT, KIND_BYTES = DATA_BYTES

# The names that a publish may have in addition to those that no route reads.
MEANINGS = {
    b"accept": ACCEPT,
    b"accept-encoding": IGNORED,
    b"authorization": AUTHORIZATION,
    b"cache-control": IGNORED,
    b"connection": CONNECTION,
    b"content-length": LENGTH,
    b"content-type": MEDIA_TYPE,
    b"host": HOST,
    b"idempotency-key": KEY,
    b"if-match": EXPECT,
    b"origin": ORIGIN,
    b"producer-epoch": PRODUCER_EPOCH,
    b"producer-id": PRODUCER_ID,
    b"producer-seq": PRODUCER_SEQ,
    b"proxy-connection": SLOW,
    b"referer": IGNORED,
    b"sec-fetch-mode": IGNORED,
    b"stream-seq": STREAM_SEQ,
    b"traceparent": IGNORED,
    b"tracestate": IGNORED,
    b"upgrade": SLOW,
    b"user-agent": IGNORED,
    b"x-forwarded-for": FORWARDED,
    b"x-request-id": REQUEST_ID,
}


cdef bint same_secret(Text given, bytes known) noexcept:
    """Compares in a time that does not depend on where the two differ."""
    cdef const char* other = PyBytes_AS_STRING(known)
    cdef uint8_t difference = 0
    cdef size_t i
    if <size_t>PyBytes_GET_SIZE(known) != given.size:
        return False
    for i in range(given.size):
        difference |= <uint8_t>(given.at[i] ^ other[i])
    return difference == 0


cdef bint same(Text given, bytes known) noexcept:
    return (<size_t>PyBytes_GET_SIZE(known) == given.size
            and not memcmp(given.at, PyBytes_AS_STRING(known), given.size))


cdef bytes bytes_of(Text text):
    return PyBytes_FromStringAndSize(text.at, text.size)


cdef bytes value_of(Text text):
    """A header's value; None when the request does not have it."""
    return None if text.at is NULL else bytes_of(text)


cdef class Lane:
    """What the intake uses of a connection; the base class of `http.connection.Connection`.

    What no request needs Python for is here: bytes that the intake takes, and the way back to
    waiting. A connection implements `on_data` for all other bytes, `on_answered`, `on_waiting`,
    `answer_taken`, `refuse_taken` and `break_taken`. `_is_within` says that a part of a head was read.
    """

    cdef int state
    cdef bint is_flushed                # the transport has nothing to send
    cdef public bint _choked, _at_eof, _is_within
    cdef public bytes _kept             # not parsed yet
    cdef public object _transport, _wait
    cdef int fd                         # -1: not known yet, -2: never to be written to here
    cdef Intake intake
    cdef object idle                    # the wait in which it was marked
    cdef double idle_since_s            # when

    def __cinit__(self):
        self.fd = -1
        self._kept = b""

    @property
    def _state(self):
        return self.state

    @_state.setter
    def _state(self, int state):
        # Each answer that Python writes is followed by a change of the state.
        self.state, self.is_flushed = state, False

    def _join_intake(self, Intake intake):
        """Sets where received bytes go first; None: to `on_data`."""
        self.intake = intake

    def data_received(self, bytes data not None):
        """Of the transport."""
        cdef Py_ssize_t size = 0
        if self.intake is not None and self.state == HEAD:
            if not (self._is_within or self._choked or self._kept):
                size = self.intake.take_all(self, data)
                if size == PyBytes_GET_SIZE(data):
                    return
        self.on_data(data[size:] if size else data)

    cdef int settle(self, Intake intake, double lately_s) except -1:
        """Its publishes are answered: it waits for the next request, since `lately_s`."""
        if (intake.is_draining or self._at_eof or self._kept or self._wait is not self.idle
                or self.idle_since_s != lately_s):
            self.idle, self.idle_since_s = intake.deadlines.idle, lately_s
            self.on_answered()
        else:
            self.state = HEAD
        return 0

    cdef int find_fd(self) except? -3:
        """The descriptor to send on. It is the transport's, which closes it only after the
        connection has left ANSWERING. So a transport that is closing is no obstacle."""
        if self.fd == -1:
            transport = self._transport
            self.fd = -2
            if transport.get_extra_info("sslcontext") is None:
                self.fd = transport.get_extra_info("socket").fileno()
        return self.fd

    cdef int answer(self, const char* out, size_t size) except -1:
        """Writes answers: directly when nothing is waiting to be sent before them."""
        cdef long sent = 0
        cdef int fd = self.find_fd()
        transport = self._transport
        if fd >= 0 and not self._choked and self.has_flushed():
            # It never waits, so releasing the GIL would cost more than it gives.
            sent = send_now(fd, out, size)
            if sent < 0:
                sent = 0                # The transport meets the same error, or waits.
        if <size_t>sent < size:
            self.is_flushed = False
            transport.write(PyBytes_FromStringAndSize(out + sent, size - sent))
        return 0

    cdef bint has_flushed(self) except -1:
        if not self.is_flushed:
            self.is_flushed = not self._transport.get_write_buffer_size()
        return self.is_flushed


cdef class Tally:
    """A count that native code adds to."""

    cdef public uint64_t count


cdef class BegunDigest:
    """The digest of requests, up to the body.

    Arguments:
        text: what distinguishes them besides the body.
    """

    cdef Blake2 begun

    def __init__(self, bytes text not None):
        blake2_begin(&self.begun, DIGEST_BYTES)
        blake2_add(&self.begun, Text(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text)))

    def of_body(self, bytes body not None):
        return self.digest(body)

    cdef bytes digest(self, bytes body):
        cdef char length[24]
        cdef uint8_t digest[DIGEST_BYTES]
        cdef size_t size = PyBytes_GET_SIZE(body), digits = write_number(length, size)
        cdef Blake2 state = self.begun
        length[digits] = c':'
        blake2_add(&state, Text(&length[0], digits + 1))
        blake2_add(&state, Text(PyBytes_AS_STRING(body), size))
        blake2_end(&state, digest, DIGEST_BYTES)
        return PyBytes_FromStringAndSize(<char*>digest, DIGEST_BYTES)


cdef class KnownTarget:
    """What a request target says about a publish.

    Arguments:
        target: the parsed target.
        event: an event with everything that the target says, and no data.
    """

    cdef readonly object target
    cdef readonly tuple topics
    cdef SharedFields shared            # None: it says nothing but topics
    cdef tuple fields                   # of the event, in the order of `EVENT_FIELDS`
    cdef object rights                  # the last that covered the topics
    cdef dict digests                   # of the target and a media type, begun

    def __init__(self, target, event):
        self.target = target
        self.digests = {}
        self.topics = event.topics
        self.fields = fields_of(event)
        if event.directives is None and self.fields != fields_of(Event(event.topics)):
            self.shared = SharedFields(event)

    cdef bint is_covered(self, object rights) except -1:
        if rights is None or rights is self.rights:
            return True
        if not rights.covers_publish(self.topics):
            return False
        self.rights = rights
        return True

    cdef bytes digest_of(self, object digested, bytes media_type, bytes body):
        """The digest of a request with a key. `digested` gives what begins that of a target and a
        media type."""
        cdef void* found = <void*>PyDict_GetItem(self.digests, media_type)
        cdef BegunDigest begun = <BegunDigest>found if found is not NULL else None
        if begun is None:
            if len(self.digests) >= DIGESTS_MAX:
                self.digests.clear()
            begun = self.digests[media_type] = BegunDigest(digested(self.target, media_type))
        return begun.digest(body)

    cdef int add_event(
        self, EventBatch events, bytes data, uint8_t kind, bytes own_id, object directives
    ) except -1:
        """Adds an event of this target. Everything in it was checked."""
        cdef Py_ssize_t i
        if directives is None:
            events.add(self.topics, data, kind, self.shared, own_id)
            return 0
        event = Event.__new__(Event)
        for i in range(len(self.fields)):
            PyObject_SetAttr(event, <object>PyTuple_GET_ITEM(EVENT_FIELDS, i),
                             <object>PyTuple_GET_ITEM(self.fields, i))
        event.data, event.data_kind, event.id = data, kind, own_id
        event.direct(directives)
        events.append(event)
        return 0


# What a target decides. The others come from each request.
cdef tuple EVENT_FIELDS = tuple([name for name in Event.__slots__ if name not in ("data", "data_kind", "id")])


def fields_of(event):
    return tuple([getattr(event, name) for name in EVENT_FIELDS])


cdef class OpenStream(KnownTarget):
    """A durable stream that takes appends, as a request that was appended has shown.

    Arguments:
        raw: the request target, by which it is found.
        event: an event of its content, with what each append asks and no data.
        content_type: the header of its appends.
        scope: what stands before the id of a producer in its key.
        encode: gives the data of a body as it is kept, None for a body that is not plainly one
            event; None: a body of text is kept as it is, and one of bytes as base64.
    """

    cdef readonly bytes raw
    cdef readonly bytes content_type
    cdef bytes scope
    cdef object encode, asked
    cdef uint8_t kind

    def __init__(self, raw, event, content_type, scope, encode):
        # Without what only other targets need: there may be very many of these.
        self.topics = event.topics
        self.shared = SharedFields(event.undirected()) if event.private else None
        self.raw, self.content_type, self.scope, self.encode = raw, content_type, scope, encode
        self.asked, self.kind = event.directives, event.data_kind

    @property
    def generation(self):
        """The generation of the stream."""
        return self.asked.stream.generation

    cdef bytes data_of(self, const char* body, size_t size):
        """The data of an append; None when it is to be looked at more closely."""
        if self.kind == KIND_BYTES:
            return base64_of(<const uint8_t*>body, size)
        if self.encode is not None:
            return self.encode(PyBytes_FromStringAndSize(body, size))
        if memchr(body, c'\r', size) is not NULL or not is_utf8(body, size):
            return None
        return PyBytes_FromStringAndSize(body, size)

    cdef object ask_of(self, Text seq):
        """What it asks of the stream; None when its `Stream-Seq` is not plainly right."""
        if seq.at is NULL:
            return self.asked.stream
        if not 0 < seq.size <= STREAM_SEQ_BYTES_MAX:
            return None
        if is_blank(seq.at[0]) or is_blank(seq.at[seq.size - 1]):
            return None
        return new_tuple(StreamAsk, ("append", self.asked.stream.generation, bytes_of(seq)))

    cdef object directives_of(self, Text name, Text epoch, Text sequence, Text seq):
        """What an append asks; None when its producer is not plainly right."""
        cdef uint64_t epoch_number = 0, sequence_number = 0
        ask = self.ask_of(seq)
        if ask is None:
            return None
        if name.at is NULL and epoch.at is NULL and sequence.at is NULL:
            return self.asked if seq.at is NULL else directives_with(None, ask)
        if not 0 < name.size <= PRODUCER_BYTES_MAX or is_blank(name.at[name.size - 1]):
            return None
        if not read_whole(epoch, &epoch_number) or not read_whole(sequence, &sequence_number):
            return None
        producer = new_tuple(
            Producer, (self.scope + bytes_of(name), epoch_number, sequence_number, True))
        return directives_with(producer, ask)


cdef const char* BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


cdef bytes base64_of(const uint8_t* at, size_t size):
    """Bytes as base64 with padding (RFC 4648 4), without line ends."""
    cdef bytes text = PyBytes_FromStringAndSize(NULL, (size + 2) // 3 * 4)
    cdef char* out = PyBytes_AS_STRING(text)
    cdef uint8_t second, third
    while size:
        second = at[1] if size > 1 else 0
        third = at[2] if size > 2 else 0
        out[0] = BASE64[at[0] >> 2]
        out[1] = BASE64[(at[0] & 3) << 4 | second >> 4]
        out[2] = BASE64[(second & 15) << 2 | third >> 6] if size > 1 else c'='
        out[3] = BASE64[third & 63] if size > 2 else c'='
        out += 4
        if size < 3:
            break
        at += 3
        size -= 3
    return text


cdef object directives_with(producer, ask):
    return new_tuple(
        Directives, (None, False, None, None, None, None, producer, ask, None, None, None))


cdef bytes key_of(bytes scope, Text text):
    """A key with its scope: 1 to 256 printable characters, in quotes or not; None for any other."""
    cdef size_t i, scope_bytes = PyBytes_GET_SIZE(scope)
    cdef bytes key
    while text.size and is_blank(text.at[text.size - 1]):
        text.size -= 1
    if text.size > 1 and text.at[0] == c'"' == text.at[text.size - 1]:
        text.at, text.size = text.at + 1, text.size - 2
    if not 0 < text.size <= KEY_BYTES_MAX:
        return None
    for i in range(text.size):
        if not 0x20 <= text.at[i] <= 0x7e:
            return None
    key = PyBytes_FromStringAndSize(NULL, scope_bytes + text.size)
    memcpy(PyBytes_AS_STRING(key), PyBytes_AS_STRING(scope), scope_bytes)
    memcpy(PyBytes_AS_STRING(key) + scope_bytes, text.at, text.size)
    return key


cdef inline bint is_blank(char one) noexcept:
    return one == c' ' or one == c'\t'


cdef bint read_whole(Text text, uint64_t* number) noexcept:
    """Reads a number without leading zeros; an absent one is none."""
    cdef size_t i
    if not 0 < text.size <= PRODUCER_DIGITS_MAX or (text.size > 1 and text.at[0] == c'0'):
        return False
    for i in range(text.size):
        if not c'0' <= text.at[i] <= c'9':
            return False
        number[0] = number[0] * 10 + <uint64_t>(text.at[i] - c'0')
    return True


cdef object new_tuple = tuple.__new__


cdef class KnownPublisher:
    """What credentials are worth, as judged before.

    Arguments:
        rights: what they may publish; None: everything.
        still: whether that holds; asked once in a turn of the loop.
        scope: what stands before its keys.
    """

    cdef readonly object rights
    cdef object still
    cdef bytes scope
    cdef uint64_t turn

    def __init__(self, rights, still, bytes scope not None):
        self.rights, self.still, self.scope = rights, still, scope


cdef inline object at_or_none(list column, Py_ssize_t at):
    return None if column is None else column[at]


cdef class Batch:
    """Requests that are published in one call: runs of them, each of one connection."""

    cdef Intake intake
    cdef EventBatch events
    cdef list lanes, targets
    # Columns that are None while none of their values is anything else.
    cdef list own_ids                   # of each request; of an append lines for its producer
    cdef list headers                   # of each run: the few that its answer depends on
    cdef list appends                   # of each run: an append to a durable stream as it came
    cdef list keys, digests             # of each request with a key
    cdef uint16_t counts[BATCH_EVENTS_MAX]
    cdef size_t size                    # requests
    cdef size_t appended[2]             # appends that were answered: without a producer, with one
    cdef size_t data_bytes
    cdef bint ends_run                  # nothing may join the last run
    cdef bint is_answered
    cdef bint is_waiting                # it counts as unanswered

    def __cinit__(self, Intake intake):
        self.intake = intake
        self.events = EventBatch()
        self.lanes, self.targets = [], []

    cdef bint has_room(self) noexcept:
        return self.size < BATCH_EVENTS_MAX and self.data_bytes < BATCH_BYTES_MAX

    cdef int begin_run(self, Lane lane, RunHeaders headers, bytes append) except -1:
        """The next requests are of a connection."""
        cdef Py_ssize_t runs = len(self.lanes)
        self.headers = added(self.headers, headers, runs)
        self.appends = added(self.appends, append, runs)
        # One that is given back is not overtaken.
        self.ends_run = headers is not None or append is not None
        self.counts[runs] = 0
        self.lanes.append(lane)
        return 0

    cdef int add(self, KnownTarget target, bytes own_id, bytes key, bytes digest, size_t data_bytes) except -1:
        """A request of the last run, whose event was added."""
        self.own_ids = added(self.own_ids, own_id, self.size)
        if key is not None or self.keys is not None:
            self.keys = added(self.keys, key, self.size)
            self.digests = added(self.digests, digest, self.size)
        self.targets.append(target)
        self.counts[len(self.lanes) - 1] += 1
        self.size += 1
        self.data_bytes += data_bytes
        return 0

    cdef int publish(self) except -1:
        """Publishes all of it; the answers follow now or later."""
        intake = self.intake
        try:
            events = self.all_events()
            positions = intake.publish_now(events)
            if positions is None:
                intake.unanswered += 1
                self.is_waiting = True
                intake.publish(events, self.done)
                intake.answers_later = not self.is_answered
            else:
                self.is_answered = True
                intake.answers_later = False
                self.acknowledge(positions, ())
        except Exception:
            intake.policy.on_failed()
            self.end_wait()
            for run, lane in enumerate(self.lanes):
                if not self.give_back(run):
                    lane.break_taken(self.targets_of(run), at_or_none(self.headers, run))
        if not self.is_answered:
            self.wait()
        return 0

    cdef int wait(self) except -1:
        """Has connections wait for their answers. One that waits as idle stays there: its deadline
        looks at its state."""
        cdef Lane lane
        idle = self.intake.deadlines.idle
        for lane in self.lanes:
            if lane._wait is not idle:
                lane.on_waiting()
        return 0

    cdef int end_wait(self) noexcept:
        self.is_answered = True
        if self.is_waiting:
            self.is_waiting = False
            self.intake.unanswered -= 1
        return 0

    cdef object all_events(self):
        return self.events if self.keys is None else KeyedBatch(self.events, self.keys, self.digests)

    def done(self, outcome):
        """The hub has published or refused it."""
        self.end_wait()
        if isinstance(outcome, FastsseError):
            self.refuse(outcome)
        elif type(outcome) is list:
            self.answer_each(outcome)
        else:
            self.acknowledge(outcome.positions, outcome.repeats)

    cdef int refuse(self, object error) except -1:
        for run, lane in enumerate(self.lanes):
            if not self.give_back(run):
                lane.refuse_taken(error, self.targets_of(run), at_or_none(self.headers, run))
        return 0

    cdef bint give_back(self, size_t run) except -1:
        """Lets the connection read an append that was refused, or known already, as any other
        request: what it is answered depends on the stream. Nothing of it was stored now."""
        cdef bytes data = at_or_none(self.appends, run)
        if data is None:
            return False
        self.intake.streams.pop((<OpenStream?>self.targets_of(run)[0]).raw, None)
        self.lanes[run].give_back(data)
        return True

    cdef int answer_each(self, list outcomes) except -1:
        """Some were published and some refused."""
        cdef size_t run, first = 0, count
        cdef Place place
        for run, lane in enumerate(self.lanes):
            count = self.counts[run]
            if at_or_none(self.appends, run) is not None:
                if type(outcomes[first]) is int:
                    set_place(&place, outcomes[first])
                    self.answer_append(run, first, place, self.intake.deadlines.lately_s)
                else:
                    self.give_back(run)
                first += count
                continue
            ids = [
                one if isinstance(one, FastsseError)
                else at_or_none(self.own_ids, at) or position_text(place_of(one))
                for at, one in enumerate(outcomes[first:first + count], first)
            ]
            lane.answer_taken(ids, self.targets_of(run), at_or_none(self.headers, run))
            first += count
        self.count_appends()
        return 0

    cdef list targets_of(self, size_t run):
        cdef size_t i, first = 0
        for i in range(run):
            first += self.counts[i]
        return self.targets[first:first + self.counts[run]]

    cdef int answer_append(self, size_t run, size_t at, Place place, double lately_s) except -1:
        """Answers an append that was stored. It is the only request of its run."""
        cdef Intake intake = self.intake
        cdef Lane lane = self.lanes[run]
        cdef RunHeaders headers = at_or_none(self.headers, run)
        cdef bytes lines = intake.lines if headers is None else headers.lines
        cdef bytes for_producer = at_or_none(self.own_ids, at)
        if intake.is_draining:
            lines += CLOSE_LINE
        size = intake.write_appended(lines, place, for_producer)
        if lane.state == ANSWERING:                # Else it is gone.
            lane.answer(intake.out, size)
            lane.settle(intake, lately_s)
        self.appended[for_producer is not None] += 1
        return 0

    cdef int count_appends(self) except -1:
        """Counts the appends that were answered."""
        if self.appended[0]:
            self.intake.policy.on_appended(204, self.appended[0])
        if self.appended[1]:
            self.intake.policy.on_appended(200, self.appended[1])
        return 0

    cdef int acknowledge(self, object positions, object repeats) except -1:
        """`repeats` are the places of those that were stored before."""
        cdef Intake intake = self.intake
        cdef Positions in_row = positions if type(positions) is Positions else None
        cdef double lately_s = intake.deadlines.lately_s
        cdef size_t appended = 0
        cdef size_t run, i, count, size, at = 0
        cdef Lane lane
        cdef RunHeaders headers
        cdef Place place
        cdef bytes lines
        for run in range(<size_t>len(self.lanes)):
            lane, headers, count = self.lanes[run], at_or_none(self.headers, run), self.counts[run]
            if at_or_none(self.appends, run) is not None:
                if repeats and at in repeats:
                    self.give_back(run)
                else:
                    if in_row is not None:
                        place = in_row.at(at)
                    else:
                        set_place(&place, positions[at])
                    self.answer_append(run, at, place, lately_s)
                at += 1
                appended += 1
                continue
            lines = intake.lines if headers is None else headers.lines
            size = 0
            for i in range(count):
                if intake.is_draining and i + 1 == count:
                    lines += CLOSE_LINE
                if in_row is not None:
                    place = in_row.at(at)
                else:
                    set_place(&place, positions[at])
                size += intake.write_answer(size, lines, place, at_or_none(self.own_ids, at))
                at += 1
            if lane.state == ANSWERING:            # Else it is gone.
                lane.answer(intake.out, size)
                lane.settle(intake, lately_s)
        intake.answered.count += at - appended
        self.count_appends()
        return 0


cdef class RunHeaders:
    """Headers of a request that its answer, or the line in a log, depends on.

    Arguments:
        lines: header lines of the answer.
        headers: by lower-case name.
    """

    cdef readonly bytes lines
    cdef readonly dict headers

    def __init__(self, lines, headers):
        self.lines, self.headers = lines, headers


cdef class Intake:
    """Takes publishes from the connections of one listener. Loop thread only.

    Arguments:
        policy: decides what is taken, see `http.intake`.
        names: lower-case names of the headers that a request keeps; one without a meaning here
            leaves the request to its connection.
        loop: the event loop.
        deadlines: where connections wait.
        answer_head: an answer up to the number in its Content-Length.
        lines: header lines of every answer to a request without `Origin`.
        is_traced: publishes whose trace is recorded are left to their connection.

    `is_on`, `is_draining` and `counts_clients` are set from outside. While it is draining, connections close after
    their answer.
    """

    cdef HeaderNames names
    cdef HeadBounds bounds
    cdef readonly object policy
    cdef Tally answered
    cdef object publish, publish_now, digested, call_soon, flush_now, deadlines
    cdef bytes answer_head, lines, host
    cdef dict targets, publishers, hosts
    cdef bytes last_raw                 # the last target without an own id
    cdef KnownTarget last_target
    cdef dict streams                   # open ones, by request target
    cdef bytes streams_path, appended_head, appended_line, appended_tail, producer_head, producer_tail
    cdef size_t targets_bytes
    cdef KnownPublisher publisher       # the last one, and its header
    cdef bytes authorization
    cdef Batch batch
    cdef list full                      # batches before it
    cdef char* out
    cdef PositionId id                  # the last one that was written
    cdef uint64_t turn
    cdef int taken_in_turn              # and in the turns before it in which the batch was gathered
    cdef int gathered, gathered_turns   # of it, up to the last turn; those turns
    cdef bint answers_later             # the last batch was not answered when it was published
    cdef int unanswered                 # batches
    cdef bint is_scheduled, is_lone
    cdef public bint is_on, is_draining, keeps_forwarded, counts_clients
    cdef readonly uint64_t taken, batches

    def __cinit__(self):
        memset(&self.names, 0, sizeof(HeaderNames))
        self.out = NULL
        self.id.stem_bytes = 0

    def __init__(
        self, policy, names, loop, deadlines, bytes answer_head not None, bytes lines not None,
        bint is_traced=False
    ):
        self.policy, self.publish, self.publish_now = policy, policy.publish, policy.publish_now
        self.digested, self.answered = policy.digested, policy.answered
        self.call_soon = loop.call_soon
        self.deadlines = deadlines
        self.flush_now = self.flush
        self.answer_head, self.lines, self.host = answer_head, lines, b""
        self.targets, self.publishers, self.hosts = {}, {}, {}
        self.streams, self.streams_path = {}, b""
        self.appended_head = self.appended_line = self.appended_tail = b""
        self.producer_head = self.producer_tail = b""
        self.bounds = HeadBounds(HEAD_BYTES_MAX, HEADERS_MAX, BODY_BYTES_MAX)
        self.batch, self.full = Batch(self), []
        self.is_on = True
        for name in {*MEANINGS, *names}:
            meaning = MEANINGS.get(name, SLOW)
            if is_traced and name == b"traceparent":
                meaning = TRACED
            if not add_name(&self.names, name, len(name), meaning):
                raise ValueError("a header name does not fit")
        self.out = <char*>PyMem_Malloc(
            PIPELINED_MAX * (len(answer_head) + LINES_BYTES_MAX + ANSWER_BYTES_MAX))
        if self.out is NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_Free(self.out)

    def take_appends(
        self, bytes path not None, dict streams not None, heads, bytes line not None, tails
    ):
        """Takes appends to durable streams too.

        Arguments:
            path: of all of them, with a slash at its end.
            streams: those that are open, an OpenStream for each request target.
            heads: of the answers without and with a producer, up to the offset.
            line: behind the offset; the lines for a producer follow.
            tails: of both, up to the header lines of all answers.
        """
        if sum(map(len, (*heads, line, *tails))) > APPENDED_BYTES_MAX:
            raise ValueError("the answer does not fit")
        self.streams_path, self.streams = path, streams
        self.appended_head, self.producer_head = heads
        self.appended_line = line
        self.appended_tail, self.producer_tail = tails

    def limit(self, size_t head_bytes, size_t headers, size_t body_bytes):
        """Bounds what is taken. Connections keep the limits of their time, so these only fall."""
        self.bounds.head_bytes = min(self.bounds.head_bytes, head_bytes)
        self.bounds.headers = min(self.bounds.headers, headers)
        self.bounds.body_bytes = min(self.bounds.body_bytes, body_bytes)

    def offer(self, Lane lane not None, bytes data not None):
        """As a connection's `data_received` does, for bytes that it has kept."""
        return self.take_all(lane, data)

    cdef Py_ssize_t take_all(self, Lane lane, bytes data) except -1:
        """Takes whole publishes from the front of `data`; returns their bytes. 0: nothing was
        changed. The connection must be between two requests."""
        cdef const char* begin = PyBytes_AS_STRING(data)
        cdef const char* end = begin + PyBytes_GET_SIZE(data)
        cdef const char* at = begin
        cdef Py_ssize_t size
        cdef int count = 0
        if not self.is_on or self.is_draining:
            return 0
        while at < end and count < PIPELINED_MAX:
            size = self.take(lane, at, end, count)
            if size == 0:
                break
            at += size
            count += 1
            if self.batch.ends_run or not self.batch.has_room():
                break
        if count:
            lane.state = ANSWERING             # What comes meanwhile is kept.
            self.on_joined(count)
        return at - begin

    cdef Py_ssize_t take(self, Lane lane, const char* at, const char* end, int before) except -1:
        """Takes one publish; returns its bytes, 0 when there is none. `before`: how many of the
        same connection have just joined."""
        cdef PublishHead head
        cdef OwnId own
        cdef KnownTarget target
        cdef KnownPublisher publisher
        cdef RunHeaders headers = None
        cdef bytes own_id, body, key = None, digest = None
        cdef uint8_t kind
        cdef object directives = None
        cdef bint is_append
        cdef Py_ssize_t size
        if not read_publish_head(&self.names, &self.bounds, at, end, &head):
            return 0
        size = head.size + head.body_bytes
        if end - at < size:
            return 0
        at += head.size
        if not self.is_host(head.values[HOST]):
            return 0
        publisher = self.publisher_of(head.values[AUTHORIZATION])
        if publisher is None:
            return 0
        is_append = self.is_of_streams(head.target)
        if is_append:
            own.size = 0
            target = self.streams.get(bytes_of(head.target))
        else:
            target = self.target_of(head.target, &own)
        if target is None or not target.is_covered(publisher.rights):
            return 0
        if head.values[ORIGIN].at is not NULL or head.values[REQUEST_ID].at is not NULL or (
            self.keeps_forwarded and head.values[FORWARDED].at is not NULL
        ):
            headers = self.headers_of(&head)
            if headers is None or before:
                return 0
        if is_append:
            return 0 if before else self.take_append(lane, target, publisher, headers, &head, at)
        if not is_utf8(at, head.body_bytes) or is_of_stream(&head):
            return 0
        kind = KIND_JSON if is_json(head.values[MEDIA_TYPE]) else KIND_TEXT
        own_id = PyBytes_FromStringAndSize(own.text, own.size) if own.size else None
        body = PyBytes_FromStringAndSize(at, head.body_bytes)
        if head.values[EXPECT].at is not NULL:
            directives = self.directives_of(target, publisher, &head, body)
            if directives is None or own_id is not None:
                return 0
        elif head.values[KEY].at is not NULL:
            key = key_of(publisher.scope, head.values[KEY])
            if key is None or own_id is not None:
                return 0
            digest = target.digest_of(self.digested, value_of(head.values[MEDIA_TYPE]), body)
        if self.counts_clients and not self.policy.counts(lane, publisher.rights, headers):
            return 0
        if before == 0:
            self.begin_run(lane, headers, None)
        batch = self.batch
        target.add_event(batch.events, body, kind, own_id, directives)
        batch.add(target, own_id, key, digest, head.body_bytes)
        return size

    cdef int begin_run(self, Lane lane, RunHeaders headers, bytes append) except -1:
        """The next requests of the batch are of a connection."""
        if not self.batch.has_room():
            self.full.append(self.batch)
            self.batch = Batch(self)
        return self.batch.begin_run(lane, headers, append)

    cdef bint is_of_streams(self, Text target) noexcept:
        cdef size_t size = PyBytes_GET_SIZE(self.streams_path)
        return (size > 0 and target.size > size
                and not memcmp(target.at, PyBytes_AS_STRING(self.streams_path), size))

    cdef Py_ssize_t take_append(
        self, Lane lane, OpenStream stream, KnownPublisher publisher, RunHeaders headers,
        PublishHead* head, const char* body
    ) except -1:
        """Takes one append, the only request of its run; returns its bytes, 0 when it is not plainly
        right."""
        cdef bytes data, for_producer = None
        cdef object directives
        cdef Batch batch
        cdef Text epoch = head.values[PRODUCER_EPOCH], sequence = head.values[PRODUCER_SEQ]
        cdef Py_ssize_t size = head.size + head.body_bytes
        if head.values[KEY].at is not NULL or head.values[EXPECT].at is not NULL:
            return 0
        if head.values[MEDIA_TYPE].at is NULL or not same(head.values[MEDIA_TYPE], stream.content_type):
            return 0
        directives = stream.directives_of(
            head.values[PRODUCER_ID], epoch, sequence, head.values[STREAM_SEQ])
        if directives is None:
            return 0
        data = stream.data_of(body, head.body_bytes)
        if data is None:
            return 0
        if self.counts_clients and not self.policy.counts(lane, publisher.rights, headers):
            return 0
        if epoch.at is not NULL:
            for_producer = b"Producer-Epoch: %b\r\nProducer-Seq: %b\r\n" % (bytes_of(epoch), bytes_of(sequence))
        self.begin_run(lane, headers, PyBytes_FromStringAndSize(body - head.size, size))
        batch = self.batch
        batch.events.add(stream.topics, data, stream.kind, stream.shared, None, directives)
        batch.add(stream, for_producer, None, None, head.body_bytes)
        return size

    cdef object directives_of(
        self, KnownTarget target, KnownPublisher publisher, PublishHead* head, bytes body
    ):
        """What `If-Match` asks, and a key of the same request; None when that needs a closer look."""
        return self.policy.directives(
            target, publisher.rights, value_of(head.values[KEY]), value_of(head.values[EXPECT]),
            value_of(head.values[MEDIA_TYPE]), body)

    cdef int on_joined(self, int count) except -1:
        """Has the batch published: at once when the turn before had one request, this one has one so
        far, and no batch waits for the store; else at the end of the turn."""
        cdef bint is_first = self.taken_in_turn == 0
        self.taken_in_turn += count
        if not self.is_scheduled:
            self.is_scheduled = True
            self.call_soon(self.flush_now)
        if is_first and self.is_lone and count == 1 and not self.full and not self.unanswered:
            self.publish_batch()
        return 0

    cdef bint gathers(self) noexcept:
        """Whether the batch waits for what the next turn brings: where the store takes its time, a
        batch costs more than the wait. It ends with a turn that brings nothing."""
        if (not self.answers_later or self.full or not self.batch.size or not self.batch.has_room()
                or self.taken_in_turn == self.gathered or self.gathered_turns == GATHERED_TURNS_MAX):
            self.gathered = self.gathered_turns = 0
            return False
        self.gathered = self.taken_in_turn
        self.gathered_turns += 1
        return True

    def flush(self):
        """The end of a turn."""
        self.turn += 1
        if self.gathers():
            self.call_soon(self.flush_now)
            return
        self.is_scheduled = False
        self.is_lone = self.taken_in_turn == 1
        self.taken_in_turn = 0
        self.publish_batch()
        if self.full or self.batch.lanes:
            self.is_scheduled = True
            self.call_soon(self.flush_now)

    cdef int publish_batch(self) except -1:
        cdef Batch batch
        if self.full:
            batch = self.full.pop(0)
        elif self.batch.lanes:
            batch, self.batch = self.batch, Batch(self)
        else:
            return 0
        self.batches += 1
        self.taken += batch.size
        batch.publish()
        return 0

    cdef bint is_host(self, Text host) except -1:
        """Whether a Host is served. The check is O(1) for one that was accepted lately."""
        if same(host, self.host):
            return True
        text = bytes_of(host)
        if text not in self.hosts:
            if not self.policy.serves_host(text):
                return False
            if len(self.hosts) >= HOSTS_MAX:
                self.hosts.clear()
            self.hosts[text] = None
        self.host = text
        return True

    cdef KnownPublisher publisher_of(self, Text authorization):
        """What credentials are worth; None when that is not known at once."""
        cdef KnownPublisher publisher = self.publisher
        cdef bytes header = None
        if publisher is None or not (
            self.authorization is None if authorization.at is NULL
            else self.authorization is not None and same_secret(authorization, self.authorization)
        ):
            if authorization.at is not NULL:
                header = bytes_of(authorization)
            publisher = self.publishers.get(header)
            if publisher is None:
                publisher = self.policy.publisher(header)
                if publisher is None:
                    return None
                if len(self.publishers) >= KNOWN_MAX:
                    self.publishers.clear()
                self.publishers[header] = publisher
                publisher.turn = self.turn
            self.publisher, self.authorization = publisher, header
        if publisher.turn != self.turn:
            if not publisher.still():
                self.publisher = None
                self.publishers.pop(self.authorization, None)
                return None
            publisher.turn = self.turn
        return publisher

    def distrust(self):
        """Judges every publisher again, from the next request on."""
        self.turn += 1

    cdef KnownTarget target_of(self, Text target, OwnId* own):
        """What a target says, without its own id; None when the intake does not serve it."""
        cdef char rest[TARGET_BYTES_MAX]
        cdef size_t rest_bytes
        cdef bytes raw
        own.size = 0
        if self.last_raw is not None and same(target, self.last_raw):
            return self.last_target
        if not take_own_id(target, rest, &rest_bytes, own):
            return None
        raw = PyBytes_FromStringAndSize(rest, rest_bytes) if own.size else bytes_of(target)
        if raw in self.targets:
            known = self.targets[raw]
        else:
            known = self.policy.target(raw)
            self.targets_bytes += len(raw)
            if len(self.targets) >= TARGETS_MAX or self.targets_bytes > TARGETS_BYTES_MAX:
                self.targets.clear()
                self.targets_bytes = len(raw)
            self.targets[raw] = known
        if own.size == 0:
            self.last_raw, self.last_target = raw, known
        return known

    def forget_targets(self):
        """Reads each target again when it comes next. What was taken is published before."""
        while self.full or self.batch.lanes:
            self.publish_batch()
        self.targets.clear()
        self.targets_bytes = 0
        self.last_raw = self.last_target = None

    cdef RunHeaders headers_of(self, PublishHead* head):
        cdef dict headers = {}
        cdef bytes lines = self.lines
        if head.values[ORIGIN].at is not NULL:
            headers[b"origin"] = bytes_of(head.values[ORIGIN])
            lines = self.policy.origin_lines(headers[b"origin"])
            if lines is None:
                return None
        if head.values[REQUEST_ID].at is not NULL:
            headers[b"x-request-id"] = bytes_of(head.values[REQUEST_ID])
            lines += self.policy.request_id_line(headers)
        if self.keeps_forwarded and head.values[FORWARDED].at is not NULL:
            headers[b"x-forwarded-for"] = bytes_of(head.values[FORWARDED])
        return RunHeaders(lines, headers) if len(lines) <= LINES_BYTES_MAX else None

    cdef size_t write_answer(self, size_t begin, bytes lines, Place place, bytes own_id) except 0:
        """Writes one answer into `out`; returns its bytes."""
        cdef const char* id_text
        cdef size_t id_bytes
        cdef char* out = self.out + begin
        if own_id is None:
            id_bytes = write_id(&self.id, place)
            id_text = self.id.text
        else:
            id_text, id_bytes = PyBytes_AS_STRING(own_id), PyBytes_GET_SIZE(own_id)
        out = put(out, PyBytes_AS_STRING(self.answer_head), PyBytes_GET_SIZE(self.answer_head))
        out += write_number(out, id_bytes + 10)
        out = put(out, b"\r\n", 2)
        out = put(out, PyBytes_AS_STRING(lines), PyBytes_GET_SIZE(lines))
        out = put(out, b'\r\n{"id":"', 9)
        out = put(out, id_text, id_bytes)
        out = put(out, b'"}\n', 3)
        return out - self.out - begin


    cdef size_t write_appended(self, bytes lines, Place place, bytes for_producer) except 0:
        """Writes the answer to an append into `out`; returns its bytes. `for_producer` are lines."""
        cdef bytes head = self.appended_head if for_producer is None else self.producer_head
        cdef bytes tail = self.appended_tail if for_producer is None else self.producer_tail
        cdef char* out = self.out
        out = put_bytes(out, head)
        out = put_hex(out, place.ms)
        out[0] = c'_'
        out = put_hex(out + 1, place.n)
        out = put_bytes(out, self.appended_line)
        if for_producer is not None:
            out = put_bytes(out, for_producer)
        out = put_bytes(out, tail)
        out = put_bytes(out, lines)
        out = put(out, b"\r\n", 2)
        return out - self.out


CLOSE_LINE = b"Connection: close\r\n"


cdef inline bint is_of_stream(PublishHead* head) noexcept:
    return (head.values[PRODUCER_ID].at is not NULL or head.values[PRODUCER_EPOCH].at is not NULL
            or head.values[PRODUCER_SEQ].at is not NULL or head.values[STREAM_SEQ].at is not NULL)


cdef object place_of(object outcome):
    """The position of one that was published, also of one that was known already."""
    return outcome if type(outcome) is int else outcome.positions[0]


cdef inline char* put_bytes(char* out, bytes text) noexcept:
    return put(out, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))


cdef inline char* put_hex(char* out, uint64_t number) noexcept:
    """Writes a number with all its hexadecimal digits; returns the end."""
    cdef int i
    for i in range(OFFSET_DIGITS):
        out[OFFSET_DIGITS - 1 - i] = b"0123456789abcdef"[number & 15]
        number >>= 4
    return out + OFFSET_DIGITS


cdef inline char* put(char* out, const char* text, size_t size) noexcept:
    memcpy(out, text, size)
    return out + size


cdef bytes position_text(object position):
    cdef PositionId id
    cdef Place place
    id.stem_bytes = 0
    set_place(&place, position)
    return PyBytes_FromStringAndSize(id.text, write_id(&id, place))
