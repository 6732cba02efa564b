"""What a trial brought to light. Plain values, so that judging them needs no network."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fastsse.doctor.path.stream import End


@dataclass(frozen=True, slots=True)
class OpeningEvidence:
    """The answer's head and first bytes; times in seconds after the request, None: never came.

    `problem`: why there was no answer at all. `shaken_bytes`: it came only after so much had been
    published; None: it came by itself, or not even so. `silent`: publishing worked, but no answer
    ever came.
    """

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    first_byte_after_s: float | None = None
    shaken_bytes: int | None = None
    silent: bool = False
    is_fastsse: bool = False
    problem: str = ""
    body: str = ""


@dataclass(frozen=True, slots=True)
class Timed:
    """Events published one by one.

    `delays_s`: from publishing to arrival, None: did not come in time. `released_bytes`: so much
    had to follow until something came; None: nothing did, or nothing had to. `encoding`: of the
    answer, as far as `readable`.
    """

    encoding: str
    readable: bool
    delays_s: tuple[float | None, ...]
    released_bytes: int | None = None

    def is_late(self, late_s: float) -> bool:
        """Whether any event was held back, or lost."""
        return any(delay is None or delay > late_s for delay in self.delays_s)

    @property
    def lost(self) -> int:
        """How many did not come though a later one did: nothing holds them, they are gone."""
        came = [delay is not None for delay in self.delays_s]
        return came[: len(came) - came[::-1].index(True)].count(False) if any(came) else 0


@dataclass(frozen=True, slots=True)
class Resumed:
    """What came after a cut: the numbers of the events missed (published while away, from 1), in
    the order they came, and the gap event's reason, if there was one. `problem`: no stream."""

    numbers: tuple[int, ...] = ()
    gap: str = ""
    problem: str = ""

    def is_whole(self, count: int) -> bool:
        """Whether each came once and in order."""
        return self.numbers == tuple(range(1, count + 1)) and not self.gap


@dataclass(frozen=True, slots=True)
class Watched:
    """A stream held for a while. `comments`: heartbeats that arrived after the opening."""

    held_s: float
    worst_gap_s: float
    comments: int
    end: End | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """All of a trial; None: not come so far.

    `publishing`: why nothing could be published. `timed` has a second entry when the first was
    compressed and late: without compression. `by_query`: resuming with the id in the URL, tried
    when the header did not do it. `busy` got an event a second, `quiet` only heartbeats.
    """

    opening: OpeningEvidence
    publishing: str = ""
    timed: tuple[Timed, ...] = ()
    away_events: int = 0
    by_header: Resumed | None = None
    by_query: Resumed | None = None
    busy: Watched | None = None
    quiet: Watched | None = None
