"""Knows which topics of a node have subscribers, and which streams are open, from what its workers
report; and tells the outlets."""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from sys import intern
from typing import Any, Final

import orjson

from fastsse.control.cluster import Answer
from fastsse.control.service import NoService
from fastsse.hooks.notices import (
    CLOSED,
    FIRST,
    LAST,
    OPENED,
    SUBJECT,
    Opening,
    closed_notice,
    opened_notice,
)
from fastsse.hooks.outlet import Outlet
from fastsse.log import get_logger
from fastsse.paging import Pager
from fastsse.positions import now_ms

__all__ = ["HookService"]

log = get_logger("hooks")
# Topics with a subscriber, here and in the outlets. Above it new ones are not reported.
TOPICS_BYTES_MAX: Final = 128 * 1024 * 1024
_TOPIC_COST_BYTES: Final = 600
# Of a worker that ended, in one turn of the loop.
_GONE_A_TURN: Final = 500


class HookService:
    """All streams of a node, for hooks. Loop thread only.

    Arguments:
        counts: shared by all hooks.

    Attributes:
        outlets: get every change.
    """

    def __init__(self, counts: "Counter[str]") -> None:
        self.outlets: list[Outlet] = []
        self._counts = counts
        # A link of a worker has a number, so what is left of its last one disturbs nothing.
        self._links: dict[int, int] = {}
        self._last_link = 0
        self._of_topic: dict[str, set[int]] = {}
        self._topics: dict[int, set[str]] = {}
        self._streams: dict[int, dict[str, bytes]] = {}
        self._leaving: dict[int, dict[str, bytes]] = {}
        self._topics_bytes = 0
        self._is_full = False
        self._pager = Pager()

    def is_active(self, topic: str) -> bool:
        """Whether a topic has a subscriber."""
        return topic in self._of_topic

    def on_request(self, worker: int, message: bytes, answer: Answer) -> None:
        """Refuses: hooks have no requests."""
        answer(NoService(SUBJECT))

    def on_message(self, worker: int, message: bytes) -> None:
        """Changes of a worker, in order."""
        link = self._links.get(worker)
        if link is None:
            self._last_link += 1
            link = self._links[worker] = self._last_link
        for what, name, *rest in orjson.loads(message):
            if what == OPENED:
                self._opened(link, (name, *rest))
            elif what == CLOSED:
                self._closed(link, name, rest)
            elif what == FIRST:
                self._first(link, intern(name))
            elif what == LAST:
                self._last(link, name)

    def on_worker_gone(self, worker: int) -> None:
        """A worker ended, and its streams with it. Notices of them are made a page a turn."""
        link = self._links.pop(worker, None)
        if link is None:
            return
        topics, streams = self._topics.pop(link, set()), self._streams.pop(link, {})
        if streams:
            self._leaving[link] = streams
        self._pager.add(self._taken_out(link, topics, streams), self._gone)

    def _taken_out(
        self, link: int, topics: set[str], streams: dict[str, bytes]
    ) -> Iterator[tuple[int, list[str], list[bytes]]]:
        while topics or streams:
            names = list(islice(topics, _GONE_A_TURN))
            topics.difference_update(names)
            some = [streams.popitem()[1] for _ in range(min(len(streams), _GONE_A_TURN))]
            yield link, names, some
        self._leaving.pop(link, None)

    def _gone(self, page: tuple[int, list[str], list[bytes]]) -> None:
        link, topics, streams = page
        for topic in topics:
            self._leave(link, topic)
        for packed in streams:
            self._notify_closed(orjson.loads(packed), "worker", None, ())

    # -- topics -----------------------------------------------------------------------------------

    def _first(self, link: int, topic: str) -> None:
        links = self._of_topic.get(topic)
        if links is None:
            cost_bytes = len(topic) + _TOPIC_COST_BYTES
            if self._topics_bytes + cost_bytes > TOPICS_BYTES_MAX:
                self._is_over()
                return
            self._topics_bytes += cost_bytes
            self._of_topic[topic] = {link}
            self._notify_topic(topic, is_active=True)
        else:
            links.add(link)
        self._topics.setdefault(link, set()).add(topic)

    def _last(self, link: int, topic: str) -> None:
        self._topics.get(link, set()).discard(topic)
        self._leave(link, topic)

    def _leave(self, link: int, topic: str) -> None:
        links = self._of_topic.get(topic)
        if links is None or link not in links:
            return
        links.discard(link)
        if not links:
            del self._of_topic[topic]
            self._topics_bytes -= len(topic) + _TOPIC_COST_BYTES
            self._notify_topic(topic, is_active=False)

    def _is_over(self) -> None:
        self._counts["hook_dropped"] += 1
        if not self._is_full:
            log.warning("Subscribers of some topics are not reported: there are too many topics.")
        self._is_full = True

    def _notify_topic(self, topic: str, *, is_active: bool) -> None:
        for outlet in self.outlets:
            outlet.on_topic(topic, is_active=is_active)

    # -- streams ----------------------------------------------------------------------------------

    def _opened(self, link: int, opening: Opening) -> None:
        name, streams = opening[0], self._streams.setdefault(link, {})
        known = name in streams
        for leaving in self._leaving.values():
            known = leaving.pop(name, None) is not None or known
        streams[name] = bytes(memoryview(orjson.dumps(opening)))
        if not known:
            for outlet in self.outlets:
                outlet.on_stream("connect", opening[1], partial(opened_notice, opening))

    def _closed(self, link: int, name: str, rest: Sequence[Any]) -> None:
        packed = self._streams.get(link, {}).pop(name, None)
        if packed is not None:
            reason, duration_ms, *figures = rest
            self._notify_closed(orjson.loads(packed), reason, duration_ms, figures)

    def _notify_closed(
        self, opening: Opening, reason: str, duration_ms: int | None, figures: Sequence[int]
    ) -> None:
        notice = partial(closed_notice, opening, reason, duration_ms, figures, now_ms())
        for outlet in self.outlets:
            outlet.on_stream("disconnect", opening[1], notice)
