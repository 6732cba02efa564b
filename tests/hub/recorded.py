"""Channels whose sender notes the calls that it gets."""

from collections.abc import Callable

from fastsse._core import Frame
from fastsse.backbone.memory import MemoryBackbone
from fastsse.config import HistoryOptions
from fastsse.hub.channels import Channels
from fastsse.hub.history import History
from fastsse.hub.resume.options import ReplayOptions
from fastsse.hub.streams import Streams
from fastsse.hub.topics import Rules, Topics
from fastsse.subscriptions import Cursor, Subscription
from tests.hub.onenode import RESPONSE_HEAD


class RecordingSender:
    """Notes what it is commanded; notices are put in by hand."""

    memory_bytes = 0
    free_slot_count = 1
    sealed_count = 0
    pending_commands = 0

    def __init__(self) -> None:
        self.commands: list[tuple[object, ...]] = []
        self.notices: list[tuple[object, ...]] = []
        self.handles = 0
        self.attach_error: Exception | None = None

    def allocate(self) -> int:
        self.handles += 1
        return self.handles

    def attach(
        self, handle: int, fd: int, channel: int, chunked: bool, live: bool, first: list[Frame]
    ) -> None:
        if self.attach_error is not None:
            raise self.attach_error
        self.commands.append(("attach", handle, channel, live))

    def take_notices(self) -> list[tuple[object, ...]]:
        taken, self.notices = self.notices, []
        return taken

    def wake(self) -> None:
        pass

    def page(self, handle: int, frame: Frame | None, live: bool) -> bool:
        self.commands.append(("page", handle, live))
        return True

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments: self.commands.append((name, *arguments))


class Recorded:
    """Channels whose commands are recorded."""

    def __init__(self) -> None:
        self.sender = RecordingSender()
        self.topics = Topics(Rules(HistoryOptions(), "disconnect"), 0)
        self.channels = Channels(self.sender, self.topics)  # type: ignore[arg-type]
        self.streams = Streams(
            self.sender,  # type: ignore[arg-type]
            self.channels,
            History(self.topics, 1 << 20, 0),
            MemoryBackbone(lambda: 0),
            options=ReplayOptions(3000, clean_end=False, memory_bytes=1 << 20),
            now_ms=lambda: 0,
        )

    def open(self, *topics: str, cursor: str = "head") -> int:
        subscription = Subscription(topics, Cursor(cursor))  # type: ignore[arg-type]
        return self.streams.open(subscription, RESPONSE_HEAD, True, 99)

    def end(self, handle: int, channel: int) -> None:
        self.sender.notices.append(("closed", handle, channel, "reset", 1.5, 3, 400))
        self.streams.read_notices()

    def take_commands(self) -> list[tuple[object, ...]]:
        taken, self.sender.commands = self.sender.commands, []
        return taken
