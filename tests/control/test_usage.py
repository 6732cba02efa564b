"""Limits hold for a service of several workers."""

from collections.abc import Callable, Iterable

from fastsse.control.service import MemoryControlStore, Services
from fastsse.control.usage import SUBJECT, Usage, UsageClient, UsageService


class Node:
    """A control service and its workers, without processes between them."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[bytes], None]] = []
        self.workers: list[Worker] = []
        self.renew()

    def renew(self) -> None:
        """The control service is a new one."""
        self.services = Services(
            {SUBJECT: UsageService},
            self._broadcast,
            MemoryControlStore(),
            lambda events, done: done(True),
        )

    def _broadcast(self, subject: str, message: bytes) -> None:
        for on_broadcast in self.listeners:
            on_broadcast(message)


class Worker:
    """A control, and what its worker heard of others."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.worker = len(node.workers)
        node.workers.append(self)
        self.on_back: list[Callable[[], None]] = []
        self.later: list[Callable[[], None]] = []
        self.others: dict[tuple[int, str], int] = {}
        self.usage = UsageClient(self, lambda _, call: self.later.append(call), self.heard)

    def ask(self, subject: str, message: bytes, done: Callable[[bytes], None]) -> None:
        self.node.services.on_request(self.worker, subject, message, done)  # type: ignore[arg-type]

    def notify(self, subject: str, message: bytes) -> None:
        self.node.services.on_message(self.worker, subject, message)

    def notify_pages(self, subject: str, pages: Iterable[bytes]) -> None:
        for page in pages:
            self.notify(subject, page)

    def listen(self, subject: str, on_broadcast: Callable[[bytes], None]) -> None:
        self.node.listeners.append(on_broadcast)

    def heard(self, use: Usage) -> None:
        self.others[use[:2]] = self.others.get(use[:2], 0) + use.streams

    def turn(self) -> None:
        """Time passes."""
        calls, self.later = self.later, []
        for call in calls:
            call()


def test_what_is_used_in_one_worker_is_known_in_the_others_and_goes_with_it() -> None:
    node = Node()
    one, other = Worker(node), Worker(node)
    one.usage.used(Usage(0, "x", streams=1, opens=1))
    one.usage.used(Usage(0, "x", streams=1))
    one.turn()
    assert (one.others, other.others) == ({}, {(0, "x"): 2})
    late = Worker(node)
    assert late.others == {(0, "x"): 2}
    node.services.on_worker_gone(one.worker)
    assert (other.others, late.others) == ({(0, "x"): 0}, {(0, "x"): 0})


def test_a_new_control_service_receives_held_streams_and_counts_each_once() -> None:
    node = Node()
    one, other = Worker(node), Worker(node)
    for worker in (one, other):
        worker.usage.used(Usage(1, "=ann", streams=2))
        worker.turn()
    one.usage.used(Usage(1, "=ann", streams=1))
    node.renew()
    for worker in (one, other):
        for call in worker.on_back:
            call()
    for _ in range(2):
        one.turn()
        other.turn()
    assert (one.others, other.others) == ({(1, "=ann"): 2}, {(1, "=ann"): 3})
    node.services.on_worker_gone(other.worker)
    assert one.others == {(1, "=ann"): 0}
