"""A worker's part of `/admin/topics`: the streams of a topic, and its kept events.

All workers keep the same events; each has streams of its own. A turn of the loop examines a bounded
number of topics and channels. Loop thread only.
"""

import asyncio
import heapq
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from fastsse._core import Frame
from fastsse.config.rules import compile_glob
from fastsse.control.gather import Gathered
from fastsse.hub.channels import Channel, Channels
from fastsse.hub.history import History
from fastsse.hub.templates import WantedTopics
from fastsse.hub.topics import Topic, Topics
from fastsse.positions import N_BITS, format_position
from fastsse.reserved import CONSOLE_TOPIC

__all__ = ["SORTS", "TopicLister", "merged_topics", "subscribers_of", "topic_facts"]

Reply = Callable[[object], None]
# Topics and channels that a turn looks at: about a millisecond.
_TOPICS_A_TURN: Final = 5_000
_CHANNELS_A_TURN: Final = 2_000
# Entries of a topic that are looked at one by one.
_COUNTED_MAX: Final = 1_000
#: What a list can begin with; all but `name` are the largest first.
SORTS: Final = ("name", "subscribers", "rate", "bytes", "events")
# The span over which the rate of a topic is counted, from what is kept of it.
RATE_S: Final = 60.0
_MS_A_S: Final = 1000


class TopicLister:
    """Answers `topics`.

    Arguments:
        topics, channels, history: those of the worker.
    """

    def __init__(self, topics: Topics, channels: Channels, history: History) -> None:
        self._topics = topics
        self._channels = channels
        self._history = history

    def __call__(self, question: Mapping[str, Any], reply: Reply) -> None:
        """Answers with `rows`, `alive` (all topics) and `everything`: streams of `*`."""
        by_subscribers = question["sort"] == "subscribers"

        def listed(found: Sequence[Topic]) -> None:
            subscribers_of(self._channels, found, lambda *counts: counted(found, *counts))

        def counted(found: Sequence[Topic], counts: Counter[Topic], everything: int) -> None:
            rows = [topic_facts(topic, counts[topic], self._history) for topic in found]
            if by_subscribers:
                rows = heapq.nlargest(question["limit"], rows, key=_subscribers)
            reply({"rows": rows, "alive": len(self._topics), "everything": everything})

        _TopicWalk(self._topics, self._history, question, listed).step()


class _TopicWalk:
    """Selects topics, a bounded number in each turn of the loop."""

    def __init__(
        self,
        topics: Topics,
        history: History,
        question: Mapping[str, Any],
        done: Callable[[Sequence[Topic]], None],
    ) -> None:
        self._names = list(topics.by_name)
        self._topics = topics
        self._history = history
        self._limit = int(question["limit"])
        self._after = str(question.get("after") or "")
        self._sort = str(question["sort"])
        self._glob = compile_glob(question["topic"]) if "topic" in question else None
        self._done = done
        self._found: list[Topic] = []

    def step(self) -> None:
        """Looks at the next topics; the last step calls back."""
        some, self._names = self._names[-_TOPICS_A_TURN:], self._names[:-_TOPICS_A_TURN]
        self._found = self._best([*self._found, *filter(None, map(self._wanted, some))])
        if self._names:
            asyncio.get_running_loop().call_soon(self.step)
        else:
            self._done(self._found)

    def _wanted(self, name: str) -> Topic | None:
        if name == CONSOLE_TOPIC or (name <= self._after and self._sort == "name"):
            return None
        if self._glob is not None and not self._glob.match(name):
            return None
        return self._topics.by_name.get(name)

    def _best(self, found: list[Topic]) -> list[Topic]:
        if self._sort == "subscribers":
            return found  # They are not counted yet.
        if self._sort == "name":
            return heapq.nsmallest(self._limit, found, key=lambda topic: topic.name)
        return heapq.nlargest(self._limit, found, key=self._size)

    def _size(self, topic: Topic) -> float:
        log = topic.log
        if log is None:
            return 0
        if self._sort == "bytes":
            return log.bytes
        if self._sort == "events":
            return len(log.frames) - log.start
        return _rate(log.frames, log.start, self._history.now_ms())


