"""Control services: the facts that workers of a node share outside the log.

Some facts have one place in a node: which tickets are valid, which tokens were revoked, which
streams are present. That place is a `Service`, one for each subject; it lives in the hub's
process, or in the only worker. Workers reach it through a `ControlClient`: they send requests and
messages to it, and listen to its broadcasts. A message is bytes; only its subject's service and
clients know what they mean. Loop thread only.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final, Protocol, runtime_checkable

from fastsse.control.cluster import (
    Answer,
    NodeMessaging,
    OneTimeStore,
    OwnedValues,
    Roster,
)
from fastsse.errors import FastsseError
from fastsse.events import Event
from fastsse.paging import Pager

__all__ = [
    "Answer",
    "Broadcast",
    "ControlClient",
    "ControlStore",
    "LocalControlClient",
    "MakeService",
    "MemoryControlStore",
    "NoService",
    "OneTimeStore",
    "Publish",
    "Service",
    "Services",
]

Publish = Callable[[Sequence[Event], Callable[[bool], None]], None]
"""Publishes a control service's events. The second argument is called once with whether they were
published. A control service that publishes much waits for this call before it publishes more."""


class Broadcast:
    """A control service's way to all workers. Loop thread only.

    Arguments:
        send: sends one message to every worker.
        pager: for messages that are too many for one turn; None sends all at once.
    """

    __slots__ = ("_pager", "_send")

    def __init__(self, send: Callable[[bytes], None], pager: Pager | None = None) -> None:
        self._send = send
        self._pager = pager

    def __call__(self, message: bytes) -> None:
        """Sends a message, in order with answers."""
        self._send(message)

    def pages(self, messages: Iterable[bytes]) -> None:
        """Sends messages, one a turn, while every worker's connection has room. Each is made when
        it is sent."""
        if self._pager is not None:
            self._pager.add(messages, self._send)
        else:
            for message in messages:
                self._send(message)


class NoService(FastsseError):
    """A subject has no service."""


class ControlClient(Protocol):
    """A worker's way to its node's control services."""

    @property
    def worker(self) -> int:
        """This worker's number, from 0."""

    @property
    def is_alone(self) -> bool:
        """Whether there is no other worker, in this node or another."""

    @property
    def on_back(self) -> list[Callable[[], None]]:
        """Callbacks for when the control services were replaced. The new ones know of this worker
        only what survives a restart, so every sender of earlier messages sends them again."""

    def ask(self, subject: str, message: bytes, done: Answer) -> None:
        """Sends a request to the subject's control service. `done` is called once with the answer,
        within the call or later, or with an error if the control service can't be reached. It may
        have received the request even then."""

    def notify(self, subject: str, message: bytes) -> None:
        """Sends the subject's control service a message without an answer. In order with `ask`."""

    def notify_pages(self, subject: str, pages: Iterable[bytes]) -> None:
        """Sends the subject's control service messages without answers, one a turn, while the
        connection has room. Each is made when it is sent. Nothing is sent while the control service
        can't be reached, and the rest is dropped when the connection is lost. Start again in
        `on_back`."""

    def listen(self, subject: str, on_broadcast: Callable[[bytes], None]) -> None:
        """Calls `on_broadcast` with each broadcast of the subject's control service from now on.
        May be called with several listeners for one subject."""


