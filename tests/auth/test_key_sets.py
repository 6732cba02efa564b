"""Key sets: rotation costs no client its token, and no token makes the server fetch at its will."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from fastsse.auth import jwks
from fastsse.auth.guard import Guard, Pending, make_guard
from fastsse.auth.jwks import FetchedKeySet
from fastsse.auth.rights import Rights
from fastsse.config import Config
from fastsse.errors import FastsseError, Unauthorised, Unavailable
from tests.auth.conftest import Clock, control
from tests.auth.minting import (
    SECRET,
    b64,
    ec_key,
    jwk,
    mint,
    other_rsa_key,
    public_pem,
    roca_key,
    rsa_key,
)
from tests.auth.named_tokens import headers, signed
from tests.certificates import issue


class Issuer:
    """A server of a key set on a real socket, which counts what it is asked."""

    def __init__(self) -> None:
        self.keys: list[Any] = [jwk(rsa_key(), "first")]
        self.requests: list[bytes] = []
        self.answer: bytes | None = None
        self.hangs = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests.append(await reader.readuntil(b"\r\n\r\n"))
        if self.hangs:
            await reader.read()
        body = orjson.dumps({"keys": self.keys})
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
        writer.write(self.answer or head + body)
        writer.close()


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "PAUSE_S", 0.05)
    monkeypatch.setattr(FetchedKeySet.__init__, "__defaults__", (0.05, jwks.boottime_s))
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.fixture
async def issuer() -> AsyncIterator[tuple[Issuer, str]]:
    made = Issuer()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield made, f"http://127.0.0.1:{port}/keys"
    server.close()


@pytest.fixture
async def guard(issuer: tuple[Issuer, str]) -> AsyncIterator[Guard]:
    made = make_guard(Config(jwks_url=issuer[1]), control())
    assert made is not None
    yield made
    made.close()


async def outcome(guard: Guard, raw: bytes) -> Rights | FastsseError | None:
    """What a request with this token comes to, waited for as a route would."""
    answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    try:
        return guard.subscriber(headers(raw), ())
    except Pending as pending:
        pending.wait(answered.set_result)
    except FastsseError as error:
        return error
    return await asyncio.wait_for(answered, 30)


async def test_the_first_token_waits_for_the_set_and_the_next_does_not(
    guard: Guard, issuer: tuple[Issuer, str]
) -> None:
    assert isinstance(await outcome(guard, signed("first")), Rights)
    assert isinstance(guard.subscriber(headers(signed("first")), ()), Rights)
    assert isinstance(guard.subscriber(headers(signed(None)), ()), Rights)
    assert len(issuer[0].requests) == 1


async def test_a_rotated_key_is_found_by_the_first_token_that_names_it(
    guard: Guard, issuer: tuple[Issuer, str]
) -> None:
    assert isinstance(await outcome(guard, signed("first")), Rights)
    issuer[0].keys = [jwk(other_rsa_key(), "second")]
    assert isinstance(await outcome(guard, signed("second", other_rsa_key())), Rights)
    # And the key that is gone verifies nothing any more, also not what was remembered.
    assert isinstance(await outcome(guard, signed("first")), Unauthorised)


async def test_a_storm_of_unknown_kids_is_one_fetch_a_pause(
    guard: Guard, issuer: tuple[Issuer, str]
) -> None:
    await outcome(guard, signed("first"))
    before = len(issuer[0].requests)
    storm = [outcome(guard, signed(f"no-{number}")) for number in range(200)]
    errors = await asyncio.gather(*storm)
    assert all(isinstance(error, Unauthorised) for error in errors)
    assert len(issuer[0].requests) - before == 1
    # Names that were not found are remembered: no waiting, no fetch.
    for number in range(200):
        with pytest.raises(Unauthorised):
            guard.subscriber(headers(signed(f"no-{number}")), ())
    assert len(issuer[0].requests) - before == 1


async def test_known_tokens_are_not_held_up_by_unknown_kids(
    guard: Guard, issuer: tuple[Issuer, str]
) -> None:
    await outcome(guard, signed("first"))
    issuer[0].hangs = True
    waiting = asyncio.ensure_future(outcome(guard, signed("unknown")))
    await asyncio.sleep(0)
    assert isinstance(guard.subscriber(headers(signed("first")), ()), Rights)
    guard.close()
    assert isinstance(await waiting, Unavailable)


async def test_who_waits_is_bounded(
    guard: Guard, issuer: tuple[Issuer, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "_WAITING_MAX", 10)
    await outcome(guard, signed("first"))
    answers = await asyncio.gather(*(outcome(guard, signed(f"x{n}")) for n in range(30)))
    assert sum(isinstance(answer, Unavailable) for answer in answers) == 20


@pytest.mark.parametrize(
    "kid", ["../admin", "x?y=z", "http://169.254.169.254/latest", "a\r\nX-Evil: 1", "%2e%2e"]
)
async def test_nothing_of_a_token_is_put_into_the_fetch(
    guard: Guard, issuer: tuple[Issuer, str], kid: str
) -> None:
    claims = {"iss": kid, "sub": kid, "mercure": {}, "tenant": kid}
    raw = mint(claims, key=rsa_key(), alg="RS256", header={"kid": kid, "x5t": kid})
    assert isinstance(await outcome(guard, raw), Unauthorised)
    assert len(issuer[0].requests) == 2
    first, second = issuer[0].requests
    assert first == second
    assert first.startswith(b"GET /keys HTTP/1.1\r\n")


ANSWERS = {
    "status": b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
    "redirect": b"HTTP/1.1 302 Go\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
    "not json": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
    "no keys": b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{"keys":[]}',
    "not http": b"\0\1\2",
    "huge": b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n" + b" " * 2_000_000,
    "nothing": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_set_that_can_not_be_read_refuses_and_then_recovers(
    issuer: tuple[Issuer, str], name: str
) -> None:
    issuer[0].answer = ANSWERS[name]
    guard = make_guard(Config(jwks_url=issuer[1]), control())
    assert guard is not None
    assert isinstance(await outcome(guard, signed("first")), Unavailable)
    issuer[0].answer = None
    assert isinstance(await outcome(guard, signed("first")), Rights)
    # Later failures leave the keys that are known.
    issuer[0].answer = ANSWERS[name]
    assert isinstance(await outcome(guard, signed("other")), Unavailable)
    assert isinstance(await outcome(guard, signed("first")), Rights)
    guard.close()


async def test_a_set_is_read_again_without_any_traffic(
    issuer: tuple[Issuer, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "REFRESH_S", 0.01)
    keys = FetchedKeySet(issuer[1], ["RS256"])
    async with asyncio.timeout(30):
        while len(issuer[0].requests) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    keys.close()


async def test_a_key_withdrawn_in_twenty_quiet_hours_verifies_nothing(
    clock: Clock, guard: Guard, issuer: tuple[Issuer, str]
) -> None:
    remembered, seen_first_later = signed("first"), signed(None)
    assert isinstance(await outcome(guard, remembered), Rights)
    issuer[0].keys = [jwk(other_rsa_key(), "second")]
    clock.now_s += 20 * 3600
    assert isinstance(await outcome(guard, remembered), Unauthorised)
    assert isinstance(await outcome(guard, seen_first_later), Unauthorised)
    assert isinstance(await outcome(guard, signed("second", other_rsa_key())), Rights)


async def test_keys_are_believed_for_a_day_while_the_issuer_is_away(
    clock: Clock, guard: Guard, issuer: tuple[Issuer, str]
) -> None:
    assert isinstance(await outcome(guard, signed("first")), Rights)
    issuer[0].answer = ANSWERS["status"]
    clock.now_s += 20 * 3600
    assert isinstance(await outcome(guard, signed("first")), Rights)
    assert len(issuer[0].requests) == 2
    clock.now_s += jwks.STALE_S
    assert isinstance(await outcome(guard, signed("first")), Unavailable)


@pytest.mark.parametrize("kid", [None, "same"])
async def test_a_key_that_rotates_without_a_new_name_is_followed_at_once(
    guard: Guard, issuer: tuple[Issuer, str], kid: str | None
) -> None:
    issuer[0].keys = [jwk(rsa_key(), kid)]
    assert isinstance(await outcome(guard, signed(kid)), Rights)
    issuer[0].keys = [jwk(other_rsa_key(), kid)]
    assert isinstance(await outcome(guard, signed(kid, other_rsa_key())), Rights)
    assert isinstance(await outcome(guard, signed(kid)), Unauthorised)


async def test_a_key_without_a_name_and_of_another_algorithm_is_followed_too(
    guard: Guard, issuer: tuple[Issuer, str]
) -> None:
    assert isinstance(await outcome(guard, signed("first")), Rights)
    issuer[0].keys = [jwk(ec_key(), None)]
    assert isinstance(await outcome(guard, mint(key=ec_key(), alg="ES256")), Rights)


async def test_a_storm_of_forged_signatures_is_one_fetch_a_pause(
    guard: Guard, issuer: tuple[Issuer, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "_UNSIGNED_MAX", 20)
    assert isinstance(await outcome(guard, signed("first")), Rights)
    before = len(issuer[0].requests)
    body = signed("first").rpartition(b".")[0]
    forged = [body + b"." + b64(bytes([number]) * 256) for number in range(200)]
    errors = await asyncio.gather(*(outcome(guard, raw) for raw in forged))
    assert all(isinstance(error, Unauthorised) for error in errors)
    assert len(issuer[0].requests) - before == 1
    # A token that the set was read for is refused at once.
    with pytest.raises(Unauthorised):
        guard.subscriber(headers(forged[0]), ())
    assert isinstance(guard.subscriber(headers(signed("first")), ()), Rights)


async def test_a_set_that_did_not_change_leaves_tokens_remembered(
    issuer: tuple[Issuer, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "REFRESH_S", 0.01)
    guard = make_guard(Config(jwks_url=issuer[1]), control())
    assert guard is not None
    token = signed("first")
    rights = await outcome(guard, token)
    before = len(issuer[0].requests)
    async with asyncio.timeout(30):
        while len(issuer[0].requests) < before + 3:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert guard.subscriber(headers(token), ()) is rights
    guard.close()


async def test_a_key_with_the_roca_weakness_is_refused_and_logged(
    issuer: tuple[Issuer, str], caplog: pytest.LogCaptureFixture
) -> None:
    issuer[0].keys = [jwk(rsa_key(), "good"), jwk(roca_key(), "weak")]
    guard = make_guard(Config(jwks_url=issuer[1]), control())
    assert guard is not None
    assert isinstance(await outcome(guard, signed("good")), Rights)
    assert isinstance(await outcome(guard, signed("weak", roca_key())), Unauthorised)
    guard.close()
    (record,) = (record for record in caplog.records if "refused" in record.getMessage())
    assert record.kid == "weak"  # type: ignore[attr-defined]
    assert "ROCA" in record.must_be  # type: ignore[attr-defined]


async def test_a_symmetric_key_of_a_set_and_its_public_key_as_secret_verify_nothing(
    issuer: tuple[Issuer, str],
) -> None:
    oct_key = {"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "kid": "s"}
    issuer[0].keys.append(oct_key)
    guard = make_guard(Config(jwks_url=issuer[1]), control())
    assert guard is not None
    await outcome(guard, signed("first"))
    for secret in ("secret" * 5, public_pem(rsa_key()), orjson.dumps(jwk(rsa_key(), "first"))):
        forged = mint(key=secret, alg="HS256", header={"kid": "s"})
        error = await outcome(guard, forged)
        assert isinstance(error, Unauthorised)
        assert "alg" in str(error)
    guard.close()


async def test_a_keys_name_does_not_lend_it_another_keys_algorithm(
    issuer: tuple[Issuer, str],
) -> None:
    """CVE-2026-48523: the token's alg against the alg of the key it names."""
    issuer[0].keys = [jwk(rsa_key(), "r", alg="RS256"), jwk(ec_key(), "e")]
    guard = make_guard(Config(jwks_url=issuer[1]), control())
    assert guard is not None
    pss = mint(key=rsa_key(), alg="PS256", header={"kid": "r"})
    assert isinstance(await outcome(guard, pss), Unauthorised)
    crossed = mint(key=rsa_key(), alg="RS256", header={"kid": "e"})
    assert isinstance(await outcome(guard, crossed), Unauthorised)
    assert isinstance(await outcome(guard, mint(key=ec_key(), alg="ES256")), Rights)
    guard.close()


