"""Line plots as inline SVG, coloured by the page's own style sheet."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

WIDTH, HEIGHT = 600, 400
LEFT, RIGHT, TOP, BOTTOM = 84, 20, 14, 58

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale.

    Attributes:
        unit: follows each value in a tooltip.
        log: values lie at their logarithm; they must be above 0.
    """

    title: str
    unit: str
    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        """Where a value lies: 0 at the low end, 1 at the high one."""
        if not self.log:
            return (value - self.low) / (self.high - self.low)
        value = max(value, self.low)
        return math.log(value / self.low) / math.log(self.high / self.low)

    def ticks(self) -> list[float]:
        """Round values between the ends."""
        return _log_ticks(self.low, self.high) if self.log else _linear_ticks(self.low, self.high)


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of each power of ten; only the powers when that would crowd the axis."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if math.log10(high / low) <= 3 else (1,)
    values = [step * 10.0**power for power in powers for step in steps]
    return [value for value in values if low * 0.999 <= value <= high * 1.001]


def _linear_ticks(low: float, high: float) -> list[float]:
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * n for n in (1, 2, 5, 10) if power * n >= rough)
    first = math.ceil(low / step)
    return [step * n for n in range(first, math.floor(high / step + 1e-9) + 1)]


@dataclass(frozen=True, slots=True)
class Series:
    """A line through `points` (medians), and what each repeat found.

    Attributes:
        style: classes of the style sheet: `one`, `two`, `three`, or `guide` (dashed, no marks)
            with or without `floor`.
        hollow: x values whose marks are not filled.
    """

    name: str
    points: Sequence[Point]
    style: str
    repeats: Sequence[Point] = ()
    hollow: frozenset[float] = field(default_factory=frozenset)


def short(value: float) -> str:
    """`12.5k`, `3M`, `0.2`."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.3g}"


def around(values: Sequence[float], *, log: bool) -> tuple[float, float]:
    """The ends of an axis that shows all the values; linear ones begin at 0."""
    top = max([*values, 1e-9])
    if not log:
        return 0.0, top * 1.08
    low = min(value for value in [*values, top] if value > 0)
    return low / 1.25, max(top * 1.25, low * 2)


def plot(label: str, x: Axis, y: Axis, series: Sequence[Series]) -> Markup:
    """The plot; `label` tells those who can't see it what it is of."""
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">',
        *_grid(x, y),
    ]
    for line in series:
        parts += _line(line, x, y)
    return Markup("\n".join([*parts, "</svg>"]))


def _at(x: Axis, y: Axis, point: Point) -> Point:
    across = LEFT + x.share(point[0]) * (WIDTH - LEFT - RIGHT)
    down = HEIGHT - BOTTOM - y.share(point[1]) * (HEIGHT - TOP - BOTTOM)
    return round(across, 1), round(down, 1)


def _grid(x: Axis, y: Axis) -> Iterator[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    for value in y.ticks():
        down = _at(x, y, (x.low, value))[1]
        yield f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{down}" y2="{down}"/>'
        yield f'<text class="tick" x="{LEFT - 8}" y="{down + 5}" text-anchor="end">'
        yield f"{short(value)}</text>"
    for value in x.ticks():
        across = _at(x, y, (value, y.low))[0]
        yield f'<line class="grid" x1="{across}" x2="{across}" y1="{TOP}" y2="{bottom}"/>'
        yield f'<text class="tick" x="{across}" y="{bottom + 20}" text-anchor="middle">'
        yield f"{short(value)}</text>"
    yield f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>'
    middle = (LEFT + right) / 2
    yield f'<text class="title" x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">'
    yield f"{escape(x.title)}</text>"
    half = (TOP + bottom) / 2
    yield f'<text class="title" transform="translate(18 {half}) rotate(-90)"'
    yield f' text-anchor="middle">{escape(y.title)}</text>'


def _line(line: Series, x: Axis, y: Axis) -> Iterator[str]:
    places = [_at(x, y, point) for point in line.points]
    path = " ".join(f"{across},{down}" for across, down in places)
    yield f'<polyline class="line {line.style}" points="{path}"/>'
    if line.style.startswith("guide"):
        return
    for across, down in (_at(x, y, point) for point in line.repeats):
        yield f'<circle class="repeat {line.style}" cx="{across}" cy="{down}" r="2.5"/>'
    for (across, down), (value, height) in zip(places, line.points, strict=True):
        hollow = " hollow" if value in line.hollow else ""
        said = f"{line.name}: {height:,.4g} {y.unit} at {value:,.6g} {x.unit}"
        yield f'<circle class="mark {line.style}{hollow}" cx="{across}" cy="{down}" r="4.5">'
        yield f"<title>{escape(said)}</title></circle>"
