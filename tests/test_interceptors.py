"""Interceptors see each event before it is ordered; handlers see each that was committed."""

import asyncio
import json
import logging
import time
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import fastsse
from fastsse import interceptors as module
from fastsse.client import Publisher, listen
from fastsse.config import Config, ConfigError
from fastsse.directives import Directives, directives_of
from fastsse.errors import InterceptorFailed
from fastsse.events import Event
from fastsse.interceptors import Interceptors, in_share, load_interceptors
from fastsse.server import Server
from tests.cli.conftest import Start, start
from tests.http.conftest import asked
from tests.http.raw import until

__all__ = ["start"]  # The fixture, used by name.

NDJSON = "Content-Type: application/x-ndjson"


def route(event: Event):
    """Drops, changes, copies, or fails, as the type says."""
    match event.event:
        case b"drop":
            return None
        case b"change":
            return event.replace(data=event.data.upper(), meta={"by": "route"})
        case b"copy":
            return [event, event.replace(topics="copies")]
        case b"fail":
            raise ValueError("no")
        case b"wrong":
            return "no event"
        case b"reserved":
            return event.replace(topics="/.well-known/mercure/x")
        case b"many":
            return [event] * 101
        case b"slow":
            time.sleep(0.2)
    return event


def config(**options) -> Config:
    return Config(port=0, drain=0, **options)


async def test_events_are_dropped_changed_and_copied_before_they_are_ordered() -> None:
    async with Server(config(), interceptors=[route]) as server:
        url = server.addresses[0]
        async with listen(url, ["a", "copies"]) as stream, Publisher(url) as publisher:
            assert (await publisher.publish("a", "x", event="drop")).id == ""
            assert server.publish("a", "x", event="drop") == ""
            changed = await publisher.publish("a", "x", event="change")
            copied = await publisher.publish("a", "y", event="copy", id="mine")
            seen = [await anext(stream) for _ in range(3)]
            assert [(event.id, event.data) for event in seen[:2]] == [
                (changed.id, "X"),
                (copied.id, "y"),
            ]
            assert copied.id == "mine" != seen[2].id
            batch = [{"topic": "a", "data": kind, "event": kind} for kind in ("drop", "z", "drop")]
            receipt = await publisher.publish_batch(batch)
            last = await anext(stream)
            assert (receipt.count, receipt.first, receipt.last) == (1, last.id, last.id)
        answer = await asked(server, "GET", "/metrics")
        for outcome, count in (("changed", 1), ("copied", 1), ("dropped", 4), ("failed", 0)):
            line = f'fastsse_intercepted_events_total{{outcome="{outcome}"}} {count}.0'
            assert line.encode() in answer.body


@pytest.mark.parametrize("kind", ["fail", "wrong", "reserved", "many", "slow"])
async def test_failure_refuses_the_publish_with_500_and_a_log_line(kind, caplog) -> None:
    async with Server(config(), interceptors=[route]) as server:
        lines = b'{"topic":"a","data":"1"}\n{"topic":"a","data":"2","event":"%b"}\n'
        body = lines % kind.encode()
        answer = await asked(server, "POST", "/events", NDJSON, body=body)
        assert answer.status == 500
        assert "route" in answer.json["detail"]
        # One line a second, whatever happens.
        with pytest.raises(InterceptorFailed):
            server.publish("a", "x", event=kind)
        assert server._worker._hub.events_published == 0
        metrics = await asked(server, "GET", "/metrics")
        assert b'fastsse_publish_refused_total{reason="interceptor"} 2.0' in metrics.body
    records = [one for one in caplog.records if "interceptor failed" in one.message]
    assert (len(records), records[0].levelno) == (1, logging.ERROR)


async def test_what_an_interceptor_makes_obeys_the_rules() -> None:
    rules = [{"match": "copies", "types": ["other"]}]
    async with Server(config(topics=rules), interceptors=[route]) as server:
        answer = await asked(server, "POST", "/events?topic=a&event=copy", body=b"x")
        assert (answer.status, answer.field) == (400, "event")


def test_interceptors_run_in_their_order_and_control_entries_pass() -> None:
    def double(event: Event):
        return [event, event.replace(data=event.data + b"2")]

    def mark(event: Event):
        return event.replace(data=event.data + b"!")

    both = Interceptors([("double", double), ("mark", mark)], 1)
    end = Event.end("a")
    made = both.apply([Event("a", "x"), end])
    assert [event.data for event in made.events[:2]] == [b"x!", b"x2!"]
    assert made.events[2] is end
    assert made.firsts == [0, 2]


def test_only_the_first_of_several_has_what_the_publisher_asked_of_the_event() -> None:
    keyed = Event("a", "x", directives=directives_of(ends=True, key="k"))
    both = Interceptors([("double", lambda event: [event, event.replace(data="y")])], 1)
    first, copy = both.apply([keyed]).events
    assert first is keyed
    # A copy has a key of its own, so a repeat of the event does not copy it again.
    assert (copy.data, copy.directives) == (b"y", Directives(key=b"k\n1"))


