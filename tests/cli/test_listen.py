"""`fastsse listen` shows events as they come, resumes, and ends without noise."""

import asyncio
import json
import os
import pty
import signal

from click.testing import CliRunner

from fastsse.cli.eventlines import harmless
from fastsse.cli.listen import listen
from fastsse.client import Publisher
from tests.cli.commandline import command, environment
from tests.streamserver import StreamServer, answering, streaming


async def test_data_is_written_as_it_is_into_a_pipe(start, here) -> None:
    for data in ("one", "two\nlines", "\x1b[31mred"):
        here.publish("news", data, event="tick")
    here.publish("other", "not this")
    command = ("listen", "news", "--from", "earliest", "--count", "3", "--url", here.url)
    done = await (await start(*command)).ended()
    assert (done.status, done.out, done.err) == (0, "one\ntwo\nlines\n\x1b[31mred\n", "")


async def test_live_events_are_written_at_once(start, here) -> None:
    here.publish("a", "first")
    listening = await start("listen", "a", "b", "--last", "1", "--url", here.url)
    assert await listening.line() == "first"
    for topic in "ab":
        here.publish(topic, f"live {topic}")
        assert await listening.line() == f"live {topic}"


async def test_json_tells_all_of_an_event(start, here) -> None:
    here.publish("news", "two\nlines é", event="tick", id="x1")
    command = ("listen", "news", "--json", "--last", "1", "--count", "1", "--url", here.url)
    done = await (await start(*command)).ended()
    told = json.loads(done.out)
    assert isinstance(told.pop("time"), int)
    event = {"topic": "news", "id": "x1", "event": "tick", "data": "two\nlines é", "meta": None}
    assert told == event


async def test_json_has_topics_meta_and_what_was_sent_as_json(start, here) -> None:
    here.publish(["a", "b"], {"n": 1}, meta={"tenant": "acme"})
    command = ("listen", "a", "--json", "--last", "1", "--count", "1", "--url", here.url)
    told = json.loads((await (await start(*command)).ended()).out)
    assert (told["topic"], told["data"], told["event"]) == (["a", "b"], {"n": 1}, "message")
    assert told["meta"] == {"tenant": "acme"}


async def test_listen_ends_behind_what_it_waits_for_and_shows_what_matches(start, here) -> None:
    for n in range(4):
        here.publish("run", {"n": n}, event="step")
    here.publish("run", "[DONE]")
    common = ("listen", "run", "--from", "earliest", "--url", here.url)
    shown = '{"n":2}\n{"n":3}\n[DONE]\n'
    for options in (
        ("--filter", "data.n > 1", "--until-data", "[DONE]"),
        ("--filter", "data.n > 1", "--event", "step", "--until", "message"),
    ):
        done = await (await start(*common, *options)).ended()
        assert (done.status, done.out) == (0, shown)
    done = await (await start(*common, "--filter", "data.n >")).ended()
    assert done.status == 1
    assert "at character 9" in done.err


async def test_wait_prints_what_is_kept_and_ends_or_polls(start, here) -> None:
    for n in range(300):
        here.publish("jobs", {"n": n, "x": "x" * 2_000})
    common = ("listen", "jobs", "--json", "--wait", "0", "--url", here.url)
    done = await (await start(*common, "--from", "earliest")).ended()
    shown = [json.loads(line) for line in done.out.splitlines()]
    assert [one["data"]["n"] for one in shown] == list(range(300)), "more than a page"
    assert (done.status, shown[0]["topic"]) == (0, "jobs")
    done = await (await start(*common, "--from", "1-1", "--filter", "data.n == 7")).ended()
    gap, *found = map(json.loads, done.out.splitlines())
    assert gap["event"] == "fastsse.gap"
    assert [one["data"]["n"] for one in found] == [7]
    here.publish("run", "first")
    poll = await start("listen", "run", "--last", "1", "--wait", "20s", "--url", here.url)
    assert await poll.line() == "first"
    here.publish("run", "last", end=True)
    assert await poll.line() == "last"
    done = await poll.ended()
    assert (done.status, done.out, done.err) == (0, "", "")


def test_words_that_pages_do_not_have_are_wrong_usage() -> None:
    for words in (["--last-each", "1"], ["--deleted"], ["--once"]):
        result = CliRunner().invoke(listen, ["a", "--wait", "0", *words])
        assert (result.exit_code, words[0] in result.output) == (2, True)
    assert CliRunner().invoke(listen, ["a", "--wait", "x"]).exit_code == 2


