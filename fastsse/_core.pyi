"""Types and promises of the native core.

Everything here is for the loop thread, except where it says otherwise. Positions are one Python
int, `(unix_ms << 64) | n`; handles are `slot | generation << 32` and never 0. Over 400 lines: one
file for each native module.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeAlias, final

from fastsse._seal import SealedSocket

QUEUE_MAX: int
"""Callers refuse publishes and new streams while `Sender.pending_commands` is above this."""
EVERY_EVENT: int
"""The topic number (0) of every publish; link a `*` channel to it."""
MAX_CONNECTIONS: int
POLICY_DISCONNECT: int
POLICY_SKIP: int
POLICY_LATEST: int
REASONS: tuple[str, ...]
"""Why a stream ended, in the order of the numbers that `Sender.close` takes."""
REASON_ENDED: int
INSPECTED_ROWS_MAX: int
"""Handles that `Sender.inspect` takes at once."""

def build_facts() -> dict[str, str]:
    """Compiler, Cython and sanitizer that this module was built with."""

def native_bytes_held() -> int:
    """Bytes that all frames, rings, lists and commands of the process hold. Any thread; O(1)."""

def native_frames_alive() -> int:
    """Frames of the process that are still referenced. Any thread; O(1)."""

@final
class Frame:
    """One event or one page of events, encoded once; immutable, freed with its last reference."""

    @property
    def position(self) -> int:
        """Place in the order, 0 when it has none."""
    @property
    def time_ms(self) -> int:
        """Publish time in unix milliseconds, by the clock of the process that ordered it."""
    @property
    def expires_ms(self) -> int:
        """Unix milliseconds from which on it is not sent any more; 0: never. Of a page the first
        of its events."""

    @property
    def lead_ms(self) -> int:
        """How far the millisecond of its position is ahead of its time; mostly 0."""
    @property
    def size(self) -> int:
        """Bytes of the body."""
    @property
    def events(self) -> int:
        """Events in it: 1, or a page's number of them, or 0."""
    @property
    def private(self) -> bool:
        """Whether only channels with a grant get it."""
    @property
    def data_kind(self) -> int:
        """The kind of data that the publisher sent: 0 text, 1 JSON, 2 bytes."""
    @property
    def body(self) -> bytes:
        """A copy of the event-stream bytes, blank line included. O(size)."""
    @property
    def wire(self) -> bytes:
        """A copy of what an HTTP/1.1 client gets: `hex CRLF body CRLF`. O(size)."""

def encode(
    data: str | bytes,
    *,
    event: str | bytes | None = None,
    id: str | bytes | None = None,
    retry: int | None = None,
) -> bytes:
    """Encode one event as event-stream bytes.

    Args:
        data: Text, or UTF-8 bytes. CR, LF and CRLF each end a line; a client joins them with LF.
        event: Event type without CR, LF or NUL.
        id: Event id without CR, LF or NUL.
        retry: Reconnection time in milliseconds, 0 or more; 0 leaves the field out.

    Returns:
        The fields event, retry, id, one `data` line for each line of data, and a blank line.

    Raises:
        ValueError: a field would break the stream, is not UTF-8, or the whole is over 1 GiB.
        TypeError: a field is neither text nor bytes.

    Any thread. Source: WHATWG HTML, 9.2.5 (the event stream format).
    """

def encode_frame(
    data: bytes,
    event: bytes | None,
    id: bytes | None,
    retry_ms: int,
    position: int,
    private: bool = False,
    time_ms: int | None = None,
    data_kind: int = 0,
) -> Frame:
    """The same as a shared frame, for bytes that are known to be UTF-8.

    A private one reaches only channels with a grant, see `Sender.grant`. `time_ms` is when it was
    published, in unix milliseconds (0 to 2**64 - 1); None: at its position's millisecond.
    `data_kind` is what the publisher sent, see `Frame.data_kind`.

    Raises:
        ValueError: CR, LF or NUL in event or id, or over 1 GiB.
        OverflowError: retry_ms, position or time_ms is out of range.
    """

