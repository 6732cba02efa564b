"""Pages with gzip: for clients that ask for it, made once for all, and no private event is
compressed."""

import asyncio
import gzip
import os
import zlib
from itertools import pairwise

import pytest

from fastsse.http.codings import accepts_gzip, gzip_parts
from tests.auth.minting import SECRET, grants, mint
from tests.http.raw import until

PAGE = "/events?topic=a&wait=0&since=earliest"
GZIP = "Accept-Encoding: gzip, deflate, br"


@pytest.mark.parametrize(
    ("field", "wanted"),
    [
        (b"", False),
        (b"gzip", True),
        (b"GZIP;Q=0.5", True),
        (b"x-gzip", True),
        (b"*", True),
        (b"*;q=0.1, identity;q=0", True),
        (b"br, *;q=0", False),
        (b"gzip;q=0", False),
        (b"gzip;q=0, *", False),
        (b"gzip;q=0.000", False),
        (b"gzip;q=0.5, identity", False),
        (b"gzip, identity;q=0.5", True),
        (b"identity", False),
        (b"identity;q=0", False),
        (b"deflate, zstd", False),
        (b"gzip;q=2", False),
        (b"gzip;q=", False),
        (b"gzip;q=1;x=1", False),
        (b"gzip;q=0.1234", False),
        (b",, gzip ; q=0.1 ,", True),
        (b"gzip gzip", False),
        (b"\xff;\x00", False),
        (b"gzip," * 5_000, True),
    ],
)
def test_gzip_is_sent_only_to_who_accepts_it(field: bytes, wanted: bool) -> None:
    assert accepts_gzip(field) is wanted


@pytest.mark.parametrize("secret_from", [0, 1, 2, 3, 4, 5, 6])
def test_parts_are_one_member_that_decodes_to_all(secret_from: int) -> None:
    parts = [b"", b"a", os.urandom(70_000), b"x" * 200_000, b"b" * 65_535]
    packed = gzip_parts((part, index >= secret_from) for index, part in enumerate(parts))
    assert gzip.decompress(packed) == b"".join(parts)
    packed = gzip_parts((part, index % 2 == secret_from % 2) for index, part in enumerate(parts))
    assert gzip.decompress(packed) == b"".join(parts)


def test_length_does_not_show_what_a_secret_has_in_common_with_other_data() -> None:
    """BREACH: a guess that is right makes the answer of most servers shorter."""
    secret = b'{"data":"token=4f7a9c0e"}' * 3
    lengths = set()
    for guess in (b"token=4f7a9c0e" * 3, b"token=00000000" * 3, b"q7Lr2ZxW09bTnE" * 3):
        parts = [(b"y" * 50, False), (secret, True), (b"y" * 50, False)]
        with_guess = [(guess, False), *parts, (guess, False)]
        alone = len(gzip_parts([(guess, False), (b"y" * 50, False)]))
        lengths.add(len(gzip_parts(with_guess)) - 2 * alone)
        packed = gzip_parts(with_guess)
        assert secret in packed  # stored as it is
    # What differs is what the guesses are by themselves.
    assert max(lengths) - min(lengths) <= 4


async def test_page_is_the_same_with_gzip_and_says_that_it_varies(ask, server) -> None:
    for n in range(200):
        server.publish("a", {"price": n, "symbol": "EURUSD"}, event="tick")
    for accept in ("X: 1", "Accept: application/x-ndjson"):
        plain = await ask("GET", PAGE, accept)
        packed = await ask("GET", PAGE, accept, GZIP)
        assert gzip.decompress(packed.body) == plain.body
        assert len(packed.body) < len(plain.body) / 5
        assert packed.headers["content-encoding"] == "gzip"
        assert "content-encoding" not in plain.headers
        assert plain.headers["vary"] == packed.headers["vary"] == "Accept-Encoding"
        assert packed.headers["cache-control"] == "no-store"


async def test_small_pages_and_refused_ones_have_no_coding(ask, server) -> None:
    server.publish("a", "x")
    for path in (PAGE, "/events?topic=none&wait=0"):
        page = await ask("GET", path, GZIP)
        assert "content-encoding" not in page.headers
        assert page.json["gap"] is None
    wrong = await ask("GET", "/events?topic=a&wait=x", GZIP)
    assert (wrong.status, wrong.field) == (400, "wait")


async def test_polls_that_one_event_answers_share_one_compression(ask, server, monkeypatch) -> None:
    made = []
    monkeypatch.setattr(
        "fastsse.api.polling.gzip_parts", lambda parts: made.append(1) or gzip_parts(parts)
    )
    polls = [asyncio.create_task(ask("GET", "/events?topic=a&wait=30s", GZIP)) for _ in range(20)]
    await until(lambda: server._worker._hub.streams.polls.waiting == 20)
    server.publish("a", {"text": "word " * 300})
    answers = [await poll for poll in polls]
    assert {answer.headers["content-encoding"] for answer in answers} == {"gzip"}
    assert len(made) == 1


async def test_private_events_are_in_pages_as_they_are(start) -> None:
    server = await start(jwt_key=SECRET, anonymous=True)
    for n in range(40):
        server.publish("a", f"public {n} " * 10)
        server.publish("a", f"private {n} " * 10, private=True)
    token = mint(grants(subscribe=["a"])).decode()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    head = f"GET {PAGE} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n{GZIP}\r\n"
    writer.write(f"{head}Connection: close\r\n\r\n".encode())
    body = (await reader.read()).partition(b"\r\n\r\n")[2]
    writer.close()
    page = gzip.decompress(body)
    for n in range(40):
        assert f"private {n} ".encode() * 10 in body
        assert f"public {n} ".encode() * 10 not in body
        assert f"public {n} ".encode() * 10 in page


async def test_deleted_event_is_in_no_later_page(ask, server) -> None:
    ids = [server.publish("a", f"event {n} " * 40) for n in range(9)]
    assert b"event 4" in gzip.decompress((await ask("GET", PAGE, GZIP)).body)
    assert (await ask("DELETE", f"/events?topic=a&id={ids[4]}")).status in (200, 204)
    assert b"event 4" not in gzip.decompress((await ask("GET", PAGE, GZIP)).body)
    assert all(one < two for one, two in pairwise(ids))


def test_broken_input_is_refused_by_the_checksum() -> None:
    packed = bytearray(gzip_parts([(b"public", False), (b"secret", True)]))
    packed[packed.index(b"secret")] ^= 1
    with pytest.raises((OSError, zlib.error)):
        gzip.decompress(bytes(packed))
