"""A token taken apart, strictly: what is odd is refused before anything is made of it.

The compact form of RFC 7515 §3.1, three parts of canonical base64url. Nothing that the token
says about how to verify it is followed, but for the names of an algorithm and a key, which only
choose among those that are configured.
"""

import json
import math
import re
from binascii import Error as NotBase64
from binascii import a2b_base64, b2a_base64
from typing import Any, Final, NamedTuple, NoReturn

from fastsse.errors import Unauthorised

__all__ = ["TOKEN_MAX_BYTES", "Token", "open_token", "read_payload"]

TOKEN_MAX_BYTES: Final = 32 * 1024
_KID_MAX: Final = 256
_PARTS: Final = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_STANDARD: Final = bytes.maketrans(b"-_", b"+/")
# A header that asks for more than a signature to be checked, or brings its own key.
_REFUSED_MEMBERS: Final = ("crit", "b64", "zip", "enc", "jwk", "jku", "x5u")
# A token made for something else says so (RFC 8725 §3.11); most say nothing.
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})


class Token(NamedTuple):
    """A token whose signature was not looked at yet."""

    algorithm: str
    kid: str | None
    signed: bytes
    signature: bytes
    payload: bytes


def open_token(raw: bytes) -> Token:
    """Takes a token apart. Raises Unauthorised. O(bytes), of which there are at most 32 KiB."""
    if len(raw) > TOKEN_MAX_BYTES:
        raise Unauthorised(f"The token has more than {TOKEN_MAX_BYTES} bytes.")
    parts = _PARTS.fullmatch(raw)
    if parts is None:
        if raw.count(b".") == 4:
            raise Unauthorised("Encrypted tokens (JWE) are not accepted.")
        raise Unauthorised("The token is no signed JWT: three parts of base64url.")
    header = _read_object(_decode(parts[1]), "header")
    algorithm, kid = _read_header(header)
    signed = raw[: parts.end(2)]
    return Token(algorithm, kid, signed, _decode(parts[3]), _decode(parts[2]))


def read_payload(token: Token) -> dict[str, Any]:
    """The claims. To be called when the signature was found to be right."""
    return _read_object(token.payload, "payload")


def _read_header(header: dict[str, Any]) -> tuple[str, str | None]:
    for name in _REFUSED_MEMBERS:
        if name in header:
            raise Unauthorised(f"The token's header has {name}, which is not accepted.")
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ")
    if not isinstance(algorithm, str):
        raise Unauthorised("The token's header has no alg.")
    if kid is not None and not (isinstance(kid, str) and len(kid) <= _KID_MAX):
        raise Unauthorised(f"The token's kid is no text of at most {_KID_MAX} characters.")
    if kind is not None and not (isinstance(kind, str) and kind.lower() in _TYPES):
        raise Unauthorised("The token's typ is not JWT or at+jwt: it is meant for something else.")
    return algorithm, kid


def _decode(part: bytes) -> bytes:
    """base64url without padding; one spelling for each value, so unused bits must be 0."""
    standard = part.translate(_STANDARD)
    try:
        decoded = a2b_base64(standard + b"=" * (-len(part) % 4))
    except NotBase64:
        raise Unauthorised("The token is not base64url.") from None
    if b2a_base64(decoded, newline=False).rstrip(b"=") != standard:
        raise Unauthorised("The token is not canonical base64url.")
    return decoded


def _read_object(raw: bytes, part: str) -> dict[str, Any]:
    try:
        value = _decoder.decode(raw.decode())
    except _Odd as error:
        raise Unauthorised(f"The token's {part} has {error}.") from None
    except (ValueError, RecursionError):
        raise Unauthorised(f"The token's {part} is not JSON.") from None
    if not isinstance(value, dict):
        raise Unauthorised(f"The token's {part} is no JSON object.")
    return value


class _Odd(Exception):
    """Valid to a parser, and read differently by different ones."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _Odd("a name that stands twice")
    return members


def _no_constant(_: str) -> NoReturn:
    raise _Odd("a number that is none")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _Odd("a number that is too large")
    return number


def _whole(text: str) -> int:
    if len(text) > 20:
        raise _Odd("a number that is too long")
    return int(text)


_decoder: Final = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_constant=_no_constant,
    parse_float=_finite,
    parse_int=_whole,
)