def load_frame(
    body: bytes,
    position: int,
    private: bool,
    time_ms: int | None = None,
    is_event: bool = True,
    data_kind: int = 0,
    expires_ms: int = 0,
) -> Frame:
    """One event that was encoded before, elsewhere: its body as `Frame.body` gave it.

    The bytes are trusted: the caller that reads a socket or a file knows their origin. O(size).
    `time_ms` and `data_kind` as `encode_frame` takes them; without `is_event` it counts as none.

    Raises:
        ValueError: it is empty, which would end a chunked stream, or over 1 GiB.
        OverflowError: position is out of range.
    """

def join_frames(frames: Sequence[Frame], start: int = 0, stop: int | None = None) -> Frame:
    """One page: the bodies of `frames[start:stop]` one after another, in one chunk. O(bytes).

    Raises:
        ValueError: no frame, or over 1 GiB.
    """

def raw_frame(body: bytes) -> Frame:
    """A frame of ready event-stream bytes (an opening block, a gap), at least one.

    Raises:
        ValueError: it is empty, which would end a chunked stream.
    """

def wire_frame(data: bytes) -> Frame:
    """Bytes that are sent as they are, with any coding (a response head), at least one."""

FILTER_STEPS: dict[str, int]
"""The codes of a filter's steps by their names."""
FILTER_ROOTS: tuple[str, ...]
"""The first parts that a path of a filter can have."""

@final
class Filter:
    """An expression as steps on a stack; `fastsse.expressions` makes them. It never changes.

    Args:
        steps: Codes of FILTER_STEPS with their arguments: an index of `paths` for `field` and
            `has`, of `constants` for `const`, of `lists` for `in_list`; else 0.
        constants: Texts, numbers, True, False and None.
        lists: Runs of the constants: the first, and how many.
        paths: A root and the names (str) and indexes (int) behind it.

    Raises:
        ValueError: more than 4,096 of one kind; steps that leave the stack or refer to what is not
            there.
    """

    def __new__(
        cls,
        steps: list[tuple[int, int]],
        constants: list[str | int | float | bool | None],
        lists: list[tuple[int, int]],
        paths: list[tuple[str | int, ...]],
    ) -> Filter: ...
    def test(
        self,
        topics: tuple[str, ...],
        data: bytes,
        event: bytes | None,
        meta: bytes | None,
        data_kind: int = 0,
    ) -> bool | None:
        """Whether an event matches; None where the evaluation is an error. Any thread. O(bytes)."""

@final
class View:
    """Which events a channel is sent, and in which form. It never changes; any thread.

    Args:
        types: Only events of these types; none: every type. `message` is an event without one.
        until: Types; the stream is over behind an event of one of them.
        until_data: It is over behind an event with this data.
        filter: Only events that it matches.
        interval_ms: Of each topic and type only the newest event in each span of so much time; 0:
            every event. Events of several topics are all sent.
        envelope: The data is a JSON object with topic, id, event, data, meta and time.
        mark: How heartbeats move the id past events that are left out: `block` (an id line and a
            blank line), `line` (the id line), `data` (an event with empty data), or not at all.
        notices: Control entries with a block are sent, too; no other part of the view holds for
            them.

    Raises:
        KeyError: another mark.
        TypeError: a text that is not bytes.
    """

    def __new__(
        cls,
        *,
        types: Sequence[bytes] = (),
        until: Sequence[bytes] = (),
        until_data: bytes | None = None,
        envelope: bool = False,
        mark: str = "",
        filter: Filter | None = None,
        interval_ms: int = 0,
        notices: bool = False,
    ) -> View: ...
    def select(
        self,
        frames: list[Frame],
        topics: list[tuple[str, ...]],
        metas: list[bytes | None] | None,
        shown: list[int | None] | None = None,
    ) -> tuple[list[Frame], bool]:
        """What is sent of a run of events, as a replay does it: by the function that channels use.

        Args:
            frames: Events in order.
            topics: The names of each one's topics.
            metas: The meta of each, a JSON object; None: of none.
            shown: The topics of each that may be named, as bits of their places; None: all.

        Returns:
            The frames in the view's form, and whether the stream is over behind the last; then
            those that follow were not looked at. O(bytes).
        """

