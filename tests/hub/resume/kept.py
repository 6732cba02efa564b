"""A history of numbered events, and where streams begin in it."""

from fastsse._core import encode_frame
from fastsse.config import HistoryOptions, TopicRule
from fastsse.hub.history import History
from fastsse.hub.resume.cursor import GapEvent, ReplayCursor, begin, begin_at
from fastsse.hub.topics import Rules, Topics
from fastsse.positions import format_position, position_at
from fastsse.subscriptions import Cursor
from tests.hub.readers import Audience, memory_pages, read

START = position_at(1000)


def text(position: int) -> str:
    return format_position(position).decode()


class Kept:
    """A history of numbered events: event n of a topic lies at START + n."""

    def __init__(self, *topics: str, **options: object) -> None:
        rules = (TopicRule(match="none", history_events=0),)
        history_options = HistoryOptions(topics=rules, **options)  # type: ignore[arg-type]
        self.topics = Topics(Rules(history_options, "disconnect"), START)
        self.history = History(self.topics, history_options.history_total, START)
        for topic in topics:
            self.add(topic)

    def add(self, topic: str, own_id: bytes | None = None) -> None:
        position = self.history.head + 1
        frame = encode_frame(b"x", None, own_id or format_position(position), 0, position)
        self.history.append(frame, (self.topics.intern(topic),), own_id)

    def add_private(self, topic: str, own_id: bytes) -> int:
        position = self.history.head + 1
        frame = encode_frame(b"x", None, own_id, 0, position, True)
        self.history.append(frame, (self.topics.intern(topic),), own_id)
        return position

    def audience(self, *topics: str) -> Audience:
        return Audience(topics, [self.topics.intern(topic) for topic in topics])

    def begin(self, topics: str, cursor: Cursor) -> tuple[ReplayCursor, GapEvent | None]:
        """Where a stream of these topics (`"a b"`) begins when there is nothing but memory."""
        audience = self.audience(*topics.split())
        begun = begin(self.history, audience, cursor)
        return begun or begin_at(self.history, audience, cursor, None)

    def first_gap(self, topics: str, cursor: Cursor) -> GapEvent | None:
        """What the stream receives when it opens."""
        replay, gap = self.begin(topics, cursor)
        pages = memory_pages(self.history)
        return replay.advance(read(pages, self.audience(*topics.split()), replay.after)) or gap

    def first_place(self, topics: str, cursor: Cursor) -> int:
        """The place that its opening names when it receives no gap."""
        replay, gap = self.begin(topics, cursor)
        assert gap is None
        if not replay.is_earliest:
            return replay.after
        audience = self.audience(*topics.split())
        return read(memory_pages(self.history), audience, replay.after).before
