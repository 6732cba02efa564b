"""A history with a clock of its own."""

from dataclasses import dataclass

from fastsse._core import Frame, encode_frame
from fastsse.config import HistoryOptions, TopicRule
from fastsse.hub.history import History
from fastsse.hub.topics import Rules, Topic, Topics
from fastsse.positions import position_at

START = position_at(1_000_000)

SECOND = 1000


@dataclass
class Made:
    """A history and the means to fill it."""

    history: History
    topics: Topics
    history_options: HistoryOptions
    now_ms: int = 1_000_000
    n: int = 0

    def add(self, *names: str, size: int = 50, own_id: bytes | None = None) -> int:
        """Appends an event whose body is `size` bytes and returns its position."""
        self.n += 1
        position = position_at(self.now_ms) + self.n
        frame = encode_frame(b"x" * (size - len(b"data: \n\n")), None, None, 0, position)
        assert frame.size == size
        self.history.append(frame, tuple(map(self.topics.intern, names)), own_id)
        return position

    def select(self, *names: str) -> list[Topic] | None:
        return None if names == ("*",) else [self.topics.intern(name) for name in names]

    def kept(self, *names: str, after: int = 0) -> list[int]:
        """Positions that a reader of these topics gets, read in one page."""
        page = self.history.page(self.select(*names), after, 1 << 40)
        assert page.is_last
        assert page.through == self.history.head
        return positions(page.frames)

    def lost_through(self, *names: str) -> int:
        return self.history.evicted_through(self.select(*names))


def positions(frames: list[Frame]) -> list[int]:
    return [frame.position for frame in frames]


def make(*rules: TopicRule, **options: object) -> Made:
    history_options = HistoryOptions(topics=rules, **options)  # type: ignore[arg-type]
    topics = Topics(Rules(history_options, "disconnect"), START)
    history = History(topics, history_options.history_total, START)
    return Made(history, topics, history_options)
