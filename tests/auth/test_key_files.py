"""Key sets in files: rotation, withdrawal, and files that are wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from fastsse.auth import jwks
from fastsse.auth.guard import make_guard
from fastsse.auth.jwks import FileKeySet, read_key_set
from fastsse.config import Config, ConfigError
from fastsse.errors import Unauthorised
from tests.auth.conftest import Clock, control
from tests.auth.minting import (
    jwk,
    other_rsa_key,
    rsa_key,
)
from tests.auth.named_tokens import headers, signed

# --- Files


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    path = tmp_path / "keys.json"

    def write(*keys: Any) -> Path:
        fresh = tmp_path / "fresh"
        fresh.write_bytes(orjson.dumps({"keys": keys}))
        return fresh.rename(path)

    return write


def test_a_rotated_file_is_read_when_a_token_names_its_key(file: Callable[..., Path]) -> None:
    guard = make_guard(Config(jwks_url=str(file(jwk(rsa_key(), "first")))), control())
    assert guard is not None
    assert guard.subscriber(headers(signed("first")), ())
    with pytest.raises(Unauthorised):
        guard.subscriber(headers(signed("second", other_rsa_key())), ())
    file(jwk(other_rsa_key(), "second"))
    assert guard.subscriber(headers(signed("second", other_rsa_key())), ())
    with pytest.raises(Unauthorised):
        guard.subscriber(headers(signed("first")), ())


@pytest.mark.parametrize("kid", [None, "same"])
def test_a_file_whose_key_rotates_without_a_new_name_is_followed_at_once(
    file: Callable[..., Path], kid: str | None
) -> None:
    guard = make_guard(Config(jwks_url=str(file(jwk(rsa_key(), kid)))), control())
    assert guard is not None
    assert guard.subscriber(headers(signed(kid)), ())
    file(jwk(other_rsa_key(), kid))
    assert guard.subscriber(headers(signed(kid, other_rsa_key())), ())


def test_a_key_withdrawn_from_a_file_verifies_no_remembered_token(
    file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(FileKeySet.__init__, "__defaults__", (clock,))
    guard = make_guard(Config(jwks_url=str(file(jwk(rsa_key(), "first")))), control())
    assert guard is not None
    assert guard.subscriber(headers(signed("first")), ())
    file(jwk(other_rsa_key(), "second"))
    clock.now_s += 20 * 3600
    with pytest.raises(Unauthorised):
        guard.subscriber(headers(signed("first")), ())


def test_a_broken_file_leaves_the_keys_that_are_known(file: Callable[..., Path]) -> None:
    now = [0.0]
    path = file(jwk(rsa_key(), "first"))
    keys = FileKeySet(str(path), ["RS256"], lambda: now[0])
    path.write_text("{")
    now[0] += 10
    assert keys.find("RS256", "first")
    path.unlink()
    now[0] += 10
    assert keys.find("RS256", "first")
    assert not keys.find("RS256", "other")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"keys":{}}', b" " * (1024 * 1024 + 1)])
def test_a_file_that_is_no_key_set_is_refused_at_start(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "keys"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="jwks_url"):
        make_guard(Config(jwks_url=str(path)), control())


def test_a_set_of_very_many_keys_is_refused() -> None:
    keys = [{"kty": "oct"}] * (jwks.KEYS_MAX + 1)
    with pytest.raises(ValueError, match="keys"):
        read_key_set(orjson.dumps({"keys": keys}), ["RS256"])
