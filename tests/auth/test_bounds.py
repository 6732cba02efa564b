"""Bounds of what is read from outside: what is exactly at one is taken, and one more is refused."""

import asyncio
import os
from pathlib import Path
from typing import Any

import orjson
import pytest

from fastsse.auth import jwks
from fastsse.auth.jwks import FetchedKeySet, FileKeySet, KeysMissing, read_key_set
from fastsse.auth.token import TOKEN_BYTES_MAX, open_token
from fastsse.errors import FastsseError, Unauthorised, Unavailable
from tests.auth.conftest import Clock
from tests.auth.minting import jwk, mint, other_rsa_key, rsa_key

_SET = orjson.dumps({"keys": [jwk(rsa_key(), "first")]})


def token_of(bytes_count: int) -> bytes:
    """Base64url leaves some lengths out for one part, and none for two."""
    near = bytes_count * 3 // 4
    for less in range(400):
        for name in range(4):
            made = mint({"x": "y" * (near - less)}, header={"kid": "k" * name})
            if len(made) == bytes_count:
                return made
    raise AssertionError("no such token")


def test_a_token_of_the_most_bytes_is_read_and_one_more_is_not() -> None:
    assert open_token(token_of(TOKEN_BYTES_MAX)).algorithm == "HS256"
    with pytest.raises(Unauthorised, match="more than"):
        open_token(token_of(TOKEN_BYTES_MAX + 1))


def test_a_kid_of_256_characters_is_a_name() -> None:
    assert open_token(mint(header={"kid": "a" * 256})).kid == "a" * 256


def test_a_key_set_of_the_most_bytes_is_read_and_one_more_is_not() -> None:
    full = _SET.ljust(jwks.KEY_SET_BYTES_MAX)
    assert len(read_key_set(full, ["RS256"])) == 1
    with pytest.raises(ValueError, match="larger than 1 MiB"):
        read_key_set(full + b" ", ["RS256"])


