"""Receipts: how many streams match a publish, at this node and in the cluster.

A publish with `receipt` costs one request to all workers; equal requests within a second share the
answer. Other publishes cost nothing. Filters are not evaluated.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from fastsse.control.gather import GatherClient, Gathered
from fastsse.errors import FastsseError
from fastsse.hub import Hub
from fastsse.hub.channels import Channel
from fastsse.hub.time_budget import TimeBudget
from fastsse.selectors import compile_selector
from fastsse.subscriptions import ANY

__all__ = ["Reached", "Receipts", "StreamCount"]

#: Seconds for which an answer is used again.
FRESH_S: Final = 1.0
_SHARED_MAX: Final = 1_000
# So many times a template is compared with a topic, and so many channels are looked at, before
# others have a turn.
_LOOKS_A_STEP: Final = 256
_CHANNELS_A_STEP: Final = 64
_MATCHING: Final = "matching"
_REACHED: Final = "reached"
_WAITING_MAX: Final = 10_000

Reply = Callable[[object], None]


class StreamCount(NamedTuple):
    """The number of matching streams.

    Attributes:
        node: at this node.
        cluster: at all nodes.
        missing: workers and nodes that did not answer within a second; they are not counted.
    """

    node: int
    cluster: int
    missing: tuple[str, ...] = ()

    def members(self) -> dict[str, object]:
        """The members of an answer."""
        members: dict[str, object] = {"node": self.node, "cluster": self.cluster}
        return members | ({"missing": list(self.missing)} if self.missing else {})


Counted = Callable[[StreamCount | None], None]


class Receipts:
    """Counts streams. Loop thread only.

    Arguments:
        hub: the worker's.
        gather: asks all workers.
    """

    def __init__(self, hub: Hub, gather: GatherClient) -> None:
        self._channels = hub.channels
        self._gather = gather
        self._own_node = ""
        self._loop = asyncio.get_running_loop()
        #: Seconds, of a clock that only goes forward.
        self.now_s: Callable[[], float] = self._loop.time
        # Clients decide how many channels there are, and how many templates each has.
        self._budget = TimeBudget()
        self._walks: deque[Iterator[None]] = deque()
        # When each answer expires, the answer, and the calls that wait for it.
        self._shared: OrderedDict[
            tuple[tuple[str, ...], bool], tuple[float, StreamCount | None, list[Counted]]
        ] = OrderedDict()
        gather.teach(_MATCHING, self._count)

    def ask(self, topics: Sequence[str], is_private: bool, done: Counted) -> None:
        """Calls `done`, now or within a second, with the number of streams that match one of the
        topics; None if they can't be counted now. For a private event, streams with a grant."""
        key = tuple(sorted(set(topics))), is_private
        known = self._shared.get(key)
        if known is not None and known[0] > self.now_s():
            if known[1] is None:
                known[2].append(done)
            else:
                done(known[1])
            return
        waiting = [done]
        self._shared[key] = self.now_s() + 2 * FRESH_S, None, waiting
        self._shared.move_to_end(key)
        if len(self._shared) > _SHARED_MAX:
            self._shared.popitem(last=False)

        def answered(outcome: Gathered | FastsseError) -> None:
            count = None if isinstance(outcome, FastsseError) else self._sum(outcome)
            if count is None:
                self._shared.pop(key, None)
            else:
                self._shared[key] = self.now_s() + FRESH_S, count, []
            for one in waiting:
                one(count)

        self._gather.ask(_MATCHING, answered, topics=key[0], private=is_private)

    def _sum(self, gathered: Gathered) -> StreamCount:
        counts = [(node, value) for node, _, value in gathered.answers if isinstance(value, int)]
        here = sum(value for node, value in counts if node == self._own_node)
        everywhere = sum(value for _, value in counts)
        return StreamCount(here, everywhere, tuple(gathered.missing))

    def _count(self, question: Mapping[str, Any], reply: Reply) -> None:
        """This worker's streams, in several turns. O(selectors of all channels)."""
        self._own_node = question["own"][0]
        self._walks.append(self._walk(question["topics"], bool(question["private"]), reply))
        if len(self._walks) == 1:
            self._go_on()

    def _go_on(self) -> None:
        self._budget.run(self._step)
        if self._walks:
            self._loop.call_later(max(0.0, self._budget.wait_s), self._go_on)

    def _step(self) -> bool:
        """A step of the walk whose turn it is; True: there are more."""
        walk = self._walks.popleft()
        if not next(walk, True):
            self._walks.append(walk)
        return bool(self._walks)

    def _walk(self, topics: Sequence[str], is_private: bool, reply: Reply) -> Iterator[None]:
        total = 0
        following: int | None = 0
        while following is not None:
            some, following = self._channels.some(following, _CHANNELS_A_STEP)
            for channel in some:
                if (yield from _matches(channel, topics, is_private)):
                    total += channel.streams
            yield
        reply(total)


def _matches(
    channel: Channel, topics: Sequence[str], is_private: bool
) -> Generator[None, None, bool]:
    """Whether streams of a channel get an event of these topics. Yields between steps."""
    rights, selectors = channel.rights, channel.selectors
    if is_private and (rights is None or not rights.covers_subscribe(topics)):
        return False
    if not frozenset((ANY, *topics)).isdisjoint(selectors):
        return True
    templates = [text for text in selectors if "{" in text]
    a_step = max(1, _LOOKS_A_STEP // max(1, len(topics)))
    for at in range(0, len(templates), a_step):
        for text in templates[at : at + a_step]:
            selector = compile_selector(text)
            if any(map(selector.matches, topics)):
                return True
        yield
    return False


class Reached:
    """Waits until every worker has the log up to a position. Loop thread only.

    Arguments:
        hub: the worker's.
        gather: asks all workers.
    """

    def __init__(self, hub: Hub, gather: GatherClient) -> None:
        self._history = hub.history
        self._gather = gather
        self._waiting: list[tuple[int, Reply]] = []
        gather.teach(_REACHED, self._on_question)

    def ask(self, position: int, done: Callable[[Sequence[str]], None]) -> None:
        """Calls `done` with the workers and nodes that did not confirm within a second."""

        def answered(outcome: Gathered | FastsseError) -> None:
            done(["others"] if isinstance(outcome, FastsseError) else outcome.missing)

        self._gather.ask(_REACHED, answered, position=str(position))

    def on_entries(self) -> None:
        """The worker has more of the log."""
        if self._waiting:
            head = self._history.head
            ready = [reply for position, reply in self._waiting if position <= head]
            self._waiting = [one for one in self._waiting if one[0] > head]
            for reply in ready:
                reply(True)

    def _on_question(self, question: Mapping[str, Any], reply: Reply) -> None:
        position = int(question["position"])
        if position <= self._history.head:
            reply(True)
        elif len(self._waiting) < _WAITING_MAX:  # Otherwise the asking worker counts it as missing.
            self._waiting.append((position, reply))
