"""The requests of a worker to the hub process, and their answers."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from struct import Struct
from typing import TYPE_CHECKING, Final

from fastsse.backbone import Stretch
from fastsse.bus.client.control import MESSAGE_BYTES_MAX, SUBJECT_BYTES_MAX
from fastsse.bus.client.requests import QUESTIONS_MAX
from fastsse.bus.frames import (
    OF_STREAM,
    SEEK_AFTER,
    SEEK_LAST,
    SEEK_SINCE,
    Fields,
    FrameError,
    FrameKind,
    blob,
    frame,
    pack_evicted,
    pack_position,
    text,
)
from fastsse.bus.history_transfer import evictions_of, send_history
from fastsse.bus.server.broker import Broker
from fastsse.bus.server.memory import HubMemory
from fastsse.entries import pack_entry
from fastsse.errors import FastsseError, InvalidSubscription, Unavailable
from fastsse.positions import parse_id
from fastsse.streamstate import StreamRow
from fastsse.subscriptions import Cursor

if TYPE_CHECKING:
    from fastsse.bus.server.session import Session

__all__ = ["RequestServer"]

READ_BYTES_MAX: Final = 1024 * 1024
SNAPSHOT_BYTES_MAX: Final = 8 * 1024 * 1024
SELECTORS_MAX: Final = 10_000
_NUMBER: Final = Struct("<Q")


class RequestServer:
    """Answers one worker, in order with the log: entries that an answer names were sent before it.
    Loop thread only.

    Arguments:
        session: the worker.
        broker: gives the backbone, the control services and the memory.

    Attributes:
        handlers: for the kinds of frames that ask something.
    """

    def __init__(self, session: "Session", broker: Broker) -> None:
        self.handlers: Final[Mapping[int, Callable[[bytes], None]]] = {
            FrameKind.READ: self._on_read,
            FrameKind.SEEK: self._on_seek,
            FrameKind.NEWEST: self._on_newest,
            FrameKind.ENDS: self._on_ends,
            FrameKind.STREAMS: self._on_streams,
            FrameKind.TOUCHED: self._on_touched,
            FrameKind.ASK: self._on_ask,
            FrameKind.NOTIFY: self._on_notify,
            FrameKind.DUMP: self._on_dump,
        }
        self._session = session
        self._broker = broker
        self._under_way = 0
        self._was_given = False
        self._later: list[tuple[int, int]] = []
        self._asked_early: list[Callable[[], None]] = []

    def live(self) -> None:
        """The worker has the log up to its head, so answers that name a place in it may be sent."""
        later, self._later = self._later, []
        for number, place in later:
            self._say_place(number, place)
        asked_early, self._asked_early = self._asked_early, []
        for ask in asked_early:
            ask()

    def _once_live(self, ask: Callable[[], None]) -> None:
        """Asks when the worker has the log up to its head. An answer that names a later place would
        have it take for read what it has not received."""
        if self._session.is_live:
            ask()
        else:
            self._asked_early.append(ask)

    def _on_read(self, body: bytes) -> None:
        fields = Fields(body)
        number = self._ask(fields)
        after, limit_bytes = fields.position(), fields.u32()
        selectors = fields.texts(SELECTORS_MAX)
        is_of_stream, limit_bytes = limit_bytes & OF_STREAM, limit_bytes & ~OF_STREAM
        limit_bytes = min(limit_bytes, READ_BYTES_MAX)
        done = partial(self._read, number)
        if is_of_stream:
            self._broker.backbone.read_stream(selectors[0], after, limit_bytes, done)
        else:
            self._broker.backbone.read(selectors, after, limit_bytes, done)

    def _read(self, number: int, stretch: Stretch | FastsseError) -> None:
        self._under_way -= 1
        if isinstance(stretch, FastsseError):
            self._fail(FrameKind.FAILED, number, stretch)
            return
        self._broker.fanout.flush()
        entries, through, is_last, evicted, damaged_through, _ = stretch
        if through > self._session.sent_through:
            # The rest comes in the log.
            through, is_last = self._session.sent_through, True
            entries = [entry for entry in entries if entry.position <= through]
        places = pack_position(through) + pack_position(damaged_through)
        head = _NUMBER.pack(number) + places + bytes((is_last,)) + pack_evicted(evicted)
        self._session.send(frame(FrameKind.STRETCH, head, *map(pack_entry, entries)))

    def _on_newest(self, body: bytes) -> None:
        fields = Fields(body)
        number = self._ask(fields)
        count, limit_bytes = fields.u32(), fields.u32()
        selectors = fields.texts(SELECTORS_MAX)
        limit_bytes = min(limit_bytes, SNAPSHOT_BYTES_MAX)
        done = partial(self._read, number)
        self._broker.backbone.newest(selectors, count, limit_bytes, done)

    def _on_seek(self, body: bytes) -> None:
        fields = Fields(body)
        number = self._ask(fields)
        kind, value = fields.u8(), fields.text()
        selectors = fields.texts(SELECTORS_MAX)
        done = partial(self._sought, number)
        if kind != SEEK_AFTER:
            self._broker.backbone.seek(selectors, _cursor_of(kind, value), done)
            return
        place = parse_id(value.encode())
        self._broker.fanout.flush()
        if place is not None and place <= self._broker.fanout.head:
            done(place)
        else:
            self._broker.backbone.seek(selectors, Cursor("after", value), done)

    def _on_ends(self, body: bytes) -> None:
        fields = Fields(body)
        number = self._ask(fields)
        topics = fields.texts(SELECTORS_MAX)

        def done(outcome: dict[str, int] | FastsseError) -> None:
            self._under_way -= 1
            if isinstance(outcome, FastsseError):
                self._fail(FrameKind.FAILED, number, outcome)
                return
            self._broker.fanout.flush()
            ends = [text(topic) + pack_position(place) for topic, place in outcome.items()]
            head = _NUMBER.pack(number) + bytes((self._broker.backbone.has_ended,))
            self._session.send(frame(FrameKind.ENDED_TOPICS, head, *ends))

        self._once_live(partial(self._broker.backbone.ended_topics, topics, done))

    def _on_streams(self, body: bytes) -> None:
        fields = Fields(body)
        number = self._ask(fields)
        topics = fields.texts(SELECTORS_MAX)

        def done(outcome: dict[str, StreamRow] | FastsseError) -> None:
            self._under_way -= 1
            if isinstance(outcome, FastsseError):
                self._fail(FrameKind.FAILED, number, outcome)
                return
            self._broker.fanout.flush()
            rows = [text(topic) + blob(row.encode()) for topic, row in outcome.items()]
            self._session.send(frame(FrameKind.FOUND_STREAMS, _NUMBER.pack(number), *rows))

        self._once_live(partial(self._broker.backbone.find_streams, topics, done))

    def _on_touched(self, body: bytes) -> None:
        fields = Fields(body)
        topic, generation = fields.text(), fields.position()
        fields.end()
        self._broker.backbone.touch_stream(topic, generation)

    def _sought(self, number: int, place: int | FastsseError | None) -> None:
        self._under_way -= 1
        if isinstance(place, FastsseError):
            self._fail(FrameKind.FAILED, number, place)
            return
        self._broker.fanout.flush()
        if place is None or place <= self._session.sent_through or self._session.is_live:
            self._say_place(number, place)
        else:
            self._later.append((number, place))

    def _say_place(self, number: int, place: int | None) -> None:
        """Entries up to the place were passed to the fan-out before. So there is no event between
        the end of a live worker and the place, and its own end is used."""
        end = (
            self._session.sent_through if place is None else min(place, self._session.sent_through)
        )
        found = bytes((place is not None,)) + pack_position(0 if place is None else end)
        self._session.send(frame(FrameKind.PLACE, _NUMBER.pack(number), found))

    def _on_ask(self, body: bytes) -> None:
        fields = Fields(body)
        number = self._ask(fields)
        subject, message = fields.text(SUBJECT_BYTES_MAX), fields.rest()
        if len(message) > MESSAGE_BYTES_MAX:
            raise FrameError("a question that is too long")

        def answer(outcome: bytes | FastsseError) -> None:
            self._under_way -= 1
            if isinstance(outcome, FastsseError):
                self._fail(FrameKind.UNANSWERED, number, outcome)
            else:
                self._session.send(frame(FrameKind.ANSWER, _NUMBER.pack(number), outcome))

        self._broker.services.on_request(self._session.worker, subject, message, answer)

    def _on_notify(self, body: bytes) -> None:
        fields = Fields(body)
        subject, message = fields.text(SUBJECT_BYTES_MAX), fields.rest()
        if len(message) > MESSAGE_BYTES_MAX:
            raise FrameError("a message that is too long")
        self._broker.services.on_message(self._session.worker, subject, message)

    def _on_dump(self, body: bytes) -> None:
        """The worker has just started, and requests the older history."""
        fields = Fields(body)
        through = fields.position()
        fields.end()
        kept = self._broker.kept
        if kept is None or self._was_given:
            raise FrameError("a history that is not to be had")
        self._was_given = True
        kept.when_whole(partial(self._give, kept, through))

    def _give(self, kept: HubMemory, through: int) -> None:
        def end() -> Iterator[bytes]:
            # The worker must receive an event before the evictions that the event caused.
            self._broker.fanout.flush()
            return evictions_of(kept.history)

        send_history(kept.history, self._session.link, 0, through, end)

    def _ask(self, fields: Fields) -> int:
        """Counts a request, and returns its number."""
        self._under_way += 1
        if self._under_way > 2 * QUESTIONS_MAX:
            raise FrameError("too many questions at once")
        return fields.u64()

    def _fail(self, kind: FrameKind, number: int, error: FastsseError) -> None:
        reason = error.reason if isinstance(error, Unavailable) else "backbone"
        self._session.send(frame(kind, _NUMBER.pack(number), text(reason)))


def _cursor_of(kind: int, value: str) -> Cursor:
    """A cursor that says a number. Raises FrameError."""
    if kind not in (SEEK_LAST, SEEK_SINCE) or not value.isdecimal() or len(value) > 19:
        raise FrameError("a place to look for that can't be")
    try:
        return Cursor("last" if kind == SEEK_LAST else "since", int(value))
    except InvalidSubscription as error:
        raise FrameError(str(error)) from None