async def test_deletions_are_shown(start, here) -> None:
    mistake = here.publish("a", "x")
    async with Publisher(here.url) as publisher:
        await publisher.delete_event("a", mistake)
        await publisher.end_topic("a")
    command = ("listen", "a", "--json", "--deleted", "--from", "earliest", "--url", here.url)
    told = [json.loads(line) for line in (await (await start(*command)).ended()).out.splitlines()]
    assert [one["event"] for one in told] == ["fastsse.deleted", "fastsse.end"]
    assert json.loads(told[0]["data"])["id"] == mistake


async def test_a_lost_connection_is_reported_and_resumed(start) -> None:
    answers = [
        streaming(b"retry: 1\nid: 7\ndata: a\n\n"),
        streaming(b"data: b\n\n", hold=True),
    ]
    async with StreamServer(*answers) as server:
        listening = await start("listen", "t", "--url", server.url)
        assert [await listening.line(), await listening.line()] == ["a", "b"]
        assert await listening.error_line() == "the server ended the stream; retry in 0.0 s"
        assert server.requests[1].headers[b"last-event-id"] == b"7"


async def test_a_gap_is_reported(start, here) -> None:
    here.publish("news", "x")
    listening = await start("listen", "news", "--from", "bogus", "--count", "1", "--url", here.url)
    assert (await listening.error_line()).startswith("gap (")
    # A gap is no event: --count waits for one.
    here.publish("news", "y")
    done = await listening.ended()
    assert (done.status, done.out) == (0, "y\n")


async def test_interrupt_is_a_clean_end(start, here) -> None:
    here.publish("news", "x")
    listening = await start("listen", "news", "--last", "1", "--url", here.url)
    await listening.line()
    listening.signal(signal.SIGINT)
    done = await listening.ended()
    assert (done.status, done.err) == (0, "")


async def test_closed_pipe_is_a_quiet_end(here) -> None:
    for number in range(100):
        here.publish("news", f"{number}")
    reader, writer = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *command(["listen", "news", "--from", "earliest", "--url", here.url]),
        stdout=writer,
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
    )
    os.close(reader)
    os.close(writer)
    _, err = await process.communicate()
    assert (process.returncode, err) == (141, b"")


async def test_refusal_is_one_line_and_exit_1(start, here) -> None:
    done = await (await start("listen", "x" * 2000, "--url", here.url)).ended()
    assert done.status == 1
    assert done.err.startswith("400 Bad Request: ")
    assert done.err.count("\n") == 1


async def test_server_that_says_no_more_ends_it(start) -> None:
    async with StreamServer(answering("204 No Content")) as server:
        done = await (await start("listen", "t", "--url", server.url)).ended()
    assert (done.status, done.out, done.err) == (0, "", "")


async def test_once_ends_with_the_stream(start) -> None:
    async with StreamServer(streaming(b"data: a\n\n")) as server:
        done = await (await start("listen", "t", "--once", "--url", server.url)).ended()
        assert (done.status, done.out) == (0, "a\n")
    done = await (await start("listen", "t", "--once", "--url", server.url)).ended()
    assert (done.status, done.err) == (3, f"{server.url}/events: connection refused.\n")


async def test_terminal_shows_type_and_time_and_takes_no_commands(here) -> None:
    here.publish("news", "two\nlines \x1b]0;title\x07 \x9b2J", event="ti\x1bck")
    leader, follower = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *command(["listen", "news", "--last", "1", "--count", "1", "--url", here.url]),
        stdout=follower,
        stderr=asyncio.subprocess.PIPE,
        env=environment(TERM="dumb", COLUMNS="200"),
    )
    _, err = await process.communicate()
    os.close(follower)
    shown = os.read(leader, 65536).decode()
    os.close(leader)
    assert process.returncode == 0
    assert "\x1b" not in shown
    assert "\x9b" not in shown
    lines = shown.splitlines()
    assert lines[0][9:] == "news ti\\x1bck two"
    assert lines[1] == " " * 9 + "lines \\x1b]0;title\\x07 \\x9b2J"
    assert err == b"listening\n"


def test_harmless_text_keeps_lines_tabs_and_letters() -> None:
    assert harmless("a\n\té世") == "a\n\té世"
    assert harmless("\x1b\r\u202e") == "\\x1b\\r\\u202e"
