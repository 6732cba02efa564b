"""Numbers as the doctor writes them."""

from fastsse.doctor.machine import UNLIMITED

UNREADABLE = "can't be read"


def count(number: int | None) -> str:
    """`1,048,576`; `unlimited`."""
    if number is None:
        return UNREADABLE
    return "unlimited" if number >= UNLIMITED else f"{number:,}"


def counts(numbers: tuple[int, ...] | None) -> str:
    """As they stand in the file: `287901 383869 575802`."""
    return UNREADABLE if numbers is None else " ".join(map(str, numbers))


def size(size_bytes: float | None) -> str:
    """Three digits and a binary unit: `4.51 GiB`."""
    if size_bytes is None:
        return UNREADABLE
    for unit, unit_bytes in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(size_bytes) >= unit_bytes:
            return f"{short(size_bytes / unit_bytes)} {unit}"
    return f"{size_bytes:,.0f} B"


def short(number: float) -> str:
    """Three digits, more before the point where there are more: `0.063`, `4.51`, `1,020`."""
    return f"{number:.3g}" if abs(number) < 999.5 else f"{number:,.0f}"


def harmless(text: str) -> str:
    """Without what could steer a terminal: servers and proxies wrote some of it. Lines stay."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
