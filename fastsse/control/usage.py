"""What clients use of their limits, sent to every worker, so that limits hold for a whole service.

A worker sends its new usage to the control service ten times a second, when there is any. The
control service sends it to the other workers, which subtract it from the accounts that they judge
by. So every worker judges at once, by itself. A client can exceed its limit only by what several
workers accept within a tenth of a second. When a worker ends, its streams are subtracted.

Where there are other nodes, the control services send each other the usage of all their workers
four times a second. When a node is gone, its streams are subtracted.

There may be very many accounts, so a full list is sent in pages of 1,000. A page is made when it is
sent, with the numbers of that moment.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final, NamedTuple
from weakref import WeakSet

import orjson

from fastsse.control.service import Broadcast, ControlClient, ControlStore, Publish
from fastsse.control.usage_learning import UsageLearning

__all__ = ["SUBJECT", "Account", "Usage", "UsageClient", "UsageService"]

SUBJECT: Final = "shares"
NOTIFY_EVERY_S: Final = 0.1
NOTIFY_NODES_EVERY_S: Final = 0.25
# Accounts in one message: of at most 130 bytes each.
_ACCOUNTS_A_MESSAGE: Final = 1_000
_HELD: Final = b"h"
_END: Final = b"e"
# A broadcast of the control service: a worker has sent what it holds, so the others should ask
# again.
_LEARN: Final = b"?"
# Most letters of an account's name.
_NAME_MAX: Final = 200
# The worker number in messages of the control service itself.
_NOBODY: Final = -1


Account = tuple[int, str]


class Usage(NamedTuple):
    """The usage of one account: its side (0 addresses, 1 subjects) and its name."""

    side: int
    name: str
    streams: int = 0
    opens: int = 0
    publishes: int = 0
    replay: int = 0
    requests: int = 0


class UsageService:
    """Passes usage on, and remembers how many streams of a client each worker holds. Made by
    `service.Services`. A message, also between nodes, is a list of uses; or `h` and a list of held
    streams, and `h` alone after the last page. A broadcast starts with the worker's number."""

    def __init__(self, broadcast: Broadcast, store: ControlStore, publish: Publish) -> None:
        self._broadcast = broadcast
        # By worker number, and by the name of another node.
        self._streams: dict[int | bytes, dict[Account, int]] = {}
        # The usage of ended workers and nodes until it is subtracted, and whether it was a worker.
        self._leaving: list[tuple[bool, dict[Account, int]]] = []
        self._questions: dict[int, list[Account]] = {}
        self._unsent: dict[Account, list[int]] = {}
        self._walks: WeakSet[_Walk] = WeakSet()
        self._messaging = store.messaging
        if self._messaging is not None:
            self._messaging.listen(SUBJECT, self._on_node_message, self._on_node_gone, self._whole)

    def on_message(self, worker: int, message: bytes) -> None:
        """Takes the usage of a worker, what it held under an earlier control service, or an account
        whose oldest stream in another worker must end. O(accounts)."""
        if message[:1] == _END:
            self._end_elsewhere(worker, message[1:])
            return
        if message == _HELD:
            self._broadcast(_LEARN)
            return
        if message[:1] == _HELD:
            held = self._streams.get(worker, {})
            reported = orjson.loads(message[1:])
            uses = [
                Usage(side, name, count - held.get((side, name), 0))
                for side, name, count in reported
            ]
        else:
            uses = [Usage(*use) for use in orjson.loads(message)]
            self._broadcast(b"[%d,%b]" % (worker, message))
        self._hold(worker, uses)
        self._notify_nodes(uses)

    def on_request(self, worker: int, message: bytes, answer: Callable[[bytes], None]) -> None:
        """Answers a worker with a page of the streams of others: where the next page begins (0
        after the last), and the accounts. The request says where to begin."""
        begin = int(message)
        if not begin:
            self._questions[worker] = [one for held in self._others(worker) for one in held]
        accounts = self._questions.get(worker, [])
        page = accounts[begin : begin + _ACCOUNTS_A_MESSAGE]
        end = begin + len(page)
        if end >= len(accounts):
            self._questions.pop(worker, None)
            end = 0
        others = list(self._others(worker))
        answer(orjson.dumps([end, [(*one, _count_of(one, others)) for one in page]]))

    def on_worker_gone(self, worker: int) -> None:
        """The streams of a worker ended with it."""
        self._questions.pop(worker, None)
        self._take_back(worker, is_worker=True)

    def held_here(self) -> Iterator[Mapping[Account, int]]:
        """What each worker of this node holds, or held if it ended and was not subtracted yet."""
        for holder, held in self._streams.items():
            if isinstance(holder, int):
                yield held
        yield from (held for is_worker, held in self._leaving if is_worker)

    def unsent(self, account: Account) -> int:
        """Streams of an account that other nodes have not received yet."""
        sums = self._unsent.get(account)
        return 0 if sums is None else sums[0]

    def _others(self, worker: int) -> Iterator[Mapping[Account, int]]:
        """What each other worker and node holds."""
        yield from (held for holder, held in self._streams.items() if holder != worker)
        yield from (held for _, held in self._leaving)

    def _end_elsewhere(self, asker: int | bytes, message: bytes) -> None:
        """Has another worker end a stream of an account, or another node if no worker has one."""
        side, name = orjson.loads(message)
        holders = [one for one, held in self._streams.items() if held.get((side, name), 0) > 0]
        for holder in sorted(holders, key=lambda one: isinstance(one, bytes)):
            if isinstance(holder, int) and holder != asker:
                self._broadcast(_END + orjson.dumps((holder, side, name)))
                return
            if isinstance(holder, bytes) and isinstance(asker, int):
                assert self._messaging is not None
                self._messaging.send(SUBJECT, _END + message, holder)
                return

    def _hold(self, holder: int | bytes, uses: Iterable[Usage]) -> None:
        held = self._streams.setdefault(holder, {})
        for use in uses:
            account = use[:2]
            count = held.get(account, 0) + use.streams
            if count:
                held[account] = count
            else:
                held.pop(account, None)

    def _take_back(self, holder: int | bytes, *, is_worker: bool) -> None:
        held = self._streams.pop(holder, {})
        if held:
            leaving = is_worker, held
            self._leaving.append(leaving)
            self._broadcast.pages(self._taken_back(leaving))

    def _taken_back(self, leaving: tuple[bool, dict[Account, int]]) -> Iterator[bytes]:
        """Subtracts a page of accounts each time, and yields the broadcast for it."""
        is_worker, held = leaving
        while held:
            count = min(len(held), _ACCOUNTS_A_MESSAGE)
            uses = [Usage(*account, -n) for account, n in (held.popitem() for _ in range(count))]
            if is_worker:
                self._notify_nodes(uses)
            yield b"[%d,%b]" % (_NOBODY, _packed(uses))
        self._leaving = [one for one in self._leaving if one is not leaving]

    # -- other nodes ----------------------------------------------------------------------------

    def _notify_nodes(self, uses: Iterable[Usage]) -> None:
        """Sends a change to other nodes soon, each account once."""
        if self._messaging is None:
            return
        if not self._unsent:
            asyncio.get_running_loop().call_later(NOTIFY_NODES_EVERY_S, self._notify_nodes_now)
        for use in uses:
            _sum_up(self._unsent, use)

    def _notify_nodes_now(self) -> None:
        """Sends as much as there is room for, and the rest a little later."""
        nodes = self._messaging
        assert nodes is not None
        while self._unsent and not nodes.is_full:
            uses = _some_of(self._unsent)
            for walk in self._walks:
                walk.was_sent(uses)
            nodes.notify(SUBJECT, _packed(uses))
        if self._unsent:
            asyncio.get_running_loop().call_later(NOTIFY_NODES_EVERY_S, self._notify_nodes_now)

    def _whole(self) -> Iterable[bytes]:
        """What its workers hold, as far as other nodes have been notified of it."""
        walk = _Walk(self)
        self._walks.add(walk)
        return walk

    def _on_node_message(self, node: bytes, message: bytes) -> None:
        if message[:1] == _END:
            self._end_elsewhere(node, message[1:])
            return
        uses = _checked(orjson.loads(message))
        self._hold(node, uses)
        self._broadcast(b"[%d,%b]" % (_NOBODY, _packed(uses)))

    def _on_node_gone(self, node: bytes) -> None:
        self._take_back(node, is_worker=False)