def test_share_of_subjects_is_stable_and_grows() -> None:
    subjects = [f"user-{n}" for n in range(10_000)]
    ten = {one for one in subjects if in_share(one, 0.1)}
    twenty = {one for one in subjects if in_share(one, 0.2)}
    assert ten < twenty
    assert 900 < len(ten) < 1_100
    assert {one for one in subjects if in_share(one, 0.1, "other")} != ten
    assert not any(in_share(one, 0) for one in subjects)
    assert all(in_share(one, 1) for one in subjects)
    # The same in every process and version.
    assert [in_share(one, 0.5) for one in ("alice", "bob", "carol", "dave")] == SHARES


SHARES = [True, True, False, True]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("nowhere:thing", "can't be loaded"),
        ("sys:maxsize", "not callable"),
        (None, "no entry point"),
    ],
)
async def test_interceptor_that_can_t_be_used_ends_the_start(monkeypatch, value, why) -> None:
    points = [] if value is None else [EntryPoint("mine", value, module.GROUP)]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points)
    with pytest.raises(ValueError, match=why):
        load_interceptors(["mine"])
    with pytest.raises(ConfigError, match="interceptors"):
        async with Server(config(interceptors=["mine"])):
            pass


PLUGIN = """
import os, signal
def hang(event):
    while event.event == b"hang":
        pass
    return event.replace(topics=["a", "copies"])
"""


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_plug_in_is_an_entry_point_and_is_interrupted_in_the_program(
    start: Start, tmp_path: Path, workers: str
) -> None:
    info = tmp_path / "plug_in-1.dist-info"
    info.mkdir()
    (tmp_path / "plug_in_module.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug-in\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[fastsse.interceptors]\nhang = plug_in_module:hang\n")
    options = ["--port", "0", "--drain", "0s", "--interceptors", "hang", "--workers", workers]
    running = await start(
        "serve", *options, "--interceptor-time", "100ms", PYTHONPATH=str(tmp_path)
    )
    line = await running.error_line()
    while "addresses" not in line:
        line = await running.error_line()
    url = json.loads(line)["addresses"][0]
    async with listen(url, "copies") as stream, Publisher(url) as publisher:
        with pytest.raises(fastsse.client.Refused) as caught:
            await publisher.publish("a", "x", event="hang")
        assert caught.value.status == 500
        receipt = await publisher.publish("a", "y")
        event = await anext(stream)
        assert (event.id, event.data) == (receipt.id, "y")


# ── Handlers ──────────────────────────────────────────────────────────────────────────────────


async def test_handlers_are_called_with_the_events_of_their_types(caplog) -> None:
    server = Server(config())
    seen: list = []
    later: asyncio.Queue = asyncio.Queue()

    @server.on("user.login.*", "message")
    def plain(event: fastsse.HandledEvent) -> None:
        seen.append(event)
        if event.data == "bad":
            raise ValueError

    @server.on()
    async def everything(event: fastsse.HandledEvent) -> None:
        await later.put(event)
        if event.data == "bad":
            raise ValueError

    async with server:
        with pytest.raises(RuntimeError):
            server.on("late")
        first = server.publish(["a", "b"], {"n": 1}, event="user.login.ok", meta={"by": "x"})
        server.publish("a", "other", event="user.logout")
        async with Publisher(server.addresses[0]) as publisher:
            second = await publisher.publish("a", "two\r\nlines", id="mine", private=True)
        server.publish("a", "bad")
        events = [await later.get() for _ in range(4)]
        assert [event.data for event in events] == ['{"n":1}', "other", "two\nlines", "bad"]
        assert [event.id for event in seen[:2]] == [first, second.id]
        assert seen[0].topics == ("a", "b")
        assert (seen[0].json(), seen[0].meta, seen[0].event) == (
            {"n": 1},
            {"by": "x"},
            "user.login.ok",
        )
        assert (seen[1].event, seen[1].private) == ("message", True)
        assert abs(seen[1].time_ms - time.time() * 1000) < 60_000
        metrics = await asked(server, "GET", "/metrics")
        assert b'fastsse_handled_events_total{outcome="done"} 5.0' in metrics.body
        assert b'fastsse_handled_events_total{outcome="failed"} 2.0' in metrics.body
    caplog.clear()  # The traceback of the handler holds the entry.


async def test_what_waits_for_a_slow_handler_is_bounded(monkeypatch, caplog) -> None:
    server = Server(config())
    go_on = asyncio.Event()
    seen: list[str] = []

    @server.on()
    async def slow(event: fastsse.HandledEvent) -> None:
        await go_on.wait()
        seen.append(event.data)

    async with server:
        for number in range(3_000):
            server.publish("a", str(number))
        assert caplog.text.count("A handler is too slow") == 1
        go_on.set()
        await until(lambda: len(seen) == 1_000)
        assert seen == [str(number) for number in range(1_000)]
        metrics = await asked(server, "GET", "/metrics")
        assert b'fastsse_handled_events_total{outcome="dropped"} 2000.0' in metrics.body