PageNotice: TypeAlias = tuple[Literal["page"], int]
"""A page of a replaying stream was written to its socket, and the stream needs the next page."""
ClosedNotice: TypeAlias = tuple[Literal["closed"], int, int, str, float, int, int]
"""handle, channel, reason, lifetime in seconds, and events and bytes sent."""
ExpiringNotice: TypeAlias = tuple[Literal["expiring"], int]
"""A stream's token expires in `expiry_notice_ms`; sent once for each attach or renewal."""
InspectedRow: TypeAlias = tuple[int, str, int, int, int, float, float]
"""handle; `opening`, `replaying`, `live`, `blocked` or `closing`; events and bytes sent; bytes not
sent yet, and the age of the oldest, s; seconds since bytes went out."""
InspectedNotice: TypeAlias = tuple[Literal["inspected"], int, list[InspectedRow], int]
"""What `inspect` or `inspect_blocked` asked for: its number, rows, and the slot to go on from."""
Notice: TypeAlias = PageNotice | ClosedNotice | ExpiringNotice | InspectedNotice

Claims: TypeAlias = tuple[int, int, int, int]
"""When it expires (unix milliseconds, 0: never), a hash of the subject (0: none), a hash of the
token (0: none), when that was issued (unix seconds, 0: unknown, and so before any time)."""