def topic_facts(topic: Topic, subscribers: int, history: History) -> dict[str, object]:
    """A topic as JSON. O(log events kept)."""
    facts: dict[str, object] = {
        "topic": topic.name,
        "subscribers": subscribers,
        "state": "ended" if topic.ended_at else "open",
        "events": 0,
        "bytes": 0,
        "rate": 0.0,
    }
    log = topic.log
    if log is None or log.start >= len(log.frames):
        return facts
    newest, oldest, now_ms = log.frames[-1], log.frames[log.start], history.now_ms()
    facts |= {
        "events": _count(log.frames, log.start),
        "bytes": log.bytes,
        "rate": round(_rate(log.frames, log.start, now_ms), 2),
        "oldest_age_s": max(0, now_ms - oldest.time_ms) / _MS_A_S,
        "last_age_s": max(0, now_ms - newest.time_ms) / _MS_A_S,
        "last_id": _id_of(newest, history),
        "last_is_private": newest.private,
    }
    return facts


def _count(frames: Sequence[Frame], start: int) -> int:
    """Events kept. Deleted events and their control entries have frames too. They are left out up
    to a bound, and counted above it."""
    kept = len(frames) - start
    return kept if kept > _COUNTED_MAX else sum(frame.events for frame in frames[start:])


def _id_of(frame: Frame, history: History) -> str:
    own = history.own_id_at.get(frame.position)
    return (format_position(frame.position) if own is None else own).decode(errors="replace")


def _rate(frames: Sequence[Frame], start: int, now_ms: int) -> float:
    """Events a second over the last minute, or since the oldest one kept."""
    since = int(now_ms - RATE_S * _MS_A_S) << N_BITS
    first = bisect_right(frames, since, lo=start, key=_position)
    if first >= len(frames):
        return 0.0
    span_s = RATE_S
    if first == start and frames[start].time_ms > now_ms - RATE_S * _MS_A_S:
        span_s = max(1.0, (now_ms - frames[start].time_ms) / _MS_A_S)
    return (len(frames) - first) / span_s


def subscribers_of(
    channels: Channels,
    wanted: Collection[Topic],
    done: Callable[[Counter[Topic], int], None],
) -> None:
    """Counts the streams of some topics, in several turns. Gives also the number of streams that
    get everything. O(channels)."""
    counts: Counter[Topic] = Counter()
    everything = 0
    by_number = {topic.number: topic for topic in wanted}

    def add(channel: Channel) -> None:
        nonlocal everything
        if channel.topics is None:
            everything += channel.streams
        elif isinstance(channel.topics, WantedTopics):
            count(channel, channel.topics.numbers)
        else:
            count(channel, [topic.number for topic in channel.topics])

    def count(channel: Channel, numbers: Iterable[int]) -> None:
        for number in numbers:
            topic = by_number.get(number)
            if topic is not None:
                counts[topic] += channel.streams

    def turn(first: int) -> None:
        some, following = channels.some(first, _CHANNELS_A_TURN)
        for channel in some:
            add(channel)
        if following is None:
            done(counts, everything)
        else:
            asyncio.get_running_loop().call_soon(turn, following)

    turn(0)


def _position(frame: Frame) -> int:
    return frame.position


def _subscribers(row: Mapping[str, Any]) -> int:
    return int(row["subscribers"])


def merged_topics(gathered: Gathered, *, sort: str, limit: int) -> dict[str, object]:
    """One page of topics: streams are added up, the rest is the same everywhere."""
    rows: dict[str, dict[str, Any]] = {}
    answers = [answer for *_, answer in gathered.answers if answer]
    for answer in answers:
        for row in answer["rows"]:
            known = rows.setdefault(row["topic"], {**row, "subscribers": 0})
            known["subscribers"] += row["subscribers"]
    ordered = sorted(rows.values(), key=lambda row: row["topic"])
    if sort != SORTS[0]:
        ordered.sort(key=lambda row: row[sort], reverse=True)
    is_more = len(ordered) > limit or any(len(answer["rows"]) == limit for answer in answers)
    page = ordered[:limit]
    following = page[-1]["topic"] if is_more and sort == SORTS[0] and page else None
    return {
        "topics": page,
        "next": following,
        "alive": max((answer["alive"] for answer in answers), default=0),
        "everything": sum(answer["everything"] for answer in answers),
        "missing": gathered.missing,
    }
