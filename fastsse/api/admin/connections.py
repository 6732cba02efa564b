"""A worker's part of `/admin/connections`: finds streams, gets their figures, ends them.

A search looks at a bounded number of rows in a turn of the loop, so that a table of a million is
searched without delaying anything. Loop thread only.
"""

import asyncio
import ipaddress
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import orjson

from fastsse._core import INSPECTED_ROWS_MAX, REASONS, raw_frame
from fastsse.control.gather import Gathered
from fastsse.hub.channels import Channels
from fastsse.hub.connections import ConnectionFilter, Connections, ConnectionSearch
from fastsse.hub.streams import Streams
from fastsse.selectors import compile_selector
from fastsse.subscriptions import ANY

if TYPE_CHECKING:
    from fastsse._core import InspectedRow

__all__ = ["ConnectionLister", "Finder", "Kicker", "merged_connections"]

Reply = Callable[[object], None]
Question = Mapping[str, Any]
_SLOT_MASK: Final = (1 << 32) - 1
_KICKED: Final = REASONS.index("kicked")
# Selectors and grants that a row shows, and the bytes of one worker's rows.
_SHOWN: Final = 10
_PAGE_BYTES: Final = 150 * 1024
# Streams that one request ends at one worker.
KICKED_MAX: Final = 10_000
_KICKED_A_TURN: Final = 200


class Finder:
    """Turns the filters of a question into a search.

    Arguments:
        streams, channels: those of the worker.
    """

    def __init__(self, streams: Streams, channels: Channels) -> None:
        self.streams: Final = streams
        self._channels = channels

    def filter(self, question: Question) -> ConnectionFilter:
        """The conditions of a question."""
        address, topic = question.get("address"), question.get("topic")
        return ConnectionFilter(
            None if address is None else ipaddress.ip_network(address),
            question.get("subject"),
            question.get("agent"),
            None if topic is None else lambda number: self._receives(number, topic),
        )

    def _receives(self, number: int, topic: str) -> bool:
        """Whether the streams of a channel receive events of a topic."""
        return any(
            text in (ANY, topic) or compile_selector(text).matches(topic)
            for text in self._channels[number].selectors
        )

    def row(self, connections: Connections, figures: "InspectedRow") -> dict[str, object] | None:
        """A connection as JSON; None for one that has ended."""
        handle, state, events, sent_bytes, lag_bytes, lag_s, idle_s = figures
        seen = connections.seen(handle)
        if seen is None:
            return None
        channel = self._channels[seen.channel]
        rights = channel.rights
        return {
            "id": self.streams.name_of(handle),
            "slot": handle & _SLOT_MASK,
            "address": seen.address,
            "agent": seen.agent,
            "subject": seen.subject,
            "topics": channel.selectors[:_SHOWN],
            "more_topics": max(0, len(channel.selectors) - _SHOWN),
            "grants": () if rights is None else rights.subscribe[:_SHOWN],
            "state": state,
            "age_s": round(seen.age_s, 1),
            "idle_s": idle_s,
            "events": events,
            "bytes": sent_bytes,
            "lag_bytes": lag_bytes,
            "lag_s": lag_s,
        }


class ConnectionLister:
    """Answers `connections`: a page of rows, from a slot on.

    Arguments:
        finder: finds them.
    """

    def __init__(self, finder: Finder) -> None:
        self._finder = finder

    def __call__(self, question: Question, reply: Reply) -> None:
        """Answers with `rows` and, if there may be more, `next`: the slot to go on from."""
        connections = self._finder.streams.connections
        after, own = question.get("after"), question["own"]
        if connections is None:
            reply({"rows": [], "off": True})
        elif after is not None and own < after[:2]:
            reply({"rows": []})
        else:
            first = after[2] if after is not None and own == after[:2] else 0
            page = _Page(self._finder, connections, question, first, reply)
            page.start()


