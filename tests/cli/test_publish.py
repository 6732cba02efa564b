"""`fastsse publish` sends arguments and lines, waits for busy servers, and says what failed."""

import signal
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import orjson
import pytest
from click.testing import CliRunner

from fastsse.cli.publish import publish
from fastsse.client import listen
from fastsse.config import Config
from fastsse.server import Server
from tests.streamserver import Exchange, StreamServer, answering

ONE = answering("200 OK", b'{"id":"5-1"}')
NO = b'{"detail":"Line 2: the topic is too long","field":"topic","line":2}'


async def count_lines(exchange: Exchange) -> None:
    """Takes any batch."""
    count = len([line for line in exchange.body.split(b"\n") if line])
    await exchange.answer("200 OK", b'{"count":%d,"first":"1-1","last":"1-2"}' % count)


async def events(server: StreamServer) -> list[dict[str, object]]:
    lines = [line for request in server.requests for line in request.body.split(b"\n") if line]
    return [orjson.loads(line) for line in lines]


async def test_arguments_are_one_event_and_its_id_is_printed(start, here) -> None:
    async with listen(here.url, "news", last_event_id="earliest") as stream:
        publish = await start(
            "publish", "news", "a\nb é", "--event", "tick", "--id", "x1", "--url", here.url
        )
        done = await publish.ended()
        event = await anext(stream)
    assert (done.status, done.out, done.err) == (0, "x1\n", "")
    assert (event.data, event.event, event.id) == ("a\nb é", "tick", "x1")


async def test_each_line_of_input_is_an_event_in_order(start, here) -> None:
    data = "".join(f"line {n}\n" for n in range(3000)) + "é\r\n\nlast"
    async with listen(here.url, "news", last_event_id="earliest") as stream:
        done = await (await start("publish", "news", "--url", here.url)).ended(data.encode())
        received = [(await anext(stream)).data for _ in range(3003)]
    assert (done.status, done.err) == (0, "3003 published.\n")
    assert received == [*(f"line {n}" for n in range(3000)), "é", "", "last"]


async def test_line_is_published_at_once_while_the_writer_is_slow(start, here) -> None:
    async with listen(here.url, "news", last_event_id="earliest") as stream:
        publish = await start("publish", "news", "--url", here.url)
        for text in ("one", "two"):
            await publish.write(text.encode() + b"\n")
            assert (await anext(stream)).data == text
        assert (await publish.ended()).status == 0


async def test_private_holds_for_an_argument_for_lines_and_for_a_rate(start) -> None:
    async with StreamServer(ONE) as server:
        for words in (["hello"], ["--rate", "100/s", "--duration", "20ms"]):
            publish = await start("publish", "t", *words, "--private", "--url", server.url)
            await publish.ended()
        assert all("private=true" in request.target for request in server.requests)
        assert len(server.requests) > 1
    async with StreamServer(count_lines) as server:
        publish = await start("publish", "t", "--private", "--url", server.url)
        await publish.ended(b"x\n")
        assert await events(server) == [{"data": "x", "topic": "t", "private": True}]


async def test_meta_holds_for_an_argument_for_lines_and_for_a_rate(start) -> None:
    meta = ["--meta", "tenant=a=b", "--meta", "level:=3"]
    async with StreamServer(ONE) as server:
        for words in (["hello"], ["--rate", "100/s", "--duration", "20ms"]):
            await (await start("publish", "t", *words, *meta, "--url", server.url)).ended()
        for request in server.requests:
            query = dict(parse_qsl(urlsplit(request.target).query))
            assert orjson.loads(query["meta"]) == {"tenant": "a=b", "level": 3}
        assert len(server.requests) > 1
    async with StreamServer(count_lines) as server:
        await (await start("publish", "t", *meta, "--url", server.url)).ended(b"x\n")
        expected = {"data": "x", "topic": "t", "meta": {"tenant": "a=b", "level": 3}}
        assert await events(server) == [expected]


@pytest.mark.parametrize("meta", ["tenant", "=x", "1a=x", "a:=[1]", "a:=x", "a:=", "a b=x"])
def test_wrong_meta_is_wrong_usage(meta: str) -> None:
    result = CliRunner().invoke(publish, ["t", "x", "--meta", meta])
    assert (result.exit_code, "--meta" in result.output) == (2, True)


async def test_fast_lines_go_out_in_few_requests(start) -> None:
    async with StreamServer(count_lines) as server:
        publish = await start("publish", "t", "--event", "e", FASTSSE_URL=server.url)
        done = await publish.ended(b"x\n" * 20_000)
        assert done.err == "20000 published.\n"
        assert len(server.requests) < 400
        assert len(await events(server)) == 20_000
        assert (await events(server))[0] == {"topic": "t", "event": "e", "data": "x"}
        assert all(len(request.body) <= 600 * 1024 for request in server.requests)


