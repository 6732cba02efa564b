"""Signatures of Standard Webhooks (https://www.standardwebhooks.com), version 1.

The id, the time and the body are signed with HMAC-SHA256. A receiver refuses an old time, so that a
recorded request can't be sent again later. Within the window it remembers the ids.
"""

import base64
import binascii
import hmac
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final

__all__ = ["ID_BYTES_MAX", "InvalidSignature", "Signer"]

PREFIX: Final = "whsec_"
SECRET_BYTES_MIN, SECRET_BYTES_MAX = 24, 64
ID_BYTES_MAX: Final = 200
_SIGNATURES_MAX: Final = 20


class InvalidSignature(Exception):
    """A request with a wrong signature, or with a time outside the window. The text says why,
    without the secret or the signature."""


class Signer:
    """Signs and verifies with one secret or several.

    Arguments:
        secrets: each `whsec_` and base64 of 24 to 64 bytes. The first signs; all verify, so that a
            secret can be replaced without a pause.
        window_s: by how much a time may differ from now.

    Raises ValueError for a secret that is none; its text contains no part of it.
    """

    def __init__(self, secrets: Sequence[str], window_s: float = 300.0) -> None:
        if not secrets:
            raise ValueError("needs a secret")
        self._keys: Final = tuple(map(_key, secrets))
        self._window_s: Final = window_s

    def sign(self, message_id: str, time_s: int, body: bytes) -> dict[str, str]:
        """The three headers of a request. Each secret makes one signature."""
        signatures = [_signature(key, message_id, str(time_s), body) for key in self._keys]
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(time_s),
            "webhook-signature": " ".join(f"v1,{one}" for one in signatures),
        }

    def verify(self, headers: Mapping[str, str], body: bytes, now_s: float) -> str:
        """The id of a request that was signed with a secret within the window. `headers` have names
        in lower case. Raises InvalidSignature. O(bytes)."""
        message_id = headers.get("webhook-id", "")
        time_text = headers.get("webhook-timestamp", "")
        given = headers.get("webhook-signature", "").split(" ", _SIGNATURES_MAX)[:_SIGNATURES_MAX]
        if not 0 < len(message_id) <= ID_BYTES_MAX:
            raise InvalidSignature("webhook-id is missing or too long")
        if not time_text.isascii() or not time_text.isdecimal() or len(time_text) > 12:
            raise InvalidSignature("webhook-timestamp is missing or no time")
        # Before the time is checked, so that a client without the secret can't probe the clock.
        wanted = [f"v1,{_signature(key, message_id, time_text, body)}" for key in self._keys]
        pairs = [(one.encode(), other.encode()) for one in wanted for other in given]
        # All are compared, so that the time does not depend on which one matches.
        if not any([hmac.compare_digest(one, other) for one, other in pairs]):
            raise InvalidSignature("webhook-signature does not match")
        if abs(now_s - int(time_text)) > self._window_s:
            raise InvalidSignature("webhook-timestamp is outside of the window")
        return message_id


def _signature(key: bytes, message_id: str, time_text: str, body: bytes) -> str:
    signed = b"%s.%s.%s" % (message_id.encode(), time_text.encode(), body)
    return base64.b64encode(hmac.digest(key, signed, sha256)).decode()


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(PREFIX) or not SECRET_BYTES_MIN <= len(key) <= SECRET_BYTES_MAX:
        raise ValueError(
            f"must be {PREFIX} and the base64 of {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes"
        )
    return key
