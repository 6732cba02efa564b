"""Tokens made by hand, so that they can be wrong in every way, and keys to sign them with."""

import hashlib
import hmac
import time
from base64 import urlsafe_b64encode
from functools import cache
from math import prod
from random import Random
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from jwt.algorithms import get_default_algorithms

SECRET = "not a secret at all, only for tests"
OTHER_SECRET = "another one, that is not trusted here"
SECRET_64 = SECRET * 2


def b64(raw: bytes) -> bytes:
    return urlsafe_b64encode(raw).rstrip(b"=")


def mint(
    claims: dict[str, Any] | bytes | None = None,
    *,
    key: Any = SECRET,
    alg: str = "HS256",
    header: dict[str, Any] | bytes | None = None,
) -> bytes:
    """A token: signed with `key` by `alg`, with the given claims, in JSON or raw bytes."""
    said = header if isinstance(header, bytes) else orjson.dumps({"alg": alg, **(header or {})})
    if claims is None:
        claims = grants(subscribe=["*"], publish=["*"])
    body = claims if isinstance(claims, bytes) else orjson.dumps(claims)
    signed = b64(said) + b"." + b64(body)
    return signed + b"." + b64(sign(signed, key, alg))


def sign(signed: bytes, key: Any, alg: str) -> bytes:
    if alg.startswith("HS"):
        raw = key.encode() if isinstance(key, str) else key
        return hmac.digest(raw, signed, getattr(hashlib, f"sha{alg[2:]}"))
    return get_default_algorithms()[alg].sign(signed, key)


def grants(**members: Any) -> dict[str, Any]:
    """Claims with these in `mercure`; `exp` a day from now: some are made before the first test."""
    return {"mercure": members, "exp": int(time.time()) + 86_400}


@cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


@cache
def other_rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@cache
def roca_key() -> rsa.RSAPrivateKey:
    """A key of 2048 bits whose primes have the structure of CVE-2017-15361."""
    product = prod(_first_primes(126))
    generator = Random(15361)  # Not for keys, but this one is to be the same in each run.
    p, q = (_weak_prime(product, generator) for _ in range(2))
    d = pow(65537, -1, (p - 1) * (q - 1))
    numbers = rsa.RSAPublicNumbers(65537, p * q)
    exponents = (d, rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q))
    return rsa.RSAPrivateNumbers(p, q, *exponents, numbers).private_key()


def _first_primes(count: int) -> list[int]:
    found: list[int] = []
    number = 2
    while len(found) < count:
        if all(number % prime for prime in found):
            found.append(number)
        number += 1
    return found


def _weak_prime(product: int, generator: Random) -> int:
    """`k * M + (65537 ** a mod M)` of 1024 bits, the uppermost two set."""
    low, high = (3 << 1022) // product + 1, (1 << 1024) // product - 1
    while True:
        power = pow(65537, generator.randrange(1, product), product)
        number = generator.randrange(low, high) * product + power
        if all(pow(base, number - 1, number) == 1 for base in (2, 3, 5, 7)):
            return number


@cache
def ec_key(curve: type[ec.EllipticCurve] = ec.SECP256R1) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve())


@cache
def ed_key() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


def public_pem(private: Any) -> str:
    public = private.public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def private_pem(private: Any) -> str:
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def jwk(private: Any, kid: str | None, **members: Any) -> dict[str, Any]:
    """The public key as a member of a key set."""
    name = {rsa.RSAPrivateKey: "RS256", ec.EllipticCurvePrivateKey: "ES256"}
    alg = next((alg for kind, alg in name.items() if isinstance(private, kind)), "EdDSA")
    made = type(get_default_algorithms()[alg]).to_jwk(private.public_key(), as_dict=True)
    if kid is not None:
        made["kid"] = kid
    return {**made, **members}