def test_a_file_of_the_most_bytes_is_read_and_one_more_is_not(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(_SET.ljust(jwks.KEY_SET_BYTES_MAX))
    assert len(FileKeySet(str(path), ["RS256"]).find("RS256", "first")) == 1
    path.write_bytes(_SET.ljust(jwks.KEY_SET_BYTES_MAX + 1))
    with pytest.raises(ValueError, match="larger than 1 MiB"):
        FileKeySet(str(path), ["RS256"])


def test_a_key_set_of_the_most_keys_is_read_and_one_more_is_not() -> None:
    keys = [jwk(rsa_key(), f"k{number}") for number in range(jwks.KEYS_MAX + 1)]
    most = orjson.dumps({"keys": keys[:-1]})
    assert len(read_key_set(most, ["RS256"])) == jwks.KEYS_MAX
    with pytest.raises(ValueError, match="more than 100 keys"):
        read_key_set(orjson.dumps({"keys": keys}), ["RS256"])


def test_a_token_without_a_name_is_tried_with_the_first_sixteen_keys(tmp_path: Path) -> None:
    keys = [jwk(rsa_key(), f"k{number}") for number in range(20)]
    path = tmp_path / "keys.json"
    path.write_bytes(orjson.dumps({"keys": keys}))
    found = FileKeySet(str(path), ["RS256"]).find("RS256", None)
    assert [key.kid for key in found] == [f"k{number}" for number in range(16)]


def test_a_file_is_looked_at_five_seconds_after_the_last_time(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "keys.json"
    path.write_bytes(_SET)
    keys = FileKeySet(str(path), ["RS256"], clock)
    path.write_bytes(orjson.dumps({"keys": [jwk(other_rsa_key(), "second")]}))
    clock.now_s += 4.99
    assert keys.generation == 0
    clock.now_s += 0.01
    assert keys.generation == 1
    path.write_bytes(_SET)
    clock.now_s += 4.99
    assert keys.generation == 1
    clock.now_s += 0.02
    assert keys.generation == 2


def test_a_file_that_is_bad_for_a_while_leaves_the_keys_and_is_read_when_repaired(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(_SET)
    keys = FileKeySet(str(path), ["RS256"])
    assert not keys.look_again(b"")
    path.write_bytes(b"{")
    assert not keys.look_again(b"")
    assert any("earlier keys stay" in record.getMessage() for record in caplog.records)
    assert len(keys.find("RS256", "first")) == 1
    path.write_bytes(orjson.dumps({"keys": [jwk(other_rsa_key(), "second")]}))
    assert keys.look_again(b"")
    assert not keys.look_again(b"")
    assert len(keys.find("RS256", "second")) == 1
    assert not keys.find("RS256", "first")
    assert not keys.find("ES256", "second")


class Waits:
    """What requests that wait for a key set get as an answer."""

    def __init__(self) -> None:
        self.answers: list[FastsseError | None] = []

    def on(self, keys: FetchedKeySet, kid: str | None = None) -> None:
        try:
            keys.find("RS256", kid)
        except KeysMissing as missing:
            missing.fetch(self.answers.append)
        else:
            raise AssertionError("nothing is missing")


@pytest.fixture
async def answers(monkeypatch: pytest.MonkeyPatch) -> list[bytes | Exception]:
    """What fetches of key sets answer, the last one again and again."""
    given: list[bytes | Exception] = [_SET]

    async def fetch(self: FetchedKeySet) -> bytes:
        answer = given.pop(0) if len(given) > 1 else given[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(FetchedKeySet, "_fetch", fetch)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    return given


async def fetched(keys: FetchedKeySet) -> None:
    task = keys._task
    if task is not None:
        await asyncio.wait([task], timeout=30)
    await asyncio.sleep(0)


def key_set(clock: Clock, pause_s: float = 5.0) -> FetchedKeySet:
    return FetchedKeySet("http://127.0.0.1:1/", ["RS256"], pause_s, clock)


async def test_keys_are_believed_for_less_than_a_day(answers: list[Any], clock: Clock) -> None:
    keys, waits = key_set(clock), Waits()
    await fetched(keys)
    answers[:] = [OSError("away")]
    # A fetch that fails while they are believed leaves them.
    clock.now_s += jwks.OVERDUE_S
    waits.on(keys)
    clock.now_s += jwks.PAUSE_S
    keys._begin()
    await fetched(keys)
    assert waits.answers == [None]
    keys._read_s, keys._ended_s = clock.now_s - jwks.STALE_S + 1, clock.now_s
    assert len(keys.find("RS256", "first")) == 1
    keys._read_s -= 1
    waits.on(keys)
    keys._begin()
    await fetched(keys)
    assert isinstance(waits.answers[1], Unavailable)
    keys.close()


async def test_keys_are_overdue_after_ten_minutes_without_a_try(
    answers: list[Any], clock: Clock
) -> None:
    keys = key_set(clock)
    await fetched(keys)
    generation = keys.generation
    clock.now_s += jwks.OVERDUE_S - 1
    assert keys.generation == generation == 1
    clock.now_s += 1
    assert keys.generation != generation
    # A fetch that ended lately has tried to renew them.
    keys._ended_s = clock.now_s - jwks.REFRESH_S + 1
    assert keys.generation == generation
    keys._ended_s -= 1
    assert keys.generation != generation
    keys.close()


async def test_a_name_that_was_missed_is_not_fetched_for_a_minute(
    answers: list[Any], clock: Clock
) -> None:
    keys, waits = key_set(clock), Waits()
    await fetched(keys)
    waits.on(keys, "unknown")
    keys._begin()
    await fetched(keys)
    assert waits.answers == [None]
    clock.now_s += 59.9
    assert keys.find("RS256", "unknown") == []
    clock.now_s += 0.1
    waits.on(keys, "unknown")
    keys.close()
    assert isinstance(waits.answers[1], Unavailable)


async def test_names_that_were_missed_are_remembered_up_to_a_thousand(
    answers: list[Any], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "_MISSING_MAX", 3)
    keys, waits = key_set(clock), Waits()
    await fetched(keys)
    for name in ("a", "b", "c", "d"):
        waits.on(keys, name)
    keys._begin()
    await fetched(keys)
    assert list(keys._missing) == ["b", "c", "d"]
    # What is missed again is the newest.
    clock.now_s += 60
    waits.on(keys, "b")
    keys._begin()
    await fetched(keys)
    assert list(keys._missing) == ["c", "d", "b"]
    keys.close()


async def test_one_more_than_may_wait_is_refused_at_once(
    answers: list[Any], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "_WAITING_MAX", 2)
    keys, waits = key_set(clock), Waits()
    for _ in range(2):
        waits.on(keys)
    assert waits.answers == []
    waits.on(keys)
    assert isinstance(waits.answers[0], Unavailable)
    assert waits.answers[0].retry_after_s == 1
    await fetched(keys)
    assert waits.answers[1:] == [None, None]
    keys.close()


async def test_unsigned_tokens_that_wait_are_counted_apart_from_names(
    answers: list[Any], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "_UNSIGNED_MAX", 2)
    keys, waits = key_set(clock), Waits()
    await fetched(keys)
    for name in ("a", "b", "c"):
        waits.on(keys, name)
    for digest in (b"1", b"2"):
        with pytest.raises(KeysMissing) as missing:
            keys.look_again(digest)
        missing.value.fetch(waits.answers.append)
    assert keys.look_again(b"3") is False
    keys._begin()
    await fetched(keys)
    assert waits.answers == [None] * 5
    assert keys.look_again(b"1") is False, "it was just fetched for this one"
    with pytest.raises(KeysMissing):
        keys.look_again(b"3")
    keys.close()


async def test_a_fetch_under_way_ends_with_the_key_set(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = asyncio.Event()

    async def fetch(self: FetchedKeySet) -> bytes:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return b""

    monkeypatch.setattr(FetchedKeySet, "_fetch", fetch)
    keys = key_set(clock)
    await asyncio.sleep(0)
    task = keys._task
    assert task is not None
    keys.close()
    await asyncio.wait([task], timeout=1)
    assert ended.is_set()


async def test_a_fetch_begins_a_pause_after_the_one_before(
    answers: list[Any], clock: Clock
) -> None:
    keys, waits, loop = key_set(clock, pause_s=50.0), Waits(), asyncio.get_running_loop()
    await fetched(keys)
    assert keys._timer is not None
    assert keys._timer.when() - loop.time() > jwks.REFRESH_S - 5
    regular = keys._timer
    clock.now_s += 20
    waits.on(keys, "x")
    assert 25 < keys._timer.when() - loop.time() <= 30
    assert regular.cancelled(), "one fetch is enough"
    # A later one does not put an earlier one off.
    due = keys._timer
    waits.on(keys, "y")
    assert keys._timer is due
    keys.close()
    assert due.cancelled()
    refused = [answer for answer in waits.answers if isinstance(answer, Unavailable)]
    assert [answer.retry_after_s for answer in refused] == [1, 1]


async def test_the_pause_counts_from_the_last_fetch(answers: list[Any], clock: Clock) -> None:
    keys, waits, loop = key_set(clock, pause_s=50.0), Waits(), asyncio.get_running_loop()
    await fetched(keys)
    clock.now_s += 40
    keys._begin()
    await fetched(keys)
    clock.now_s += 20
    waits.on(keys, "x")
    assert keys._timer is not None
    assert 25 < keys._timer.when() - loop.time() <= 30
    keys.close()


@pytest.mark.parametrize(("pause_s", "retry_after_s"), [(0.01, 1), (1.6, 2), (5.0, 5)])
async def test_a_request_may_return_after_the_pause_when_a_fetch_has_failed(
    answers: list[Any], clock: Clock, pause_s: float, retry_after_s: int
) -> None:
    answers[:] = [OSError("away")]
    keys, waits = key_set(clock, pause_s), Waits()
    waits.on(keys)
    await fetched(keys)
    (refused,) = waits.answers
    assert isinstance(refused, Unavailable)
    assert refused.retry_after_s == retry_after_s
    keys.close()


async def test_a_name_is_not_missed_by_a_fetch_that_failed(
    answers: list[Any], clock: Clock
) -> None:
    keys, waits = key_set(clock), Waits()
    await fetched(keys)
    answers[:] = [OSError("away")]
    waits.on(keys, "new")
    keys._begin()
    await fetched(keys)
    assert isinstance(waits.answers[0], Unavailable)
    answers[:] = [orjson.dumps({"keys": [jwk(rsa_key(), "new")]})]
    waits.on(keys, "new")
    keys._begin()
    await fetched(keys)
    assert waits.answers[1] is None
    assert len(keys.find("RS256", "new")) == 1
    keys.close()


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (ValueError("the status is 500"), "the status is 500"),
        (OSError("http://127.0.0.1/?secret=s3cret"), "OSError"),
    ],
)
async def test_a_fetch_that_failed_is_logged_with_our_own_words_only(
    answers: list[Any],
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    failure: Exception,
    reason: str,
) -> None:
    answers[:] = [failure]
    keys = key_set(clock)
    await fetched(keys)
    keys.close()
    (record,) = (one for one in caplog.records if "can't be fetched" in one.getMessage())
    assert record.reason == reason  # type: ignore[attr-defined]


async def test_after_a_fetch_that_failed_the_next_is_in_half_a_minute(
    answers: list[Any], clock: Clock
) -> None:
    answers[:] = [ValueError("bad")]
    keys, loop = key_set(clock), asyncio.get_running_loop()
    await fetched(keys)
    assert keys._timer is not None
    assert jwks.RETRY_S - 5 < keys._timer.when() - loop.time() <= jwks.RETRY_S
    keys.close()
