"""Keys that verify tokens. The key decides the algorithms, not the token.

A key is a secret (HMAC) or a public key in PEM. When it is read, it is bound to the algorithms of
its kind. So a public key is never used as an HMAC secret for a token that names HS256, and a secret
never for RS256. The cryptography is PyJWT's. It is imported when the first key other than a plain
secret is read.
"""

import hmac
import json
import re
import stat
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fastsse.auth.roca import has_roca_weakness

if TYPE_CHECKING:
    from jwt.algorithms import Algorithm

__all__ = [
    "ALGORITHMS",
    "ASYMMETRIC",
    "BadKey",
    "Key",
    "WeakKey",
    "check_key",
    "encode_token",
    "key_of_jwk",
    "read_key",
    "signing_key",
]

HMAC: Final = ("HS256", "HS384", "HS512")
_HASHES: Final = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}
_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
ASYMMETRIC: Final = (*_RSA, *_CURVES.values(), "EdDSA")
ALGORITHMS: Final = (*HMAC, *ASYMMETRIC)
# The default algorithm of a kind of key, if the options name none.
_USUAL: Final = ("HS256", "RS256")

# RFC 7518 §3.2: as long as the hash. RFC 7518 §3.3: RSA of 2048 bits.
_SECRET_BYTES: Final = {"HS256": 32, "HS384": 48, "HS512": 64}
_RSA_BITS: Final = 2048
# Larger ones cost milliseconds a token.
_RSA_BITS_MAX: Final = 16 * 1024
KEY_BYTES_MAX: Final = 64 * 1024
_PEM: Final = b"-----BEGIN "
PATH_STARTS: Final = ("/", "./", "../")
# Printable ASCII that is no SSH key, DER or JWK. If it has no PEM, PyJWT takes it unchanged.
_PLAIN_SECRET: Final = re.compile(rb"(?!ssh-|ecdsa-)[^\x00-\x1f\x7f-\xff{\[]+")


class BadKey(ValueError):
    """A key that can't be used. Its text completes "must be …" and contains no part of the key."""


class WeakKey(BadKey):
    """A key whose private half anyone can compute."""


class Key:
    """A key and the algorithms that it may verify. Immutable.

    Arguments:
        prepared: the key as PyJWT's algorithms take it, by their names.
        kid: its name in a key set; None is tried for tokens of any `kid`.
        until_s: unix seconds from which it is not valid any more.
    """

    __slots__ = ("_hmacs", "_verifiers", "kid", "until_s")

    def __init__(
        self, prepared: dict[str, Any], kid: str | None = None, until_s: float | None = None
    ) -> None:
        self._verifiers: Final = {
            name: (_algorithms()[name], key) for name, key in prepared.items() if name not in HMAC
        }
        # The HMAC state with the secret, computed once and copied for each token.
        self._hmacs: Final = {
            name: hmac.new(key, digestmod=_HASHES[name])
            for name, key in prepared.items()
            if name in HMAC
        }
        self.kid: Final = kid
        self.until_s: Final = until_s

    @property
    def algorithms(self) -> frozenset[str]:
        """The names of the algorithms that it may verify."""
        return frozenset(self._verifiers) | frozenset(self._hmacs)

    def verifies(self, algorithm: str, message: bytes, signature: bytes) -> bool:
        """Whether the signature was made with this key. False for an algorithm of another kind.

        Secrets are compared in constant time.
        """
        begun = self._hmacs.get(algorithm)
        if begun is not None:
            code = begun.copy()
            code.update(message)
            return hmac.compare_digest(code.digest(), signature)
        verifier = self._verifiers.get(algorithm)
        if verifier is None:
            return False
        how, key = verifier
        return how.verify(message, key, signature)

    def __repr__(self) -> str:
        return f"Key({', '.join(sorted(self.algorithms))})"


def read_key(text: str) -> bytes:
    """The key of an option: the text itself, or the content of the file that it names.

    A path begins with `/`, `./` or `../`. PEM text may have `\\n` written for its line ends, as
    environment files do. Raises BadKey. Reads a file.
    """
    raw = _read_file(Path(text)).strip(b"\r\n") if text.startswith(PATH_STARTS) else text.encode()
    if raw.startswith(_PEM) and b"\n" not in raw:
        raw = raw.replace(b"\\n", b"\n")
    if not raw:
        raise BadKey("a key; the file is empty")
    return raw


