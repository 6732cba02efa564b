"""Tokens that name their key in its head."""

from typing import Any

from tests.auth.minting import (
    mint,
    rsa_key,
)


def headers(raw: bytes) -> dict[bytes, bytes]:
    return {b"authorization": b"Bearer " + raw}


def signed(kid: str | None, key: Any = None) -> bytes:
    header = {} if kid is None else {"kid": kid}
    return mint(key=key or rsa_key(), alg="RS256", header=header)
