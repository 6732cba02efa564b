"""What was acknowledged, what each subscriber saw, and how the two must agree."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tests.eventstream import Message

GAP = "fastsse.gap"
REFUSED = "fastsse.refused"
FAULTS_SHOWN = 20


def place_of(text: str) -> tuple[int, int]:
    """A position as two numbers that sort as positions do."""
    ms, _, number = text.partition("-")
    return int(ms), int(number)


@dataclass
class Seen:
    """One subscriber's sequence, over all its connections.

    Attributes:
        begun: the place from which it was promised everything.
        events: position and data, in the order seen.
        announced: the stretches of places that gaps spoke of: (after, up to).
        turned_away: times it was refused and received a time to come back, by reason.
        refused: answers other than a stream, which would end an EventSource for good.
    """

    topics: tuple[str, ...]
    begun: tuple[int, int] | None = None
    last_id: str = ""
    events: list[tuple[tuple[int, int], str]] = field(default_factory=list)
    data: set[str] = field(default_factory=set)
    gaps: Counter[str] = field(default_factory=Counter)
    turned_away: Counter[str] = field(default_factory=Counter)
    announced: list[tuple[tuple[int, int], tuple[int, int]]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def begin(self, place: str) -> None:
        """Where the first connection began."""
        if self.begun is None:
            self.begun = place_of(place)

    def take(self, event: Message) -> None:
        """An event as it came. Raises ValueError for one that none of this is."""
        if event.type == REFUSED:  # Of a stream that was not opened: it has no place.
            self.turned_away[json.loads(event.data)["reason"]] += 1
            return
        if event.type not in (GAP, "message"):
            raise ValueError(f"not expected: {event}")
        place = place_of(event.last_event_id)
        if event.type == GAP:
            self.gaps[json.loads(event.data).get("reason", "?")] += 1
            before = self.events[-1][0] if self.events else self.begun or (0, 0)
            self.announced.append((before, place))
        else:
            self.events.append((place, event.data))
            self.data.add(event.data)

    def wants(self, topic: str) -> bool:
        return self.topics == ("*",) or topic in self.topics

    def was_told(self, place: tuple[int, int]) -> bool:
        """Whether a gap spoke of a place."""
        return any(after < place <= upto for after, upto in self.announced)


class Ledger:
    """The publishers' side."""

    def __init__(self) -> None:
        #: Position to topic and data.
        self.acknowledged: dict[tuple[int, int], tuple[str, str]] = {}
        #: Data of events without an acknowledgement: taken, or not.
        self.unknown: set[str] = set()
        self._faults: list[str] = []

    def acknowledge(self, place: str, topic: str, data: str) -> None:
        """A 200."""
        key = place_of(place)
        if key in self.acknowledged:
            self._faults.append(f"{place} was given to {self.acknowledged[key]} and to {data}")
        self.acknowledged[key] = topic, data

    def faults(self, all_seen: Sequence[Seen]) -> list[str]:
        """Every promise that was broken, in words; the first of many."""
        found = list(self._faults)
        by_place = {place: data for place, (_, data) in self.acknowledged.items()}
        for number, seen in enumerate(all_seen):
            found += [f"subscriber {number}: {fault}" for fault in self._of(seen, by_place)]
        return found[:FAULTS_SHOWN]

    def _of(self, seen: Seen, by_place: dict[tuple[int, int], str]) -> Iterator[str]:
        yield from seen.refused
        last, places = (0, 0), set()
        twice = [data for data, count in Counter(d for _, d in seen.events).items() if count > 1]
        for data in twice:
            yield f"{data} came {sum(d == data for _, d in seen.events)} times"
        for place, data in seen.events:
            if place <= last:
                yield f"{data} at {place} came after {last}"
            last = place
            places.add(place)
            if by_place.setdefault(place, data) != data:
                yield f"{place} is {data} here and {by_place[place]} elsewhere"
        for place, (topic, data) in self.acknowledged.items():
            if seen.begun is None or place <= seen.begun or place in places:
                continue
            if seen.wants(topic) and not seen.was_told(place):
                yield f"{data} at {place} was acknowledged and never came"