async def test_a_secret_next_to_a_key_set_is_for_hmac_only(issuer: tuple[Issuer, str]) -> None:
    guard = make_guard(Config(jwks_url=issuer[1], jwt_key=SECRET), control())
    assert guard is not None
    assert isinstance(await outcome(guard, mint()), Rights), "and it does not wait for the set"
    assert isinstance(await outcome(guard, signed("first")), Rights)
    guard.close()


async def test_an_unreachable_address_is_reported_without_its_secrets(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    guard = make_guard(Config(jwks_url="http://127.0.0.1:1/keys?secret=s3cret"), control())
    assert guard is not None
    error = await outcome(guard, signed("first"))
    assert isinstance(error, Unavailable)
    assert error.reason == "keys"
    written = "".join(capsys.readouterr()) + caplog.text
    assert "s3cret" not in written
    guard.close()


async def test_a_set_over_tls_is_read_from_a_trusted_server_of_its_name_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = issue(tmp_path, "localhost")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    made = Issuer()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]

    async def read(host: str) -> Rights | FastsseError | None:
        guard = make_guard(Config(jwks_url=f"https://{host}:{port}/keys"), control())
        assert guard is not None
        try:
            return await outcome(guard, signed("first"))
        finally:
            guard.close()

    assert isinstance(await read("localhost"), Unavailable)
    assert made.requests == []
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    assert isinstance(await read("localhost"), Rights)
    assert isinstance(await read("127.0.0.1"), Unavailable), "the certificate has another name"
    server.close()


@pytest.mark.parametrize("more", [0, 1])
async def test_a_set_that_never_ends_is_read_up_to_its_bound(more: int) -> None:
    """The rest is not waited for."""
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (most + 1000 * more))
        writer.write(b" " * (most + more))
        await reader.read()
        gone.set()
        writer.close()

    most = jwks.KEY_SET_BYTES_MAX
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    keys = FetchedKeySet(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", ["RS256"])
    fetch = asyncio.wait_for(keys._fetch(), 30)
    if more:
        with pytest.raises(ValueError, match="larger than 1 MiB"):
            await fetch
    else:
        assert len(await fetch) == most
    await asyncio.wait_for(gone.wait(), 30)
    keys.close()
    server.close()
