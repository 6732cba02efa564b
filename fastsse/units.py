"""Values with units as people write them: durations in seconds, sizes in bytes.

Both readers are exact (decimal arithmetic), take plain numbers too, and refuse what is negative,
not finite or not understood. Nothing here knows an option.
"""

import math
import re
from decimal import Decimal

SECONDS_OF_UNIT = {
    "w": Decimal(604800),
    "d": Decimal(86400),
    "h": Decimal(3600),
    "m": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("0.001"),
}
BYTES_OF_UNIT = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "KIB": 2**10,
    "MB": 10**6,
    "MIB": 2**20,
    "GB": 10**9,
    "GIB": 2**30,
    "TB": 10**12,
    "TIB": 2**40,
}
# Eighteen digits hold every 64-bit count; more would only feed arithmetic on absurd numbers.
_NUMBER = r"\d{1,18}(?:\.\d{1,18})?"
_PLAIN = re.compile(_NUMBER, re.ASCII)
_DURATION = re.compile(
    "".join(rf"(?:(?P<{unit}>{_NUMBER}) ?{unit} ?)?" for unit in SECONDS_OF_UNIT), re.ASCII
)
_SIZE = re.compile(rf"({_NUMBER}) ?([kmgt]?i?b|)", re.ASCII | re.IGNORECASE)


def parse_duration_s(value: object) -> float:
    """Seconds from `10s`, `1h30m`, `250ms`, `1.5d` or a plain number of seconds.

    Units are w, d, h, m, s, ms, each at most once and in that order.
    Raises ValueError for anything else: negative, not finite, empty, a bool.
    """
    if isinstance(value, str):
        return float(_duration_of_text(value.strip()))
    if isinstance(value, int | float) and not isinstance(value, bool):
        if math.isfinite(value) and value >= 0:
            return float(value)
        raise ValueError("must be a finite number that is not negative")
    raise ValueError("must be a duration")


def _duration_of_text(text: str) -> Decimal:
    if _PLAIN.fullmatch(text):
        return Decimal(text)
    match = _DURATION.fullmatch(text)
    if not match or not text:
        raise ValueError("must be a duration such as 10s or 1m30s")
    return sum(
        (Decimal(number) * SECONDS_OF_UNIT[unit] for unit, number in match.groupdict("0").items()),
        Decimal(0),
    )


def parse_size_bytes(value: object) -> int:
    """Bytes from `1MiB`, `64KB`, `1.5GiB` or a plain number of bytes.

    KB, MB, GB, TB are powers of 1000, KiB, MiB, GiB, TiB of 1024; letter case does not matter.
    Raises ValueError for anything else, and when it is not a whole number of bytes.
    """
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if not match or match[2].upper() not in BYTES_OF_UNIT:
            raise ValueError("must be a size such as 64KB or 1MiB")
        value = Decimal(match[1]) * BYTES_OF_UNIT[match[2].upper()]
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a size")
    if not math.isfinite(value) or value < 0 or value != int(value):
        raise ValueError("must be a whole number of bytes that is not negative")
    return int(value)


def counted(count: int, noun: str) -> str:
    """`1 gap event`, `1,200 gap events`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration_s` reads back as the same number of milliseconds.

    Below a millisecond the plain number of seconds is given.
    """
    left_ms = round(seconds * 1000)
    if left_ms == 0 or abs(left_ms / 1000 - seconds) > 1e-9:
        return f"{seconds:.9f}".rstrip("0").rstrip(".") if seconds else "0s"
    parts = []
    for unit, unit_s in SECONDS_OF_UNIT.items():
        if unit == "w":  # Days read better than weeks.
            continue
        count, left_ms = divmod(left_ms, int(unit_s * 1000))
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def format_size(size_bytes: int) -> str:
    """The size in the largest binary unit that divides it: `16MiB`, `1500B`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        unit_bytes = BYTES_OF_UNIT[unit.upper()]
        if size_bytes and size_bytes % unit_bytes == 0:
            return f"{size_bytes // unit_bytes}{unit}"
    return f"{size_bytes}B"
