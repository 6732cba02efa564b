"""The worker's end of the bus, as its control client."""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from fastsse.bus.client.connection import HubConnection
from fastsse.bus.client.outbox import TIMEOUT_S
from fastsse.bus.client.requests import PendingRequests
from fastsse.bus.frames import Fields, FrameKind, frame, text
from fastsse.bus.handshake import Welcome
from fastsse.control.service import Answer
from fastsse.errors import FastsseError, Unavailable

__all__ = ["MESSAGE_BYTES_MAX", "SUBJECT_BYTES_MAX", "BusControlClient"]

SUBJECT_BYTES_MAX: Final = 64
MESSAGE_BYTES_MAX: Final = 1024 * 1024
# Bytes of messages kept while there is no hub, and the counted overhead of each.
UNSENT_BYTES_MAX: Final = 4 * 1024 * 1024
_MESSAGE_COST_BYTES: Final = 64


class BusControlClient:
    """A `ControlClient` whose control services are in the hub process. Loop thread only; made by
    `connect`.

    A request gets an error if the hub died, or if there is no answer within ANSWER_S (10 s). The
    control service may have received it. Messages without a hub wait for the next hub, the newest 4
    MiB of them.

    Attributes:
        worker: this worker's number.
        is_alone: there are others.
        on_back: called when there is a hub again, in order: its control services know of this
            worker only
            what survives a restart, and what it sends now. A hub that only lost sight of
            this worker has forgotten it likewise.
    """

    is_alone: Final = False

    def __init__(
        self, connection: HubConnection, worker: int, timeout_s: float = TIMEOUT_S
    ) -> None:
        self.worker: Final = worker
        self.on_back: Final[list[Callable[[], None]]] = []
        self._connection = connection
        self._requests = PendingRequests(connection.send, timeout_s)
        self._unsent: deque[bytes] = deque()
        self._unsent_bytes = 0
        self._listeners: dict[str, list[Callable[[bytes], None]]] = {}
        self._was_up = False
        connection.on_up.append(self._on_up)
        connection.on_down.append(self._requests.on_down)
        connection.on_close.append(self.close)
        connection.handlers.update(
            {
                FrameKind.ANSWER: self._requests.on_answer,
                FrameKind.UNANSWERED: self._requests.on_failure,
                FrameKind.BROADCAST: self._on_broadcast,
            }
        )

    def ask(self, subject: str, message: bytes, done: Answer) -> None:
        """As Control; `message` is at most 1 MiB."""

        def answered(answer: Fields | FastsseError) -> None:
            done(answer if isinstance(answer, FastsseError) else answer.rest())

        if len(message) > MESSAGE_BYTES_MAX:
            done(Unavailable("queue", retry_after_s=1))
            return
        self._requests.ask(FrameKind.ASK, text(subject) + message, answered, may_repeat=False)

    def notify(self, subject: str, message: bytes) -> None:
        """As Control; `message` is at most 1 MiB."""
        if len(message) > MESSAGE_BYTES_MAX:
            raise ValueError(f"a message of more than {MESSAGE_BYTES_MAX} bytes")
        message_frame = frame(FrameKind.NOTIFY, text(subject), message)
        if self._connection.is_up:
            self._connection.send(message_frame)
        else:
            self._keep(message_frame)

    def notify_pages(self, subject: str, pages: Iterable[bytes]) -> None:
        """As Control; a page is at most 1 MiB."""
        if self._connection.is_up:
            head = text(subject)
            self._connection.send_pages(frame(FrameKind.NOTIFY, head, page) for page in pages)

    def _keep(self, message_frame: bytes) -> None:
        """Keeps a message for the next hub; drops the oldest ones above the bound."""
        self._unsent.append(message_frame)
        self._unsent_bytes += len(message_frame) + _MESSAGE_COST_BYTES
        while self._unsent_bytes > UNSENT_BYTES_MAX:
            self._unsent_bytes -= len(self._unsent.popleft()) + _MESSAGE_COST_BYTES

    def listen(self, subject: str, on_broadcast: Callable[[bytes], None]) -> None:
        """As Control."""
        self._listeners.setdefault(subject, []).append(on_broadcast)

    def close(self) -> None:
        """Answers open requests with an error; called when the connection closes."""
        self._requests.close()
        self._listeners.clear()
        self.on_back.clear()

    def _on_up(self, welcome: Welcome) -> None:
        for message_frame in self._unsent:
            self._connection.send(message_frame)
        self._unsent.clear()
        self._unsent_bytes = 0
        self._requests.on_up()
        if self._was_up:
            for called in self.on_back:
                called()
        self._was_up = True

    def _on_broadcast(self, body: bytes) -> None:
        fields = Fields(body)
        subject, message = fields.text(SUBJECT_BYTES_MAX), fields.rest()
        for on_broadcast in self._listeners.get(subject, ()):
            on_broadcast(message)