class ControlStore(Protocol):
    """What a control service keeps over restarts: little, and all of it in memory. Writes reach the
    disk or the other nodes soon after. A service that needs a stronger guarantee appends an
    event."""

    def get(self, key: str) -> bytes | None: ...

    def put(self, key: str, value: bytes | None) -> None:
        """Sets a key, or removes it with None."""

    def when_stored(self, done: Callable[[bool], None]) -> None:
        """Calls `done` with true when what was put before survives this process, where the store
        does; with false if it could not be written."""

    def take(self, key: str, done: Callable[[bool | None], None]) -> None:
        """Removes a key, and reports whether it was there; None while that is not known. Of several
        at the same time one gets true, on all nodes."""

    def items(self, prefix: str = "") -> Sequence[tuple[str, bytes]]:
        """The pairs whose keys begin so, in the order of keys."""

    def listen(self, prefix: str, changed: Callable[[str, bytes], None]) -> None:
        """Calls `changed` with each value that another node puts under a key with this prefix; of
        the schedule, which is taken from, with an empty value for a key that is gone."""

    @property
    def one_time_store(self) -> OneTimeStore | None:
        """The store that all nodes share for values that are used once; None: each control service
        has its own."""

    @property
    def messaging(self) -> NodeMessaging | None:
        """Sends messages to other nodes; None if there can be no other node."""

    @property
    def roster(self) -> Roster | None:
        """Lists the streams of all nodes; None: each node knows its own."""

    @property
    def owned(self) -> OwnedValues | None:
        """What one node keeps for all: subscriptions to durable streams; None if there can be no
        other node."""


class Service(Protocol):
    """Holds the facts of one subject, for all workers of a node."""

    def on_request(self, worker: int, message: bytes, answer: Answer) -> None:
        """Handles a request of a worker. Call `answer` once, within the call or later."""

    def on_message(self, worker: int, message: bytes) -> None:
        """Handles a message of a worker."""

    def on_worker_gone(self, worker: int) -> None:
        """A worker ended or was killed. It may start again under the same number."""


@runtime_checkable
class ClosingService(Protocol):
    """A control service with timers of its own."""

    def close(self) -> None:
        """Ends them."""


MakeService = Callable[[Broadcast, ControlStore, Publish], Service]
"""Makes a subject's control service. It gets a broadcast to all workers, a store, and a way to
publish."""


class MemoryControlStore:
    """A `ControlStore` that ends with its process."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}

    def get(self, key: str) -> bytes | None:
        """The value, or None. O(1)."""
        return self._values.get(key)

    def put(self, key: str, value: bytes | None) -> None:
        """Sets or removes. O(1)."""
        if value is None:
            self._values.pop(key, None)
        else:
            self._values[key] = value

    def when_stored(self, done: Callable[[bool], None]) -> None:
        """At once: nothing survives."""
        done(True)

    def take(self, key: str, done: Callable[[bool | None], None]) -> None:
        """O(1)."""
        done(self._values.pop(key, None) is not None)

    def items(self, prefix: str = "") -> Sequence[tuple[str, bytes]]:
        """O(keys log keys)."""
        return sorted(pair for pair in self._values.items() if pair[0].startswith(prefix))

    def listen(self, prefix: str, changed: Callable[[str, bytes], None]) -> None:
        """There are no other nodes."""

    @property
    def one_time_store(self) -> OneTimeStore | None:
        """None."""
        return None

    @property
    def messaging(self) -> NodeMessaging | None:
        """None."""
        return None

    @property
    def roster(self) -> Roster | None:
        """None."""
        return None

    @property
    def owned(self) -> OwnedValues | None:
        """None."""
        return None


class _PrefixedControlStore:
    """The part of the node's store that belongs to one control service."""

    def __init__(self, store: ControlStore, prefix: str) -> None:
        self._store = store
        self._prefix = prefix

    def get(self, key: str) -> bytes | None:
        return self._store.get(self._prefix + key)

    def put(self, key: str, value: bytes | None) -> None:
        self._store.put(self._prefix + key, value)

    def when_stored(self, done: Callable[[bool], None]) -> None:
        self._store.when_stored(done)

    def take(self, key: str, done: Callable[[bool | None], None]) -> None:
        self._store.take(self._prefix + key, done)

    def items(self, prefix: str = "") -> Sequence[tuple[str, bytes]]:
        cut = len(self._prefix)
        pairs = self._store.items(self._prefix + prefix)
        return [(key[cut:], value) for key, value in pairs]

    def listen(self, prefix: str, changed: Callable[[str, bytes], None]) -> None:
        cut = len(self._prefix)
        self._store.listen(self._prefix + prefix, lambda key, value: changed(key[cut:], value))

    @property
    def one_time_store(self) -> OneTimeStore | None:
        return self._store.one_time_store

    @property
    def messaging(self) -> NodeMessaging | None:
        return self._store.messaging

    @property
    def roster(self) -> Roster | None:
        return self._store.roster

    @property
    def owned(self) -> OwnedValues | None:
        return self._store.owned