class _Page:
    """One question that is being answered."""

    def __init__(
        self,
        finder: Finder,
        connections: Connections,
        question: Question,
        first: int,
        reply: Reply,
    ) -> None:
        self._finder = finder
        self._connections = connections
        self._question = question
        self._slot = first
        self._reply = reply
        self._limit = int(question["limit"])
        self._handles: list[int] = []
        self._rows: list[dict[str, object]] = []
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        """Looks for the streams, then for their figures."""
        if "id" in self._question:
            handle = self._finder.streams.find(self._question["id"].encode())
            self._slot = self._connections.capacity
            self._handles = [handle] if handle else []
            self._inspect(0)
            return
        search = self._connections.search(self._finder.filter(self._question))
        if self._question.get("state") == "blocked":
            self._find_blocked(search)
        else:
            self._step(search)

    def _step(self, search: ConnectionSearch) -> None:
        found, self._slot = search.step(self._slot, self._limit - len(self._handles))
        self._handles += found
        if len(self._handles) >= self._limit or self._slot >= self._connections.capacity:
            self._inspect(0)
        else:
            self._loop.call_soon(self._step, search)

    def _inspect(self, at: int) -> None:
        some = self._handles[at : at + INSPECTED_ROWS_MAX]

        def filled(figures: Sequence["InspectedRow"], _: int) -> None:
            self._add(figures)
            self._inspect(at + len(some))

        if not some or not self._finder.streams.inspect(some, filled):
            self._end()

    def _find_blocked(self, search: ConnectionSearch) -> None:
        """Asks the sender for streams with a full socket. They are few, and only it knows them."""

        def filled(figures: Sequence["InspectedRow"], next_slot: int) -> None:
            matching = [row for row in figures if search.step(row[0] & _SLOT_MASK, 1, 1)[0]]
            left = self._limit - len(self._rows)
            self._add(matching[:left])
            self._slot = next_slot if len(matching) <= left else matching[left][0] & _SLOT_MASK
            if len(matching) > left or next_slot >= self._connections.capacity:
                self._end()
            else:
                self._find_blocked(search)

        if not self._finder.streams.inspect_blocked(self._slot, filled):
            self._end()

    def _add(self, figures: Sequence["InspectedRow"]) -> None:
        rows = (self._finder.row(self._connections, one) for one in figures)
        self._rows += [row for row in rows if row is not None]

    def _end(self) -> None:
        rows, cut_at = _within(self._rows)
        answer: dict[str, object] = {"rows": rows}
        if cut_at is not None:
            answer["next"] = cut_at
        elif self._slot < self._connections.capacity:
            answer["next"] = self._slot
        self._reply(answer)


def _within(rows: list[dict[str, object]]) -> tuple[list[dict[str, object]], Any]:
    """As many rows as one answer may have, and the slot of the first that was left out."""
    left_bytes = _PAGE_BYTES
    for index, row in enumerate(rows):
        left_bytes -= len(orjson.dumps(row))
        if left_bytes < 0 and index:
            return rows[:index], row["slot"]
    return rows, None


class Kicker:
    """Answers `kick`: ends streams, some in each turn.

    Arguments:
        finder: finds them.
    """

    def __init__(self, finder: Finder) -> None:
        self._finder = finder

    def __call__(self, question: Question, reply: Reply) -> None:
        """Answers with `kicked`, and `more` if there are more than one request ends."""
        connections = self._finder.streams.connections
        if "id" in question:
            handle = self._finder.streams.find(question["id"].encode())
            self._end(question, reply, [handle] if handle else [], more=False)
        elif connections is None:
            reply({"kicked": 0, "off": True})
        else:
            search = connections.search(self._finder.filter(question))
            self._step(question, reply, search, connections.capacity, 0, [])

    def _step(
        self,
        question: Question,
        reply: Reply,
        search: ConnectionSearch,
        capacity: int,
        slot: int,
        found: list[int],
    ) -> None:
        some, slot = search.step(slot, KICKED_MAX - len(found))
        found += some
        if len(found) >= KICKED_MAX or slot >= capacity:
            self._end(question, reply, found, more=slot < capacity)
        else:
            loop = asyncio.get_running_loop()
            loop.call_soon(self._step, question, reply, search, capacity, slot, found)

    def _end(self, question: Question, reply: Reply, found: list[int], *, more: bool) -> None:
        retry_ms = question.get("retry_ms")
        farewell = None if retry_ms is None else raw_frame(b"retry: %d\n\n" % retry_ms)
        streams = self._finder.streams

        def turn(at: int, count: int) -> None:
            some = found[at : at + _KICKED_A_TURN]
            count += sum(streams.close(one, _KICKED, farewell) for one in some)
            if at + len(some) < len(found):
                asyncio.get_running_loop().call_soon(turn, at + len(some), count)
            else:
                reply({"kicked": count, "more": more})

        turn(0, 0)


def merged_connections(gathered: Gathered, limit: int) -> dict[str, object]:
    """One page of connections, in the order of node, worker and slot."""
    rows: list[dict[str, object]] = []
    following: str | None = None
    for node, worker, answer in gathered.answers:
        for row in answer["rows"] if answer else ():
            slot = row.pop("slot")
            if len(rows) == limit:
                following = f"{node}.{worker}.{slot}"
                break
            rows.append({**row, "node": node, "worker": worker})
        if following is None and answer and "next" in answer:
            following = f"{node}.{worker}.{answer['next']}"
        if following is not None:
            break
    if following is None and gathered.is_cut:
        node, worker, _ = gathered.answers[-1]
        following = f"{node}.{worker + 1}.0"
    return {"connections": rows, "next": following, "missing": gathered.missing}