@final
class Sender:
    """The sender thread and all that it owns: connection table, channels, rings, sockets.

    Args:
        max_connections: Rows of the table, 1 to 2**24. 80 bytes each, touched as they are used.
        heartbeat_ms: A comment goes to a stream that was idle for 80 to 100 % of this; 0: none.
        max_lag_bytes: How many pending bytes a blocked connection may have before its policy is
            applied.
        max_lag_ms: How old its oldest pending event may be.
        retry_ms: The farewell's `retry:` when draining lies between this and its double.
        tick_ms: How often the clock hand moves, 1 to 1000. It goes round the table in 700 ms.
        ping_ms: A stream that asked for pings gets one after each 80 to 100 % of this; 0: none.
        pong_timeout_ms: It ends, reason `no_pong`, if this time has passed since the first
            unanswered ping; 0: never.
        expiry_notice_ms: How long before a stream expires the loop is notified; 0: no notice.
        lifetime_ms: A stream ends, reason `lifetime`, after 80 to 100 % of this; 0: never.
        clean_end: Whether streams that are drained, expire or are revoked have a last chunk.
        seals: Whether rows may seal TLS records, see `seal`. 64 bytes a row more.
        id_key: 32 bytes that seal stream ids; None takes random ones.
        write_limit_bytes, refuse_every: Faults for tests: at most so many bytes a send; every
            n-th send is refused as if the socket were full. 0: none.

    Raises:
        ValueError: an option is out of bounds.
        OSError: no descriptors for epoll and the two eventfds.

    Call methods on the loop thread only. Commands raise RuntimeError unless the sender runs. Only
    `stop` waits for the sender thread.
    """

    def __init__(
        self,
        *,
        max_connections: int,
        heartbeat_ms: int = 15_000,
        max_lag_bytes: int = 4 * 1024 * 1024,
        max_lag_ms: int = 20_000,
        retry_ms: int = 3_000,
        tick_ms: int = 50,
        ping_ms: int = 0,
        pong_timeout_ms: int = 0,
        expiry_notice_ms: int = 0,
        lifetime_ms: int = 0,
        clean_end: bool = False,
        seals: bool = False,
        id_key: bytes | None = None,
        write_limit_bytes: int = 0,
        refuse_every: int = 0,
    ) -> None: ...
    #: Called in `attach` with a door's number of the connection, and the handle.
    on_waiting: Callable[[int, int], object]

    def start(self) -> None:
        """Starts the thread, with all signals blocked in it. Once."""

    def stop(self) -> None:
        """Ends the thread and frees everything: sockets, descriptors, memory. Waits for the thread.

        Notices that were not taken are lost; counters can still be read. Idempotent.
        """

    @property
    def notice_fd(self) -> int:
        """Readable if `take_notices` has notices."""

    def allocate(self) -> int:
        """A handle for a new connection, or 0 when the table is full. O(1)."""

    def release(self, handle: int) -> None:
        """Frees an allocated slot that was never attached.

        Raises:
            ValueError: the handle is stale.
        """

    @property
    def free_slot_count(self) -> int: ...
    def attach(
        self,
        handle: int,
        fd: int,
        channel: int,
        chunked: bool,
        live: bool,
        first: Iterable[Frame],
        claims: Claims | None = None,
        pings: bool = False,
        heartbeat_s: int = 0,
        pad_bytes: int = 0,
        door_number: int = 0,
    ) -> None:
        """Hands a socket over for good: the sender closes it.

        `first` is sent before anything else. With `live` the connection joins its channel's ring
        exactly here in the order of commands. Without `live` it replays: the last frame of `first`
        is a page, and a `page` notice requests the next one when this page is sent. The sender may
        sleep until `wake` or another command, so that a burst of new streams wakes it once.

        With `claims` it ends within a second of their expiry, and by `revoke`. With `pings` it gets
        events of type `fastsse.ping` without an id line, whose data is `{"stream": id}`, and must
        answer with `pong`. `heartbeat_s` (1 to 31) replaces `heartbeat_ms`. `pad_bytes` (0, or a
        power of two from 1024 to 16384) is the length of its heartbeats.

        With a `door_number` it waits: `on_waiting` is called with that number and the handle, and
        nothing is sent until `seal` or `go_on_plain`.

        Raises:
            ValueError: a stale handle, a replay without a page, other than four claims, or another
                heartbeat. The fd stays the caller's.
            OverflowError: a claim is no unsigned number of 64 bits. The fd stays the caller's.
        """

    def seal(self, handle: int, sealed: SealedSocket) -> bool:
        """Gives a row that waits the client's socket, instead of the pair that it has. All that it
        sends from now on are TLS records with the keys of `sealed`, whose descriptors are the
        sender's from now on. False if it has ended; then the caller keeps them."""

    @property
    def sealed_count(self) -> int:
        """Rows that seal their records now. Any thread."""

    def go_on_plain(self, handle: int) -> bool:
        """Lets a row that waits send plain bytes. False if it has ended."""

    def page(self, handle: int, frame: Frame | None, live: bool) -> bool:
        """Sends the next page of a replaying stream. With `live` it is the last one (None: nothing
        is left).

        Returns:
            False when the stream has ended.
        """

    def close(self, handle: int, reason: int, farewell: Frame | None, is_over: bool = True) -> bool:
        """Ends a stream at its next frame boundary: farewell, last chunk, FIN. False if the handle
        is stale.

        Args:
            is_over: the response is complete. Otherwise the last chunk is omitted, so that the
                client can't mistake a part for the whole (RFC 9112 8).
        """

    def send_direct(self, handle: int, frame: Frame) -> bool:
        """Sends one stream a frame of its own, between any two others. False if it has ended.

        A stream that ends first may not get it (`close` takes a farewell for that). A stream whose
        socket is full may queue `max_lag_bytes`; with the next frame it ends as `lagged`.

        Raises:
            ValueError: a wire frame.
        """

    def announce(self, frame: Frame) -> None:
        """Sends a frame to every present stream of any channel, in the order of commands: a
        replaying stream gets it between earlier and later pages. A reader that lags too far behind
        it is disconnected, whatever the policy of the events. O(1) here, O(channels + rows) in the
        sender thread.

        Raises:
            ValueError: a wire frame.
        """

    def renew(self, handle: int, expires_unix_ms: int, token_hash: int, issued_s: int) -> bool:
        """Gives a stream the claims of a newer token, see Claims. Its subject does not change.

        Returns:
            False if it has ended. After True it may still be ending.
        """

    def revoke(self, subject_hash: int = 0, token_hash: int = 0, issued_before_s: int = 0) -> None:
        """Ends all streams whose claims meet every condition that is not 0, within a second.

        Only present claims count: streams that are attached or renewed later stay, and so do
        streams without claims. `issued_before` means earlier than that second, and includes tokens
        without a time of issue. O(1) here; later a walk over the table for up to 64 revocations at
        a time.

        Raises:
            ValueError: no condition at all.
        """

    def pong(self, handle: int) -> bool:
        """A stream answered all its pings so far. False if it has ended."""

    def stream_id(self, handle: int, ended: bool = False) -> bytes:
        """A stream's public name: 32 lower-case hex digits that can't be guessed. O(1).

        Args:
            ended: the stream may have ended.

        Raises:
            ValueError: the handle is stale.
        """

    def find_stream(self, id: bytes) -> int:
        """The handle of the living stream with this name; 0 for any other bytes."""

    def inspect(self, handles: Sequence[int]) -> int:
        """Asks for the figures of at most INSPECTED_ROWS_MAX connections; stale handles are left
        out.

        Returns:
            The number of the `inspected` notice; 0: too many are under way, ask again later.

        Raises:
            ValueError: too many handles.
        """

    def inspect_blocked(self, first_slot: int) -> int:
        """The same for connections whose socket is full, from a slot on: of at most 4,096 slots.
        The notice says from where to go on; at `max_connections` or above it was the last."""

    def take_notices(self, limit: int = 1024) -> list[Notice]:
        """The notices since the last call, at most `limit`; `notice_fd` stays readable if more
        wait.

        A stream's slot is free again once its `closed` notice was taken.
        """

    def add_channel(
        self,
        channel: int,
        topics: Iterable[int],
        grants: Iterable[int] = (),
        quiet: bool = False,
        can_end: bool = False,
        view: View | None = None,
    ) -> None:
        """Makes a channel, links it to topics and grants it topics. The caller chooses dense
        numbers.

        The streams of a quiet channel take no control events: they end without the last chunk where
        others receive a gap (`announce`, policy `skip`). A channel that can end has topics only,
        and is over when all of them have ended (`end_topic`). A `view` says which events the
        streams are sent, and in which form; None: every event as it is.

        Raises:
            ValueError: a topic number is not below 2**28; nothing was made.
        """

    def end_topic(self, topic: int, frame: Frame | None) -> None:
        """A topic has ended: the streams of channels that have no other topic get `frame` when they
        have everything, then the end of their response; 2,000 of them a second. `frame` has the
        end's position (`load_frame`). None: the topic is open again.

        Raises:
            ValueError: the frame is a wire frame, or the topic number is not below 2**28.
        """

    def link(self, topic: int, channel: int) -> None:
        """Links one more topic: the channel gets its public events. Idempotent."""

    def grant(self, topic: int, channel: int) -> None:
        """Grants one more topic; EVERY_EVENT grants all present and future topics. The channel gets
        private events that have a linked topic and a granted topic, not necessarily the same. O(1);
        `remove_topic` forgets a million grants in one step.
        """

    def remove_channel(self, channel: int) -> None:
        """Forgets a channel. The last closed notice of its streams must have been taken. Its number
        may be used again."""

    def remove_topic(self, topic: int) -> None:
        """Forgets a topic's links, grants and last values; its number may be used again."""

    def publish(
        self,
        frame: Frame,
        topics: tuple[int, ...],
        policy: int,
        names: tuple[str, ...] | None = None,
        meta: bytes | None = None,
    ) -> None:
        """Appends a frame to the ring of every channel that is linked to one of the topics, once
        each.

        O(topics) here, whatever the subscribers. A private frame goes to those only that were
        granted one of the topics, see `grant`. `policy` is one of the POLICY_ constants; a private
        event on several topics with POLICY_LATEST counts as POLICY_SKIP. Channels with a view may
        need the `names` of the topics, and the `meta`. The sender may sleep on
        until `wake` or another command: a batch wakes it once.
        """

    def wake(self) -> None:
        """Wakes the sender to execute commands. Call it after a run of `publish` or `attach`.

        Costs almost nothing without new commands.
        """

    def drain(self, window_ms: int) -> None:
        """Ends all streams spread over the window; each receives its own `retry:`."""

    @property
    def pending_commands(self) -> int: ...
    @property
    def memory_bytes(self) -> int:
        """What `native_bytes_held` says."""

    def counters(self) -> dict[str, int]:
        """The counters of the sender thread, read without stopping it. Any thread."""

    def latency_buckets(self) -> tuple[list[float], list[int], float]:
        """The time from accepting a publish to writing it to the socket: upper bounds in seconds,
        counts (one more, for values above all bounds), and the sum in seconds. Counts are not
        cumulative. Any thread."""

    def advance_clock(self, ms: int) -> None:
        """For tests: lets time pass for lag, heartbeats, pings, expiry and drain."""

    def limit_records(self, count: int) -> None:
        """For tests: streams end as if a key might seal only `count` records, 16 to 2**24."""
