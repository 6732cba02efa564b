"""Parses tokens strictly: an irregular token is refused before any part is used.

A token has the compact form of RFC 7515 §3.1: three parts of canonical base64url. Of its header
only the names of an algorithm and a key are used, and they only choose among the configured ones.
"""

from binascii import Error as NotBase64
from binascii import a2b_base64
from typing import Any, Final, NamedTuple

from fastsse.auth.objects import Odd, read_object
from fastsse.errors import Unauthorised

__all__ = ["TOKEN_BYTES_MAX", "Token", "open_token", "read_payload"]

TOKEN_BYTES_MAX: Final = 32 * 1024
_KID_MAX: Final = 256
# From base64url to base64. Characters that are invalid in base64url become characters that are
# invalid in both.
_STANDARD: Final = bytes.maketrans(b"-_+/=", b"+/!!!")
# By the length of a part modulo 4: its padding, and its allowed last characters. Unused bits must
# be 0, so each value has one spelling.
_PADDING: Final = (b"", None, b"==", b"=")
_LAST: Final = (None, None, frozenset(b"AQgw"), frozenset(b"AEIMQUYcgkosw048"))
# Members that require more than the check of a signature, or that carry a key.
_REFUSED_MEMBERS: Final = ("crit", "b64", "zip", "enc", "jwk", "jku", "x5u")
# A token for another purpose has another type (RFC 8725 §3.11); most tokens have none.
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})
# Cache of parsed headers, because all tokens of an issuer have the same. Bounds: their number, and
# bytes of each.
_HEADERS_MAX: Final = 256
_HEADER_BYTES: Final = 512
_headers: Final[dict[bytes, tuple[str, str | None]]] = {}


class Token(NamedTuple):
    """A token whose signature is not verified yet."""

    algorithm: str
    kid: str | None
    signed: bytes
    signature: bytes
    payload: bytes


def open_token(raw: bytes) -> Token:
    """Parses a token of at most 32 KiB. Raises Unauthorised. O(bytes)."""
    if len(raw) > TOKEN_BYTES_MAX:
        raise Unauthorised(f"The token has more than {TOKEN_BYTES_MAX} bytes.")
    parts = raw.translate(_STANDARD).split(b".", 5)
    if len(parts) != 3:
        if len(parts) == 5:
            raise Unauthorised("Encrypted tokens (JWE) are not accepted.")
        raise Unauthorised("The token is not a signed JWT: three parts of base64url.")
    head, body, signature = parts
    known = _headers.get(head)
    if known is None:
        known = _read_header(_read_object(_decode(head), "header"))
        _remember(head, known)
    signed = raw[: len(head) + 1 + len(body)]
    return Token(*known, signed, _decode(signature), _decode(body))


def read_payload(token: Token) -> dict[str, Any]:
    """The claims. Call it after the signature is verified."""
    return _read_object(token.payload, "payload")


def _remember(head: bytes, known: tuple[str, str | None]) -> None:
    if len(head) <= _HEADER_BYTES:
        if len(_headers) >= _HEADERS_MAX:
            _headers.clear()
        _headers[head] = known


def _read_header(header: dict[str, Any]) -> tuple[str, str | None]:
    for name in _REFUSED_MEMBERS:
        if name in header:
            raise Unauthorised(f"The token's header has {name}, which is not accepted.")
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ")
    if not isinstance(algorithm, str):
        raise Unauthorised("The token's header has no alg.")
    if kid is not None and not (isinstance(kid, str) and len(kid) <= _KID_MAX):
        raise Unauthorised(f"The token's kid is not a string of at most {_KID_MAX} characters.")
    if kind is not None and not (isinstance(kind, str) and kind.lower() in _TYPES):
        raise Unauthorised("The token's typ is not JWT or at+jwt: it is for another purpose.")
    return algorithm, kid


def _decode(part: bytes) -> bytes:
    """Decodes base64url without padding, in canonical form only."""
    length = len(part) % 4
    padding, last = _PADDING[length], _LAST[length]
    if not part or padding is None or (last is not None and part[-1] not in last):
        raise Unauthorised("The token is not a signed JWT: three parts of canonical base64url.")
    try:
        return a2b_base64(part + padding, strict_mode=True)
    except NotBase64:
        raise Unauthorised("The token is not a signed JWT: three parts of base64url.") from None


def _read_object(raw: bytes, part: str) -> dict[str, Any]:
    try:
        return read_object(raw)
    except Odd as error:
        raise Unauthorised(f"The token's {part} {error}.") from None
