"""Keeps tuning.md in step with options, settings, figures and proxies.

    python -m tests.docs.tuning tuning.md

writes its tables again, between `<!-- begin NAME -->` and `<!-- end NAME -->`. Everything else in
the file is written by hand. A test fails while the file differs from what this writes.
"""

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from fastsse.config import Option, catalogue
from fastsse.config.kinds import COUNT, DURATION, SIZE
from fastsse.doctor.goal import Goal
from fastsse.doctor.kernel_settings import SETTINGS
from fastsse.doctor.measured import FIGURES, MEASURED_ON
from fastsse.doctor.option_advice import ADVICE
from fastsse.doctor.path.proxies import PROXIES, ProxyTrouble
from fastsse.doctor.words import counts, short, size

_SIZES = (10_000, 100_000, 1_000_000)
_UNITS = {DURATION: "time", SIZE: "bytes", COUNT: "number"}


def options() -> Iterator[str]:
    """Our options: unit, default, symptom, metric."""
    yield from _head("option", "unit", "default", "allowed", "a wrong value shows as", "watch")
    for name, option in catalogue().items():
        advice = ADVICE[name]
        allowed = option.bounds if option.kind in _UNITS else option.kind.words
        yield _row(
            f"`{name}`",
            _unit(option),
            f"`{option.default}`",
            allowed,
            advice.symptom,
            advice.watch,
        )


def _unit(option: Option) -> str:
    return _UNITS.get(option.kind, "text" if option.kind.metavar else "switch")


def settings() -> Iterator[str]:
    """The kernel's settings."""
    yield from _head(
        "setting",
        "unit",
        "default",
        "set it to",
        "a wrong value shows as",
        "watch",
        "where",
        "source",
    )
    for setting in SETTINGS.values():
        yield _row(
            f"`{setting.name}`",
            setting.unit,
            setting.default,
            setting.advice,
            setting.symptom,
            setting.watch,
            setting.scope,
            setting.source,
        )


def figures() -> Iterator[str]:
    """What we measured."""
    yield f"Measured {MEASURED_ON}."
    yield ""
    yield from _head("figure", "value", "is", "spread", "from")
    for name, figure in FIGURES.items():
        value = size(figure.value) if figure.value >= 2**20 else f"{short(figure.value)}"
        unit = "" if figure.value >= 2**20 else f" {figure.unit}"
        source = f"`{figure.source}`" + (f", [run]({figure.run})" if figure.run else "")
        yield _row(f"`{name}`", f"{value}{unit}", figure.what, figure.spread, source)


def sizes() -> Iterator[str]:
    """The formulas, worked out."""
    yield from _head(
        "connections",
        "`LimitNOFILE`",
        "memory at rest",
        "a topic each",
        "an event to all",
        "cores for heartbeats",
        "`tcp_mem` (pages)",
        "`somaxconn`",
    )
    for connections in _SIZES:
        goal = Goal(connections, memory_limit_bytes=0)
        own = Goal(connections, own_topics=True, memory_limit_bytes=0)
        yield _row(
            f"{connections:,}",
            str(goal.descriptors_asked),
            size(goal.idle_bytes),
            size(own.idle_bytes),
            f"{size(goal.busy_bytes - goal.idle_bytes)} more, {_at_once_s(goal)} of CPU",
            short(goal.cores_at_rest),
            counts(goal.tcp_mem_pages),
            str(goal.backlog),
        )


def _at_once_s(goal: Goal) -> str:
    return f"{short(goal.connections * FIGURES['SEND_US'].value / 1e6)} s"


def proxies() -> Iterator[str]:
    """What to set at a proxy."""
    yield from _head("proxy", *(f"it {trouble}" for trouble in ProxyTrouble))
    for proxy in PROXIES:
        yield _row(proxy.name, *(proxy.remedies.get(trouble, "") for trouble in ProxyTrouble))


BLOCKS: dict[str, Callable[[], Iterable[str]]] = {
    "options": options,
    "settings": settings,
    "figures": figures,
    "sizes": sizes,
    "proxies": proxies,
}


def renewed(text: str) -> str:
    """The document with its tables written again. Raises ValueError when one has no place."""
    for name, block in BLOCKS.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        found = re.search(f"{begin}\n.*?{end}", text, re.DOTALL)
        if not found:
            raise ValueError(f"there is no {begin} … {end}")
        written = "\n".join((begin, *block(), end))
        text = text[: found.start()] + written + text[found.end() :]
    return text


def _head(*names: str) -> Iterator[str]:
    yield _row(*names)
    yield _row(*("---" for _ in names))


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") or "-" for cell in cells) + " |"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(renewed(path.read_text()))
