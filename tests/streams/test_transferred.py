"""Durable streams over `fastsse history export` and `import`: read at the same offsets, with the
same bytes, and repeats of producers are recognised."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fastsse.cli import main
from fastsse.config import Config
from fastsse.server import Server
from tests.http.conftest import asked
from tests.http.raw import Answer
from tests.streams.test_protocol import CLOSED, JSON, TEXT, content, created, producer

Ask = Callable[..., Any]
BYTES = "Content-Type: application/octet-stream"
KEPT = ("text", "bytes", "json", "closed", "fork", "again", "empty", "private", "ttl")


@asynccontextmanager
async def serving(path: Path, **options: Any) -> AsyncIterator[Ask]:
    async with Server(
        Config(port=0, drain=0, access_lines=0, store=f"sqlite:{path}", **options)
    ) as server:
        yield partial(asked, server)


async def filled(ask: Ask) -> None:
    """One stream of each kind."""
    await created(ask, "/streams/text", body=b"0 ")
    for n in range(3):
        append = await ask("POST", "/streams/text", TEXT, *producer(n), body=b"p%d " % n)
        assert append.status == 200
    await ask("POST", "/streams/text", TEXT, "Stream-Seq: 07", body=b"\xff\r\n")
    await ask("POST", "/events?topic=text&topic=other", body=b"of both")
    await ask("POST", "/events?topic=other", body=b"plain")
    await created(ask, "/streams/bytes", BYTES, body=bytes(range(256)))
    await created(ask, "/streams/json", JSON, body=b'[{"a": 1.50}, "b"]')
    await created(ask, "/streams/closed", body=b"end")
    last = producer(0, epoch=4, name="closer")
    await ask("POST", "/streams/closed", TEXT, CLOSED, *last, body=b".")
    await created(ask, "/streams/source", body=b"from the source, ")
    fork = "Stream-Forked-From: /streams/source"
    assert (await ask("PUT", "/streams/fork", TEXT, fork, body=b"its own")).status == 201
    assert (await ask("DELETE", "/streams/source")).status == 204
    await created(ask, "/streams/again", body=b"the first")
    assert (await ask("DELETE", "/streams/again")).status == 204
    await created(ask, "/streams/again", body=b"the second")
    await created(ask, "/streams/gone", body=b"gone")
    assert (await ask("DELETE", "/streams/gone")).status == 204
    await created(ask, "/streams/empty")
    await created(ask, "/streams/private", TEXT, "Stream-Private: true", body=b"secret")
    await created(ask, "/streams/ttl", TEXT, "Stream-TTL: 86400", body=b"for a day")


async def read(ask: Ask, name: str) -> tuple[list[Answer], dict[str, str]]:
    """A stream from each of its offsets, and what HEAD says."""
    heads = (await ask("HEAD", f"/streams/{name}")).headers
    kept = {key: heads[key] for key in heads if key.startswith("stream-") or key == "content-type"}
    return [await ask("GET", f"/streams/{name}?offset=-1")], kept


async def everything(ask: Ask) -> dict[str, object]:
    found: dict[str, object] = {}
    for name in KEPT:
        head = await ask("HEAD", f"/streams/{name}")
        page = await ask("GET", f"/streams/{name}?offset=-1")
        assert (head.status, page.status) == (200, 200), name
        found[name] = [
            page.body,
            page.headers["etag"],
            page.headers["stream-next-offset"],
            {key: value for key, value in head.headers.items() if key.startswith("stream-")},
            head.headers["content-type"],
        ]
    return found


def exported(path: Path, capfdbinary: pytest.CaptureFixture[bytes], *flags: str) -> bytes:
    capfdbinary.readouterr()
    assert main(["history", "export", str(path), *flags]) == 0
    out, err = capfdbinary.readouterr()
    assert b"durable" not in err
    return out


def imported(path: Path, lines: bytes, *flags: str) -> int:
    source = path.with_name("lines")
    source.write_bytes(lines)
    return main(["history", "import", *flags, str(path), str(source)])


@pytest.mark.parametrize("is_served", [False, True], ids=["stopped", "serving"])
async def test_streams_move_to_another_file_with_their_offsets_and_producers(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], is_served: bool
) -> None:
    path, other = tmp_path / "a.db", tmp_path / "b.db"
    async with serving(path) as ask:
        await filled(ask)
        before = await everything(ask)
        place = before["text"][2]  # type: ignore[index]
        middle = (await ask("GET", "/streams/text?offset=-1")).headers["stream-next-offset"]
        assert middle == place
        if is_served:  # Rows of streams are written later than content.
            lines = exported(path, capfdbinary)
    if not is_served:
        lines = exported(path, capfdbinary)
    capfdbinary.readouterr()
    assert imported(other, lines, "--complete") == 0
    assert b"and 10 durable streams imported, 0 " in capfdbinary.readouterr().err
    # It can be repeated.
    assert imported(other, lines, "--complete") == 0
    assert b"0 events imported, " in capfdbinary.readouterr().err
    assert main(["history", "check", str(other)]) == 0
    async with serving(other, history_events=0) as ask:
        assert await everything(ask) == before
        for name, status in (("source", 410), ("gone", 404), ("other", 404)):
            assert (await ask("GET", f"/streams/{name}")).status == status
        # Repeats are known, gaps are refused, and the next append is new.
        again = await ask("POST", "/streams/text", TEXT, *producer(2), body=b"?")
        assert (again.status, again.headers["producer-seq"]) == (204, "2")
        gap = await ask("POST", "/streams/text", TEXT, *producer(4), body=b"?")
        assert (gap.status, gap.headers["producer-expected-seq"]) == (409, "3")
        old = await ask("POST", "/streams/closed", TEXT, *producer(0, 3, "closer"), body=b"?")
        assert old.status in (403, 409)
        seq = await ask("POST", "/streams/text", TEXT, "Stream-Seq: 06", body=b"?")
        assert seq.status == 409
        assert (await ask("POST", "/streams/closed", TEXT, body=b"?")).status == 409
        new = await ask("POST", "/streams/text", TEXT, *producer(3), body=b" new")
        assert new.status == 200
        assert await content(ask, "/streams/text", place) == b" new"
        # The source goes with its last fork.
        assert (await ask("DELETE", "/streams/fork")).status == 204
        assert (await ask("GET", "/streams/source")).status == 404


async def test_content_behind_an_export_is_reported_as_missing(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    path, other = tmp_path / "a.db", tmp_path / "b.db"
    async with serving(path) as ask:
        await created(ask, "/streams/log", body=b"one ")
        lines = exported(path, capfdbinary)
        at = (await ask("HEAD", "/streams/log")).headers["stream-next-offset"]
        await ask("POST", "/streams/log", TEXT, body=b"two ")
        behind = (await ask("HEAD", "/streams/log")).headers["stream-next-offset"]
    assert imported(other, lines) == 0
    async with serving(other) as ask:
        assert await content(ask, "/streams/log") == b"one "
        assert (await ask("GET", f"/streams/log?offset={behind}")).status == 410
        await ask("POST", "/streams/log", TEXT, body=b"three")
        assert (await ask("GET", f"/streams/log?offset={behind}")).status == 410
        assert await content(ask, "/streams/log", at) == b"three"
    # What is known to be missing is exported too.
    third = tmp_path / "c.db"
    assert imported(third, exported(other, capfdbinary), "--complete") == 0
    async with serving(third) as ask:
        assert (await ask("GET", f"/streams/log?offset={behind}")).status == 410
        assert await content(ask, "/streams/log") == b"one three"


async def test_content_of_a_deleted_stream_does_not_come_back(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "fastsse.backbone.sqlite.retention.SqliteRetention._remove_dropped",
        lambda self: setattr(self._file.streams, "has_dropped", False),
    )
    path, other = tmp_path / "a.db", tmp_path / "b.db"
    async with serving(path) as ask:
        await created(ask, "/streams/log", body=b"deleted")
        await ask("POST", "/events?topic=log&topic=kept", body=b"of both")
        assert (await ask("DELETE", "/streams/log")).status == 204
        lines = exported(path, capfdbinary)
    assert b'"data":"deleted"' not in lines
    assert imported(other, lines, "--complete") == 0
    async with serving(other) as ask:
        for topic, count in (("log", 0), ("kept", 1)):
            page = await ask("GET", f"/events?topic={topic}&last_event_id=earliest&wait=0")
            assert len(page.json["events"]) == count


async def test_an_import_changes_no_stream_that_the_file_has(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    path, other = tmp_path / "a.db", tmp_path / "b.db"
    async with serving(path) as ask:
        await created(ask, "/streams/log", body=b"one ")
        first = exported(path, capfdbinary)
        await ask("POST", "/streams/log", TEXT, body=b"two ")
        second = exported(path, capfdbinary)
    assert imported(other, first, "--complete") == 0
    async with serving(other) as ask:
        await ask("POST", "/streams/log", TEXT, body=b"other")
    capfdbinary.readouterr()
    assert imported(other, second, "--complete") == 1
    error = capfdbinary.readouterr().err
    assert b"would change the durable stream log, which the file has already" in error
    assert imported(other, first, "--complete") == 0
    async with serving(other) as ask:
        assert await content(ask, "/streams/log") == b"one other"
        assert (await ask("DELETE", "/streams/log")).status == 204
    # A stream that was deleted meanwhile stays so.
    assert imported(other, second, "--complete") == 0
    async with serving(other) as ask:
        assert (await ask("GET", "/streams/log")).status == 404
        await created(ask, "/streams/log", body=b"new")
    capfdbinary.readouterr()
    assert imported(other, second, "--complete") == 1
    assert b"has another durable stream log" in capfdbinary.readouterr().err
    # Nor does one become a stream whose topic went on.
    third = tmp_path / "c.db"
    plain = [line for line in first.split(b"\n") if b"stream" not in line]
    assert imported(third, b"\n".join(plain)) == 0
    async with serving(third) as ask:
        await ask("POST", "/events?topic=log", body=b"behind")
    capfdbinary.readouterr()
    assert imported(third, first, "--complete") == 1
    assert b"has events of log behind the end of the durable stream" in capfdbinary.readouterr().err


async def test_an_export_of_plain_topics_is_one_that_earlier_versions_read(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    path, other = tmp_path / "a.db", tmp_path / "b.db"
    async with serving(path) as ask:
        await filled(ask)
    lines = exported(path, capfdbinary, "--no-streams")
    kinds = {frozenset(json.loads(line)) for line in lines.splitlines()}
    assert not [one for one in kinds if one & {"stream", "producer", "streams_lost"}]
    assert imported(other, lines, "--complete") == 0
    async with serving(other) as ask:
        assert (await ask("GET", "/streams/text")).status == 404
        page = await ask("GET", "/events?topic=text&last_event_id=earliest&wait=0")
        assert len(page.json["events"]) == 6


STREAM = {
    "stream": "s",
    "version": 1,
    "generation": "5-1",
    "tail": "5-1",
    "closed": None,
    "seq": None,
    "forks": 0,
    "hidden": False,
    "touched": 5,
    "bytes": 512,
    "config": {"type": "text/plain"},
}
PRODUCER = {
    "producer": "AAAA",
    "version": 1,
    "epoch": 0,
    "sequence": 0,
    "position": "5-1",
    "until": 9,
}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (STREAM | {"version": 2}, "durable streams of version 2"),
        (PRODUCER | {"version": "1"}, "durable streams of version '1'"),
        ({"streams_lost": "5-1", "version": 3, "after": None}, "durable streams of version 3"),
        (STREAM | {"more": 1}, "unknown field 'more'"),
        ({key: STREAM[key] for key in STREAM if key != "tail"}, "it has no 'tail'"),
        (STREAM | {"stream": "$s"}, "topic"),
        (STREAM | {"tail": "x"}, "'x' is no position"),
        (STREAM | {"generation": 5}, "5 is no position"),
        (STREAM | {"closed": "9999999999999999-1"}, "can't be stored"),
        (STREAM | {"forks": -1}, "forks must be an integer from 0"),
        (STREAM | {"bytes": True}, "bytes must be an integer from 0"),
        (STREAM | {"touched": 1 << 64}, "touched must be an integer from 0"),
        (STREAM | {"hidden": 1}, "hidden must be true or false"),
        (STREAM | {"seq": "€"}, "can't encode"),
        (STREAM | {"config": {}}, "not the configuration"),
        (STREAM | {"config": {"type": 5}}, "not the configuration"),
        (STREAM | {"config": {"type": "text/plain", "ttl": "1"}}, "not the configuration"),
        (STREAM | {"config": {"type": "text/plain", "new": 1}}, "not the configuration"),
        (PRODUCER | {"producer": "no base64!"}, "base64"),
        (PRODUCER | {"epoch": "0"}, "epoch must be an integer from 0"),
        ({"streams_lost": "5-1", "version": 1, "after": "x"}, "'x' is no position"),
    ],
)
def test_a_line_of_streams_that_is_none_is_named(
    tmp_path: Path, line: dict[str, object], words: str, capfdbinary: Any
) -> None:
    path = tmp_path / "a.db"
    assert imported(path, b"\n" + json.dumps(line).encode() + b"\n") == 1
    error = capfdbinary.readouterr().err.decode()
    assert f"History {path} can't take line 2: " in error
    assert words in error
    assert error.count("\n") == 1


def test_a_stream_that_stands_twice_is_named(tmp_path: Path, capfdbinary: Any) -> None:
    path = tmp_path / "a.db"
    lines = json.dumps(STREAM).encode() + b"\n"
    assert imported(path, lines + lines) == 1
    assert b"the durable stream s stands twice" in capfdbinary.readouterr().err
