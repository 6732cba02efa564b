"""What clients use of their limits, told to every worker, so that limits hold for a whole service.

A worker tells the desk ten times a second what was used there since, when anything was; the desk
tells it to the others, who take it from the accounts that they judge by. So every worker judges at
once, by itself, and a client can use more than its limit only by what several workers let in
within a tenth of a second. Of a worker that ended its streams are taken back.

Where there are other nodes, the desk tells theirs four times a second what was used in all of its
workers, and hears the same of them. What streams a node holds is taken back when it is gone.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import orjson

from fastsse.desks.control import Broadcast, Control, Publish, Store
from fastsse.errors import FastsseError

__all__ = ["SUBJECT", "Shares", "SharesDesk", "Use"]

SUBJECT: Final = "shares"
TELL_EVERY_S: Final = 0.1
TELL_NODES_EVERY_S: Final = 0.25
# Accounts in one message: of at most 130 bytes each.
_ACCOUNTS_A_MESSAGE: Final = 1_000
_HELD: Final = b"h"
# When the workers of a new desk have told it what they hold.
_RELEARN_S: Final = 2.0
# Of an account, in letters.
_NAME_MOST: Final = 200
# Whose a message of the desk's own is.
_NOBODY: Final = -1


Account = tuple[int, str]


class Use(NamedTuple):
    """What was used of one account: which side's (0 addresses, 1 subjects), by its name."""

    side: int
    name: str
    streams: int = 0
    opens: int = 0
    publishes: int = 0
    replay: int = 0
    requests: int = 0


class SharesDesk:
    """Passes on what was used, and remembers who holds how many streams for which client. Made by
    `control.Desks`. What is told, also among nodes, is a list of uses, or of streams that are held,
    `h` before it; a broadcast has the worker before it."""

    def __init__(self, broadcast: Broadcast, store: Store, publish: Publish) -> None:
        self._broadcast = broadcast
        # By workers, and by the names of other nodes.
        self._streams: dict[int | bytes, dict[Account, int]] = {}
        self._untold: dict[Account, list[int]] = {}
        self._neighbours = store.neighbours
        if self._neighbours is not None:
            self._neighbours.listen(SUBJECT, self._heard, self._gone, self._whole)

    def told(self, worker: int, message: bytes) -> None:
        """What was used in a worker, or what it held under a desk before this one. O(accounts)."""
        if message[:1] == _HELD:
            held = self._streams.get(worker, {})
            told = orjson.loads(message[1:])
            uses = [
                Use(side, name, count - held.get((side, name), 0)) for side, name, count in told
            ]
        else:
            uses = [Use(*use) for use in orjson.loads(message)]
            self._broadcast(b"[%d,%b]" % (worker, message))
        self._hold(worker, uses)
        self._tell_nodes(uses)

    def asked(self, worker: int, message: bytes, answer: Callable[[bytes], None]) -> None:
        """Tells a worker that is new who holds streams already."""
        sums = self._sums(holder for holder in self._streams if holder != worker)
        answer(orjson.dumps([(*account, count) for account, count in sums.items()]))

    def left(self, worker: int) -> None:
        """A worker's streams ended with it."""
        self._tell_nodes(self._take_back(worker))

    def _hold(self, holder: int | bytes, uses: Iterable[Use]) -> None:
        held = self._streams.setdefault(holder, {})
        for use in uses:
            account = use[:2]
            count = held.get(account, 0) + use.streams
            if count:
                held[account] = count
            else:
                held.pop(account, None)

    def _take_back(self, holder: int | bytes) -> list[Use]:
        held = self._streams.pop(holder, {})
        uses = [Use(*account, -count) for account, count in held.items()]
        self._tell_workers(uses)
        return uses

    def _tell_workers(self, uses: Sequence[Use]) -> None:
        for message in _messages(uses):
            self._broadcast(b"[%d,%b]" % (_NOBODY, message))

    def _sums(self, holders: Iterable[int | bytes]) -> Counter[Account]:
        sums: Counter[Account] = Counter()
        for holder in holders:
            sums.update(self._streams[holder])
        return sums

    # -- other nodes ----------------------------------------------------------------------------

    def _tell_nodes(self, uses: Iterable[Use]) -> None:
        """Soon, and of each account once."""
        if self._neighbours is None:
            return
        if not self._untold:
            asyncio.get_running_loop().call_later(TELL_NODES_EVERY_S, self._tell_now)
        for use in uses:
            _sum_up(self._untold, use)

    def _tell_now(self) -> None:
        untold, self._untold = self._untold, {}
        assert self._neighbours is not None
        for message in _messages([Use(*account, *sums) for account, sums in untold.items()]):
            self._neighbours.tell(SUBJECT, message)

    def _whole(self) -> Iterator[bytes]:
        """What its workers hold, all of which was told."""
        self._tell_now()
        sums = self._sums(holder for holder in self._streams if isinstance(holder, int))
        return _messages([Use(*account, count) for account, count in sums.items()])

    def _heard(self, node: bytes, message: bytes) -> None:
        uses = _checked(orjson.loads(message))
        self._hold(node, uses)
        self._tell_workers(uses)

    def _gone(self, node: bytes) -> None:
        self._take_back(node)