async def test_ndjson_lines_pass_and_take_what_they_lack_from_arguments(start) -> None:
    async with StreamServer(count_lines) as server:
        lines = b'{"topic":"a","data":1.0}\n\n {"data":{"n":null},"event":"own"}\r\n'
        await (await start("publish", "--ndjson", "--url", server.url)).ended(lines)
        assert (
            server.requests[0].body
            == b'{"topic":"a","data":1.0}\n\n{"data":{"n":null},"event":"own"}'
        )
        command = ("publish", "t", "--ndjson", "--event", "e", "--retry", "2s", "--url", server.url)
        await (await start(*command)).ended(lines)
        assert [orjson.loads(line) for line in server.requests[1].body.split(b"\n") if line] == [
            {"topic": "a", "event": "e", "retry": 2000, "data": 1.0},
            {"topic": "t", "event": "own", "retry": 2000, "data": {"n": None}},
        ]


async def test_refused_line_is_named_and_what_stands_before_it_is_published(start) -> None:
    async with StreamServer(answering("400 Bad Request", NO), count_lines) as server:
        done = await (await start("publish", "t", "--url", server.url)).ended(b"a\nb\nc\n")
        assert (done.status, done.out) == (1, "")
        assert done.err == "1 published.\nLine 2: 400 Bad Request: the topic is too long\n"
        assert [orjson.loads(line)["data"] for line in server.requests[1].body.split(b"\n")] == [
            "a"
        ]


async def test_line_that_is_no_text_or_no_json_is_named(start) -> None:
    async with StreamServer(count_lines) as server:
        done = await (await start("publish", "t", "--url", server.url)).ended(b"a\n\xff\nc\n")
        assert done.err == "1 published.\nLine 2: is not UTF-8 (byte 1).\n"
        publish = await start("publish", "t", "--ndjson", "--url", server.url)
        done = await publish.ended(b'{"data":1}\n{"data":\n')
        assert (done.status, done.err.splitlines()[1][:16]) == (1, "Line 2: is not J")
        publish = await start("publish", "t", "--ndjson", "--url", server.url)
        assert "Line 1: is not a JSON object." in (await publish.ended(b"[]")).err


async def test_line_with_a_name_that_stands_twice_is_not_sent(start) -> None:
    async with StreamServer(count_lines) as server:
        for line, why in (
            (b'{"data":{"a":1,"a":2}}', "Line 1: holds an object in which the name 'a' stands"),
            (b'{"data":1,"data":2}', "Line 1: data: stands twice."),
        ):
            publish = await start("publish", "t", "--ndjson", "--url", server.url)
            assert why in (await publish.ended(line)).err
        assert server.requests == []


async def test_batch_that_is_too_large_is_sent_in_parts(start) -> None:
    async def small(exchange: Exchange) -> None:
        if len(exchange.body) > 200:
            await exchange.answer("413 Content Too Large", b'{"detail":"Too large."}')
        else:
            await count_lines(exchange)

    async with StreamServer(small) as server:
        lines = "".join(f"{n}\n" for n in range(100))
        done = await (await start("publish", "t", "--url", server.url)).ended(lines.encode())
        assert (done.status, done.err) == (0, "100 published.\n")
        taken = [request.body for request in server.requests if len(request.body) <= 200]
        sent = [orjson.loads(line)["data"] for body in taken for line in body.split(b"\n")]
        assert sent == [str(n) for n in range(100)]
        done = await (await start("publish", "t", "--url", server.url)).ended(b"x" * 500)
        assert done.status == 1
        assert "Line 1: 413 Content Too Large: Too large." in done.err


async def test_refusal_is_one_line_and_exit_1(start, here) -> None:
    done = await (await start("publish", "$own", "x", "--url", here.url)).ended()
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("400 Bad Request: ")
    assert done.err.count("\n") == 1


async def test_busy_server_is_waited_for_aloud(start) -> None:
    busy = answering("503 Service Unavailable", b'{"detail":"Full."}', b"Retry-After: 0\r\n")
    async with StreamServer(busy, ONE) as server:
        done = await (await start("publish", "t", "x", "--url", server.url)).ended()
    assert (done.status, done.out) == (0, "5-1\n")
    assert done.err == "503 Service Unavailable: Full; retry in 0.0 s\n"


async def test_server_that_is_not_there_is_one_line_and_exit_3(start) -> None:
    async with StreamServer(ONE) as server:
        pass
    command = ("publish", "t", "x", "--url", server.url, "--patience", "0s")
    done = await (await start(*command)).ended()
    assert (done.status, done.out) == (3, "")
    assert done.err == f"{server.url}/events: connection refused.\n"


