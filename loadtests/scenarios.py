"""Four workloads of SSE servers: what is published, and to whom.

Readers are numbered 0, 1, 2 … over the whole run, in groups: a group is one `SwarmUser` (whose
streams the native swarm numbers from 0), or as many Python readers. What a group follows is given
as the swarm's templates: `{n}` is the number within the group, `{n%7}` its remainder.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

_MARK = re.compile(r"\{n(?:%(\d+))?\}")


@dataclass(frozen=True)
class Scenario(ABC):
    """One workload with its default numbers, which options change.

    Attributes:
        says: one line for people.
        rate: events a second in all.
        event_bytes: data of an event.
        population: the number of symbols, users or logs.
        last: newest events that a new reader asks for.
        conflates: events may be left out on purpose (lag policy `latest`), so that a jump in the
            counts is no loss.
        group: readers in one group.
    """

    name: str
    says: str
    rate: float
    event_bytes: int
    population: int
    last: int = 0
    conflates: bool = False
    group: int = 5000

    @abstractmethod
    def published(self) -> Sequence[str]:
        """The topics that events go to, in turn."""

    @abstractmethod
    def followed(self, group: int) -> tuple[str, ...]:
        """The topics of a group's readers, as templates."""

    def topics_of(self, reader: int) -> list[str]:
        """The topics of one reader."""
        group, number = divmod(reader, self.group)
        return [fill(template, number) for template in self.followed(group)]


class News(Scenario):
    """All readers follow one topic."""

    def published(self) -> Sequence[str]:
        return ["news"]

    def followed(self, group: int) -> tuple[str, ...]:
        return ("news",)


class Ticks(Scenario):
    """Each reader follows a symbol of each of three boards; the small board's are the popular."""

    def published(self) -> Sequence[str]:
        return [
            f"stocks/{board}{n}"
            for board, symbols in zip("abc", self._boards(), strict=True)
            for n in range(symbols)
        ]

    def followed(self, group: int) -> tuple[str, ...]:
        return tuple(
            f"stocks/{board}{{n%{symbols}}}"
            for board, symbols in zip("abc", self._boards(), strict=True)
        )

    def _boards(self) -> tuple[int, int, int]:
        half, fifth = self.population // 2, self.population // 5
        sizes = (half, self.population - half - fifth, fifth)
        return (max(1, sizes[0]), max(1, sizes[1]), max(1, sizes[2]))


class Notifications(Scenario):
    """Each reader is a user with a topic of their own, and all hear the announcements."""

    def published(self) -> Sequence[str]:
        users = (divmod(user, self.group) for user in range(self.population))
        return [*(f"user/{group}/{n}" for group, n in users), "announcements"]

    def followed(self, group: int) -> tuple[str, ...]:
        return (f"user/{group}/{{n}}", "announcements")


class LogTail(Scenario):
    """Each reader tails one of a few busy logs, from a little before now."""

    def published(self) -> Sequence[str]:
        return [f"log/{n}" for n in range(self.population)]

    def followed(self, group: int) -> tuple[str, ...]:
        return (f"log/{{n%{self.population}}}",)


SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        News("news", "one topic that all readers follow", 10, 512, 1),
        Ticks("ticks", "many small topics, three a reader, lag policy latest", 1000, 128, 100,
              last=1, conflates=True),
        Notifications("notifications", "a topic a user, and one that all hear", 200, 256, 5000),
        LogTail("log", "a few busy topics, joined at their last lines", 200, 200, 10, last=20),
    )
}  # fmt: skip


def fill(template: str, number: int) -> str:
    """`user/{n%100}` for reader 4207 is `user/7`."""
    return _MARK.sub(lambda mark: str(number % int(mark[1]) if mark[1] else number), template)