def _read_file(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # Opening a pipe would wait for a writer.
            raise BadKey("a file, not a folder or device")
        with path.open("rb") as file:
            raw = file.read(KEY_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, BadKey):
            raise
        why = (getattr(error, "strerror", None) or "no path").lower()
        detail = f"a file that can be read ({why}); what begins with / or . is a path"
        raise BadKey(detail) from None
    if len(raw) > KEY_BYTES_MAX:
        raise BadKey("a key of at most 64 KiB")
    return raw


def check_key(raw: bytes, algorithms: Sequence[str] = (), until_s: float | None = None) -> Key:
    """The key, bound to those of `algorithms` that fit its kind; without any: HS256, RS256, or the
    algorithm of its curve. Raises BadKey if none fits, if it is too short, and for a private key
    that can't be read."""
    public = _public_key(raw) if raw.startswith(_PEM) else None
    possible = HMAC if public is None else _kinds_of(public)
    chosen = [name for name in possible if name in (algorithms or _usual(possible))]
    if not chosen:
        kind = "a secret" if public is None else "this kind of PEM key"
        allowed = (
            " or ".join((", ".join(possible[:-1]), possible[-1])) if possible[1:] else possible[0]
        )
        raise BadKey(f"of a kind that the algorithms suit ({kind} is for {allowed})")
    if public is None:
        return Key(_prepare_secret(raw, chosen), until_s=until_s)
    return Key(dict.fromkeys(chosen, public), until_s=until_s)


def _usual(possible: Sequence[str]) -> Sequence[str]:
    return possible if len(possible) == 1 else _USUAL


def _prepare_secret(raw: bytes, algorithms: Sequence[str]) -> dict[str, Any]:
    for name in algorithms:
        if len(raw) < _SECRET_BYTES[name]:
            raise BadKey(f"a secret of at least {_SECRET_BYTES[name]} bytes for {name}")
    if _PLAIN_SECRET.fullmatch(raw) and b"----" not in raw:
        return dict.fromkeys(algorithms, raw)
    from jwt.exceptions import InvalidKeyError

    try:
        return {name: _algorithms()[name].prepare_key(raw) for name in algorithms}
    except InvalidKeyError:
        raise BadKey("a secret or a PEM key, not an SSH key, a certificate or a JWK") from None


def _public_key(pem: bytes) -> Any:
    """The public key of a PEM key or certificate; of a private one its public half."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        if b"PRIVATE KEY-----" in pem:
            return serialization.load_pem_private_key(pem, password=None).public_key()
        if b"-----BEGIN CERTIFICATE-----" in pem:
            return x509.load_pem_x509_certificate(pem).public_key()
        return serialization.load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise BadKey("a PEM key that can be read (without a password)") from None


def _kinds_of(public: Any) -> tuple[str, ...]:
    """The algorithms of a public key's kind. Raises BadKey for a kind or size not to be used, and
    WeakKey."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

    if isinstance(public, rsa.RSAPublicKey):
        if not _RSA_BITS <= public.key_size <= _RSA_BITS_MAX:
            raise BadKey(f"an RSA key of {_RSA_BITS} to {_RSA_BITS_MAX} bits")
        if has_roca_weakness(public.public_numbers().n):
            raise WeakKey("an RSA key without the ROCA weakness (CVE-2017-15361); make another")
        return _RSA
    if isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name in _CURVES:
        return (_CURVES[public.curve.name],)
    if isinstance(public, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return ("EdDSA",)
    raise BadKey("an RSA key, one on P-256, P-384 or P-521, or an Edwards key")


def signing_key(raw: bytes, algorithms: Sequence[str] = ()) -> tuple[Any, str]:
    """A key that signs, as PyJWT takes it, and the algorithm: the first that suits. For
    development tokens. Raises BadKey, also for a public key."""
    key = check_key(raw, algorithms)
    suiting = [name for name in algorithms or ALGORITHMS if name in key.algorithms]
    if not raw.startswith(_PEM):
        return raw, suiting[0]
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if b"PRIVATE KEY-----" not in raw:
        raise BadKey("private: a public key can't sign")
    return load_pem_private_key(raw, password=None), suiting[0]


def encode_token(claims: Mapping[str, Any], key: Any, algorithm: str, kid: str | None) -> str:
    """A token with these claims. `key` and `algorithm` are those of `signing_key`."""
    if algorithm not in HMAC:
        import jwt

        return jwt.encode(dict(claims), key, algorithm, headers={"kid": kid} if kid else None)
    header = {"alg": algorithm, **({"kid": kid} if kid else {}), "typ": "JWT"}
    signed = b".".join(
        _base64url(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims)
    )
    code = hmac.digest(key, signed, _HASHES[algorithm])
    return b".".join((signed, _base64url(code))).decode()


def _base64url(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


def key_of_jwk(jwk: Any, algorithms: Sequence[str]) -> Key | None:
    """The key of a key set's member (RFC 7517 §4), or None when it is not one to verify with:
    symmetric, for encryption, of another kind, too short, malformed, or not allowed here. Raises
    WeakKey."""
    from jwt.exceptions import PyJWTError

    if not isinstance(jwk, dict) or jwk.get("kty") not in ("RSA", "EC", "OKP"):
        return None
    kid, named, operations = jwk.get("kid"), jwk.get("alg"), jwk.get("key_ops")
    if jwk.get("use", "sig") != "sig" or not isinstance(kid, str | None):
        return None
    if operations is not None and not (isinstance(operations, list) and "verify" in operations):
        return None
    family = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}[jwk["kty"]]
    try:
        public: Any = type(_algorithms()[family]).from_jwk(jwk)
        public = public.public_key() if hasattr(public, "private_bytes") else public
        possible = _kinds_of(public)
    except WeakKey:
        raise
    except (PyJWTError, ValueError, TypeError, KeyError):
        return None
    chosen = [name for name in possible if name in algorithms and named in (None, name)]
    return Key(dict.fromkeys(chosen, public), kid) if chosen else None


@cache
def _algorithms() -> "dict[str, Algorithm]":
    from jwt.algorithms import get_default_algorithms

    return {name: how for name, how in get_default_algorithms().items() if name in ALGORITHMS}