class _Walk:
    """All accounts of a node as other nodes knew them when the walk began, in messages that are
    made one by one while usage goes on. Nothing is copied: usage that was sent since, or is not
    sent yet, is subtracted from the present usage. O(accounts) to begin: 20 ms for 400,000."""

    def __init__(self, service: UsageService) -> None:
        self._service = service
        self._since: Counter[Account] = Counter()
        self._accounts = dict.fromkeys(one for held in service.held_here() for one in held)
        self._accounts.update(dict.fromkeys(service._unsent))

    def was_sent(self, uses: Iterable[Usage]) -> None:
        """Sends usage to other nodes."""
        for use in uses:
            if use.streams:
                self._since[use[:2]] += use.streams

    def __iter__(self) -> Iterator[bytes]:
        accounts = iter(self._accounts)
        while some := list(islice(accounts, _ACCOUNTS_A_MESSAGE)):
            held = list(self._service.held_here())
            counts = (
                (one, _count_of(one, held) - self._service.unsent(one) - self._since[one])
                for one in some
            )
            if uses := [Usage(*one, count) for one, count in counts if count]:
                yield _packed(uses)


class UsageClient:
    """A worker's side. Loop thread only.

    Arguments:
        control: the way to the control service.
        call_later: the loop's.
        others_used: called with the usage of other workers.

    Attributes:
        on_end: called with an account of which this worker is to end its oldest stream.
    """

    def __init__(
        self,
        control: ControlClient,
        call_later: Callable[[float, Callable[[], None]], object],
        others_used: Callable[[Usage], None],
    ) -> None:
        self._control = control
        self._call_later = call_later
        self._others_used = others_used
        self.on_end: Callable[[Account], None] = lambda account: None
        self._unsent: dict[Account, list[int]] = {}
        self._held: Counter[Account] = Counter()
        self._learning = UsageLearning(partial(control.ask, SUBJECT), call_later, self._apply)
        control.listen(SUBJECT, self._on_broadcast)
        control.on_back.append(self._notify_held)
        self._learning.ask()

    def end_oldest(self, account: Account) -> None:
        """Has another worker end its oldest stream of an account."""
        self._control.notify(SUBJECT, _END + orjson.dumps(account))

    def used(self, use: Usage) -> None:
        """Records usage in this worker."""
        account = use[:2]
        if not self._unsent:
            self._call_later(NOTIFY_EVERY_S, self._notify)
        _sum_up(self._unsent, use)
        if use.streams:
            _add(self._held, account, use.streams)

    def _notify(self) -> None:
        self._control.notify_pages(SUBJECT, self._uses())

    def _uses(self) -> Iterator[bytes]:
        while self._unsent:
            yield _packed(_some_of(self._unsent))

    def _notify_held(self) -> None:
        """The control service was replaced, so all held streams are sent. Unsent usage is sent
        apart."""
        self._learning.forget_questions()
        self._control.notify_pages(
            SUBJECT, self._held_now([*self._held, *(self._unsent.keys() - self._held.keys())])
        )
        self._notify()
        self._learning.ask_soon()

    def _held_now(self, accounts: Sequence[Account]) -> Iterator[bytes]:
        """An account whose streams ended meanwhile is sent with 0, because the control service may
        have received their end and counts less than 0."""
        for start in range(0, len(accounts), _ACCOUNTS_A_MESSAGE):
            some = accounts[start : start + _ACCOUNTS_A_MESSAGE]
            yield _HELD + orjson.dumps([(*one, self._sent_of(one)) for one in some])
        yield _HELD

    def _sent_of(self, account: Account) -> int:
        unsent = self._unsent.get(account)
        return self._held[account] - (0 if unsent is None else unsent[0])

    def _on_broadcast(self, message: bytes) -> None:
        if message == _LEARN:
            self._learning.ask_soon()
            return
        if message[:1] == _END:
            worker, side, name = orjson.loads(message[1:])
            if worker == self._control.worker:
                self.on_end((side, name))
            return
        worker, uses = orjson.loads(message)
        if worker != self._control.worker:
            uses = [_whole(use) for use in uses]
            self._learning.add(uses)
            self._apply(uses)

    def _apply(self, uses: Iterable[Sequence[Any]]) -> None:
        for use in uses:
            self._others_used(Usage(*use))