class Services:
    """All control services of a node, by subject.

    Arguments:
        makers: makes each subject's control service.
        broadcast: carries a message of a subject to every worker's listeners.
        store: the node's; each control service gets the part of it under its subject's name.
        publish: for control services that announce something.
        pager: for broadcasts of many messages; None sends them at once.
    """

    def __init__(
        self,
        makers: Mapping[str, MakeService],
        broadcast: Callable[[str, bytes], None],
        store: ControlStore,
        publish: Publish,
        pager: Pager | None = None,
    ) -> None:
        def to_all(subject: str) -> Broadcast:
            return Broadcast(partial(broadcast, subject), pager)

        self._services: Final = {
            subject: make(to_all(subject), _PrefixedControlStore(store, f"{subject}/"), publish)
            for subject, make in makers.items()
        }

    def __iter__(self) -> Iterator[str]:
        return iter(self._services)

    def __getitem__(self, subject: str) -> Service:
        return self._services[subject]

    def on_request(self, worker: int, subject: str, message: bytes, answer: Answer) -> None:
        """Passes a request on; answers with NoService if the subject has no control service."""
        service = self._services.get(subject)
        if service is None:
            answer(NoService(subject))
        else:
            service.on_request(worker, message, answer)

    def on_message(self, worker: int, subject: str, message: bytes) -> None:
        """Passes a message on; drops it if the subject has no control service."""
        service = self._services.get(subject)
        if service is not None:
            service.on_message(worker, message)

    def close(self) -> None:
        """Ends the timers of control services that have some."""
        for service in self._services.values():
            if isinstance(service, ClosingService):
                service.close()

    def on_worker_gone(self, worker: int) -> None:
        """Notifies every control service that a worker ended."""
        for service in self._services.values():
            service.on_worker_gone(worker)


class LocalControlClient:
    """The control client of the only worker: its control services are in the same process, and
    answer within the call if they can.

    Arguments:
        makers: as `Services` takes them.
        store: keeps what must survive restarts; None keeps nothing.
        publish: for control services that announce something.
    """

    worker: Final = 0

    def __init__(
        self, makers: Mapping[str, MakeService], publish: Publish, store: ControlStore | None = None
    ) -> None:
        self._listeners: dict[str, list[Callable[[bytes], None]]] = {}
        self.on_back: Final[list[Callable[[], None]]] = []  # They are never called.
        store = store or MemoryControlStore()
        self.is_alone: Final = store.messaging is None
        self._pager = Pager()
        self.services: Final = Services(makers, self._broadcast, store, publish, self._pager)

    def ask(self, subject: str, message: bytes, done: Answer) -> None:
        """As Control."""
        self.services.on_request(self.worker, subject, message, done)

    def notify(self, subject: str, message: bytes) -> None:
        """As Control."""
        self.services.on_message(self.worker, subject, message)

    def notify_pages(self, subject: str, pages: Iterable[bytes]) -> None:
        """As Control."""
        self._pager.add(pages, partial(self.notify, subject))

    def listen(self, subject: str, on_broadcast: Callable[[bytes], None]) -> None:
        """As Control."""
        self._listeners.setdefault(subject, []).append(on_broadcast)

    def _broadcast(self, subject: str, message: bytes) -> None:
        for on_broadcast in self._listeners.get(subject, ()):
            on_broadcast(message)
