"""The key that signs webhooks (Ed25519), and the tokens that an answer to a wake carries."""

import base64
import hmac
import secrets
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final, Protocol

__all__ = ["WakeKeys", "WakeStore"]

_KEY: Final = "key"
_KEY_BYTES: Final = 32


class WakeStore(Protocol):
    """Where subscriptions and the key are kept: a `ControlStore`, or `OwnedValues`."""

    def get(self, key: str) -> bytes | None: ...

    def put(self, key: str, value: bytes | None) -> None: ...

    def items(self, prefix: str = "") -> Sequence[tuple[str, bytes]]: ...

    def when_stored(self, done: Callable[[bool], None]) -> None: ...


class WakeKeys:
    """The server's keys, kept in a store. The first use makes them.

    Attributes:
        kid: the id of the key that signs.
    """

    def __init__(self, store: WakeStore) -> None:
        # Only a server with subscriptions needs them.
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        kept = store.get(_KEY)
        if kept is None or len(kept) != _KEY_BYTES:
            kept = secrets.token_bytes(_KEY_BYTES)
            store.put(_KEY, kept)
        self._key: Final = Ed25519PrivateKey.from_private_bytes(kept)
        self._public: Final = self._key.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        )
        self._secret: Final = sha256(b"tokens of wakes" + kept).digest()
        self.kid: Final = "ds_" + _text(sha256(self._public).digest()[:12])

    def jwks(self) -> dict[str, object]:
        """The public key as a JWK Set (RFC 8037)."""
        key = {"kty": "OKP", "crv": "Ed25519", "kid": self.kid, "use": "sig", "alg": "EdDSA"}
        return {"keys": [{**key, "x": _text(self._public)}]}

    def signature(self, body: bytes, time_s: int) -> str:
        """The header `Webhook-Signature` of a request (protocol section 7.1)."""
        signed = self._key.sign(b"%d." % time_s + body)
        return f"t={time_s},kid={self.kid},ed25519={_text(signed)}"

    def token(self, subscription: str, generation: int, wake: str) -> str:
        """The token that an answer to a wake must carry."""
        return _text(self._digest(subscription, generation, wake))

    def accepts(self, token: str, subscription: str, generation: int, wake: str) -> bool:
        """Whether a token is that of a wake."""
        known = self.token(subscription, generation, wake)
        return hmac.compare_digest(token.encode(errors="replace"), known.encode())

    def _digest(self, subscription: str, generation: int, wake: str) -> bytes:
        text = f"{subscription}\n{generation}\n{wake}".encode()
        return hmac.digest(self._secret, text, "sha256")


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