class Shares:
    """A worker's side. Loop thread only.

    Arguments:
        control: the way to the desk.
        call_later: the loop's.
        others_used: called with what was used in other workers.
    """

    def __init__(
        self,
        control: Control,
        call_later: Callable[[float, Callable[[], None]], object],
        others_used: Callable[[Use], None],
    ) -> None:
        self._control = control
        self._call_later = call_later
        self._others_used = others_used
        self._untold: dict[Account, list[int]] = {}
        self._held: Counter[Account] = Counter()
        self._others: Counter[Account] = Counter()  # Streams that others hold.
        control.listen(SUBJECT, self._heard)
        control.on_back.append(self._tell_held)
        self._ask()

    def used(self, use: Use) -> None:
        """Something was used here."""
        account = use[:2]
        if not self._untold:
            self._call_later(TELL_EVERY_S, self._tell)
        sums = self._untold.setdefault(account, [0] * len(use[2:]))
        for index, amount in enumerate(use[2:]):
            sums[index] += amount
        if use.streams:
            _add(self._held, account, use.streams)

    def _tell(self) -> None:
        uses = [Use(*account, *sums) for account, sums in self._untold.items()]
        self._untold = {}
        for message in _messages(uses):
            self._control.tell(SUBJECT, message)

    def _tell_held(self) -> None:
        """The desk is a new one. What is untold still will be told, and is no part of this."""
        told = self._held.copy()
        for account, sums in self._untold.items():
            _add(told, account, -sums[0])
        held = [(*account, count) for account, count in told.items()]
        for start in range(0, len(held), _ACCOUNTS_A_MESSAGE):
            some = orjson.dumps(held[start : start + _ACCOUNTS_A_MESSAGE])
            self._control.tell(SUBJECT, _HELD + some)
        self._call_later(_RELEARN_S, self._ask)

    def _ask(self) -> None:
        self._control.ask(SUBJECT, b"", self._learn)

    def _heard(self, message: bytes) -> None:
        worker, uses = orjson.loads(message)
        if worker != self._control.worker:
            self._apply(uses)

    def _learn(self, answer: bytes | FastsseError) -> None:
        """Sets right how many streams others hold."""
        if isinstance(answer, FastsseError):
            return
        told = {(side, name): count for side, name, count in orjson.loads(answer)}
        wrong = {account for account in self._others if account not in told} | told.keys()
        self._apply((*account, told.get(account, 0) - self._others[account]) for account in wrong)

    def _apply(self, uses: Iterable[Sequence[Any]]) -> None:
        for use in map(Use._make, map(_whole, uses)):
            if use.streams:
                _add(self._others, use[:2], use.streams)
            self._others_used(use)


def _whole(use: Sequence[Any]) -> Sequence[Any]:
    """A use with all its members; those left out are 0."""
    return (*use, *(0,) * (len(Use._fields) - len(use)))


def _checked(uses: Any) -> list[Use]:
    """Uses that came from elsewhere. Raises ValueError for what can't be."""
    if not isinstance(uses, list):
        raise ValueError("no list of uses")
    return list(map(_checked_use, uses))


def _checked_use(use: Any) -> Use:
    try:
        side, name, *amounts = use
        made = Use(side, name, *amounts)
    except TypeError:
        raise ValueError("no use") from None
    is_right = made.side in (0, 1) and isinstance(name, str) and len(name) <= _NAME_MOST
    if not is_right or not all(type(amount) is int for amount in (side, *amounts)):
        raise ValueError("a use that can't be")
    return made


def _sum_up(sums_of: dict[Account, list[int]], use: Use) -> None:
    sums = sums_of.setdefault(use[:2], [0] * len(use[2:]))
    for index, amount in enumerate(use[2:]):
        sums[index] += amount


def _add(counts: Counter[Account], account: tuple[int, str], count: int) -> None:
    """Adds, and keeps no account that came to nothing."""
    counts[account] += count
    if not counts[account]:
        del counts[account]


def _messages(uses: Sequence[Use]) -> Iterator[bytes]:
    for start in range(0, len(uses), _ACCOUNTS_A_MESSAGE):
        yield orjson.dumps([tuple(use) for use in uses[start : start + _ACCOUNTS_A_MESSAGE]])
