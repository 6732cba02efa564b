"""The digest of a request with a key is BLAKE2b, as hashlib has it: a server of another version
must know the request again."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsse._intake import BegunDigest


def expected(text: bytes, body: bytes) -> bytes:
    digest = hashlib.blake2b(text, digest_size=16)
    digest.update(b"%d:%b" % (len(body), body))
    return digest.digest()


@given(text=st.binary(max_size=700), bodies=st.lists(st.binary(max_size=700), max_size=3))
def test_a_digest_is_that_of_hashlib(text: bytes, bodies: list[bytes]) -> None:
    begun = BegunDigest(text)
    for body in bodies:
        assert begun.of_body(body) == expected(text, body)


@pytest.mark.parametrize("body_bytes", [0, 1, 8, 9, 10, 63, 64, 99, 100, 65_536, 1_000_000])
def test_a_digest_is_right_at_the_ends_of_blocks(body_bytes: int) -> None:
    body = bytes(range(256)) * (body_bytes // 256 + 1)
    for text_bytes in range(0, 260, 1 if body_bytes < 1000 else 37):
        text = body[:text_bytes]
        assert BegunDigest(text).of_body(body[:body_bytes]) == expected(text, body[:body_bytes])


def test_a_known_digest_stays() -> None:
    digest = BegunDigest(b"7:/events").of_body(b"hello")
    assert digest.hex() == hashlib.blake2b(b"7:/events5:hello", digest_size=16).hexdigest()