async def test_token_comes_from_flag_or_variable(start) -> None:
    async with StreamServer(ONE) as server:
        await (await start("publish", "t", "x", "--url", server.url, "--token", "a")).ended()
        await (await start("publish", "t", "x", FASTSSE_URL=server.url, FASTSSE_TOKEN="b")).ended()
        variables = {"FASTSSE_URL": server.url, "FASTSSE_PUBLISH_TOKEN": "c"}
        await (await start("publish", "t", "x", **variables)).ended()
        sent = [request.headers[b"authorization"] for request in server.requests]
        assert sent == [b"Bearer a", b"Bearer b", b"Bearer c"]


async def test_unix_socket_can_be_published_to(start, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    async with Server(Config(uds=path, drain=0)):
        done = await (await start("publish", "t", "x", "--uds", path)).ended()
        assert done.status == 0
        done = await (
            await start("listen", "t", "--from", "earliest", "--count", "1", "--uds", path)
        ).ended()
        assert done.out == "x\n"


async def test_interrupt_ends_it_without_a_traceback(start, here) -> None:
    async with listen(here.url, "t", last_event_id="earliest") as stream:
        publish = await start("publish", "t", "--url", here.url)
        await publish.write(b"x\n")
        await anext(stream)
        publish.signal(signal.SIGINT)
        done = await publish.ended()
    assert done.status == 130
    assert done.err.split("\n", 1)[0].endswith(" published.")
    assert "Traceback" not in done.err


async def test_what_the_server_warns_of_is_printed(start, here) -> None:
    warning = "Warning: the type error collides with EventSource's own event of this name.\n"
    words = ("publish", "news", "--event", "error", "--url", here.url)
    one = await (await start("publish", "news", "x", *words[2:])).ended()
    assert (one.status, one.err) == (0, warning)
    lines = await (await start(*words)).ended(b"x\ny\n")
    assert (lines.status, lines.err) == (0, f"{warning}2 published.\n")
    quiet = await (await start("publish", "news", "x", "--url", here.url)).ended()
    assert (quiet.status, quiet.err) == (0, "")


async def test_event_stream_on_standard_input_is_relayed_as_it_comes(start, here) -> None:
    async with listen(here.url, "run/1", last_event_id="earliest") as stream:
        publish = await start("publish", "run/1", "--sse", "--event", "token", "--url", here.url)
        for text in ("one", "two"):
            await publish.write(f": c\n\ndata: {text}\n\n".encode())
            event = await anext(stream)
            assert (event.event, event.data) == ("token", text)
        done = await publish.ended(b"id: mine\nevent: end\ndata: x\n\ndata: cut")
        assert (done.status, done.err) == (0, "3 published.\n")
        assert (await anext(stream)).event == "end"
        publish = await start("publish", "run/1", "--sse", "--own-ids", "--url", here.url)
        done = await publish.ended(b"id: mine\ndata: 1\n\nid: 1-1\ndata: 2\n\n")
        assert (done.status, done.err.splitlines()[0]) == (1, "1 published.")
        assert (await anext(stream)).id == "mine"
        publish = await start("publish", "run/1", "--sse", "--end", "--url", here.url)
        assert (await publish.ended(b"data: last\n\n")).status == 0
        assert [event.event async for event in stream] == ["message", "fastsse.end"]


@pytest.mark.parametrize(
    "words", [["--sse"], ["t", "x", "--sse"], ["t", "--sse", "--ndjson"], ["t", "--own-ids"]]
)
def test_wrong_words_around_a_relay_are_wrong_usage(words: list[str]) -> None:
    assert CliRunner().invoke(publish, words).exit_code == 2


@pytest.mark.parametrize("input_of_many", [["--sse"], ["--ndjson"], [], ["--rate", "9/s"]])
def test_flags_for_one_event_are_wrong_usage_with_input_of_many(input_of_many: list[str]) -> None:
    for flag in (
        ["--id", "x"], ["--key", "k"], ["--expect", "1-1"], ["--ttl", "5s"], ["--delay", "5s"],
        ["--deliver-at", "2030-01-01T00:00:00Z"], ["--receipt"], ["--end"],
    ):  # fmt: skip
        if flag == ["--end"] and input_of_many == ["--sse"]:
            continue
        result = CliRunner().invoke(publish, ["t", *input_of_many, *flag])
        assert (result.exit_code, flag[0] in result.output) == (2, True), flag
    both = CliRunner().invoke(publish, ["t", "--sse", "--rate", "9/s"])
    assert (both.exit_code, "--sse" in both.output) == (2, True)
