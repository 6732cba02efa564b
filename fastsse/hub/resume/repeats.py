"""Detects clients that resume after the same id repeatedly.

A client whose reader limits the length of a line (Go's `bufio.Scanner`: 64 KiB) fails at a larger
event. It resumes after the event before, is sent the large event again, and so on. Such a client
was sent events that follow the id, ended its stream itself, and asks for the same again.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from fastsse.log import get_logger

__all__ = ["RepeatedResumes"]

log = get_logger("hub")
# The newest streams and clients are remembered: two numbers each, about 250 bytes.
REMEMBERED_MAX: Final = 1_000
# Streams in a row that end after the same id before a client is counted; each doubling is logged.
REPEATS_MIN: Final = 5
# A client that is away for longer starts with a new count.
WINDOW_S: Final = 600.0
# Lines at most in each window, however many clients repeat.
LINES_MAX: Final = 100
_BY_CLIENT: Final = ("client_closed", "client_data", "reset")


class _Client:
    __slots__ = ("has_left", "last_s", "streams")

    def __init__(self) -> None:
        self.streams = 0
        self.has_left = True
        self.last_s = 0.0


class RepeatedResumes:
    """Counts streams of one client after one id. Loop thread only; memory is bounded.

    Arguments:
        time: seconds of a monotonic clock.

    Attributes:
        repeated: streams that were opened by such clients.
    """

    def __init__(self, time: Callable[[], float]) -> None:
        self.repeated = 0
        self._time = time
        self._clients: OrderedDict[int, _Client] = OrderedDict()
        self._by_stream: OrderedDict[int, int] = OrderedDict()
        self._lines = 0
        self._lines_from_s = time()

    def resumed(self, stream: int, client: str, selectors: tuple[str, ...], after: bytes) -> None:
        """A client is sent events that follow an id. O(selectors)."""
        key = hash((client, selectors, after))
        now_s = self._time()
        known = self._clients.pop(key, None)
        if known is None or now_s - known.last_s > WINDOW_S:
            known = _Client()
        self._clients[key] = known
        self._by_stream[stream] = key
        for remembered in (self._clients, self._by_stream):
            if len(remembered) > REMEMBERED_MAX:
                remembered.popitem(last=False)
        # Several clients behind one address may resume after one id; their streams stay.
        if not known.has_left:
            return
        known.has_left, known.last_s = False, now_s
        known.streams += 1
        if known.streams >= REPEATS_MIN:
            self.repeated += 1
            self._report(client, after, known.streams, now_s)

    def ended(self, stream: int, reason: str) -> None:
        """A stream has ended. O(1)."""
        key = self._by_stream.pop(stream, None)
        if key is not None and reason in _BY_CLIENT and key in self._clients:
            self._clients[key].has_left = True

    def _report(self, client: str, after: bytes, streams: int, now_s: float) -> None:
        is_doubled = streams % REPEATS_MIN == 0 and (streams // REPEATS_MIN).bit_count() == 1
        if now_s - self._lines_from_s > WINDOW_S:
            self._lines, self._lines_from_s = 0, now_s
        if not is_doubled or self._lines >= LINES_MAX:
            return
        self._lines += 1
        log.warning(
            "A client resumes after the same id again and again. The next event may be too large"
            " for it; max_event bounds events.",
            client=client,
            after=after[:256].decode("utf-8", "replace"),
            streams=streams,
        )