def _whole(use: Sequence[Any]) -> Sequence[Any]:
    """A use with all its members; missing ones are 0."""
    return (*use, *(0,) * (len(Usage._fields) - len(use)))


def _checked(uses: Any) -> list[Usage]:
    """Uses received from another process. Raises ValueError for impossible ones."""
    if not isinstance(uses, list):
        raise ValueError("no list of uses")
    return list(map(_checked_use, uses))


def _checked_use(use: Any) -> Usage:
    try:
        side, name, *amounts = use
        made = Usage(side, name, *amounts)
    except TypeError:
        raise ValueError("no use") from None
    is_right = made.side in (0, 1) and isinstance(name, str) and len(name) <= _NAME_MAX
    if not is_right or not all(type(amount) is int for amount in (side, *amounts)):
        raise ValueError("a use that can't be")
    return made


def _sum_up(sums_of: dict[Account, list[int]], use: Usage) -> None:
    sums = sums_of.setdefault(use[:2], [0] * len(use[2:]))
    for index, amount in enumerate(use[2:]):
        sums[index] += amount


def _add(counts: Counter[Account], account: tuple[int, str], count: int) -> None:
    """Adds, and drops accounts that become 0."""
    counts[account] += count
    if not counts[account]:
        del counts[account]


def _some_of(sums_of: dict[Account, list[int]]) -> list[Usage]:
    """Removes the uses of one message from the queue."""
    count = min(len(sums_of), _ACCOUNTS_A_MESSAGE)
    return [Usage(*account, *sums) for account, sums in (sums_of.popitem() for _ in range(count))]


def _packed(uses: Iterable[Usage]) -> bytes:
    return orjson.dumps([tuple(use) for use in uses])


def _count_of(account: Account, holders: Iterable[Mapping[Account, int]]) -> int:
    return sum([held.get(account, 0) for held in holders])
