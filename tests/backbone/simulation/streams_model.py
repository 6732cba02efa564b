"""What durable streams should be: the oracle of the simulation with streams."""

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Seen: TypeAlias = Literal["absent", "hidden"] | tuple[str, bool]
"""What a reader sees of a name: its whole text, and whether it is closed."""


@dataclass
class Stream:
    """One stream. `offsets`: by each offset that was given, how much text lies before it."""

    generation: int
    text: str = ""
    is_closed: bool = False
    is_hidden: bool = False
    source: tuple[str, int] | None = None
    forks: int = 0
    offsets: dict[int, int] = field(default_factory=dict)


@dataclass
class Step:
    """One change that was asked for. `place`: an offset that its answer gave."""

    op: Literal["create", "fork", "append", "close", "delete"]
    name: str
    text: str = ""
    source: str = ""
    place: int = 0
    generation: int = 0


class Model:
    """All streams by name, as far as changes were acknowledged."""

    def __init__(self) -> None:
        self.streams: dict[str, Stream] = {}

    def copy(self) -> "Model":
        """The same, independent."""
        return deepcopy(self)

    def apply(self, step: Step) -> None:
        """Makes a change that was acknowledged, or that may have been made."""
        getattr(self, f"_{step.op}")(step)

    def view(self, names: tuple[str, ...]) -> dict[str, Seen]:
        """What readers see."""
        return {name: self._seen(name) for name in names}

    def _seen(self, name: str) -> Seen:
        stream = self.streams.get(name)
        if stream is None:
            return "absent"
        return "hidden" if stream.is_hidden else (stream.text, stream.is_closed)

    def _create(self, step: Step) -> None:
        offsets = {step.place: len(step.text)} if step.place else {}
        self.streams[step.name] = Stream(step.generation, step.text, offsets=offsets)

    def _fork(self, step: Step) -> None:
        source = self.streams[step.source]
        source.forks += 1
        stream = Stream(step.generation, source.text, source=(step.source, source.generation))
        stream.offsets = dict(source.offsets)
        self.streams[step.name] = stream

    def _append(self, step: Step) -> None:
        stream = self.streams[step.name]
        stream.text += step.text
        if step.place:
            stream.offsets[step.place] = len(stream.text)

    def _close(self, step: Step) -> None:
        self.streams[step.name].is_closed = True

    def _delete(self, step: Step) -> None:
        stream = self.streams[step.name]
        if stream.forks:
            stream.is_hidden = True
            return
        del self.streams[step.name]
        while stream.source is not None:
            above = self.streams.get(stream.source[0])
            assert above is not None
            above.forks -= 1
            if above.forks or not above.is_hidden:
                return
            del self.streams[stream.source[0]]
            stream = above
