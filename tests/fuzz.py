"""Fuzzes parsers against a second way to the same answer: `python -m tests.fuzz --seconds 60`.

Each target takes any bytes. What it checks is in its docstring; any other exception than the one it
names is a failure too. One seed always makes the same inputs. A failure is printed with its
input, and the exit status is 1.

Requests have a fuzzer of their own: `tests.http.fuzz_intake`.
"""

import argparse
import json
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from fastsse._core import View
from fastsse._records import pack_entry, pack_event, unpack_entries, unpack_events
from fastsse.api.batch import _read_slowly, events_of_lines
from fastsse.api.feeds import read_feed
from fastsse.backbone.redis.codec import decode_record, encode_event
from fastsse.bus.frames import Fields, FrameError, blob, text, texts
from fastsse.control.feeds import FeedTopics
from fastsse.entries import Entry, Extras, encode_entries, id_of
from fastsse.errors import InvalidEvent, InvalidSubscription
from fastsse.events import DATA_JSON, Event
from fastsse.eventstream import Block, EventStreamParser, StreamEventTooLong
from fastsse.expressions import InvalidExpression, compile_expression, matches
from fastsse.expressions.parser import parse
from fastsse.http.problems import Problem
from fastsse.subscriptions import Subscription
from tests.expressions.test_fuzz import second

_ENVELOPES: Final = View(envelope=True)
_EVENTS: Final = [
    Event(("news",), b"hello"),
    Event(("a", "b/c"), b"one\ntwo", event=b"tick", id=b"own", retry=5, private=True),
    Event(("\u00fc",), b'{"n":1}'),
]
_DOCUMENT: Final = {
    "data": {"price": 5, "name": "eu/x", "list": [1, 2]},
    "event": "trade",
    "topic": "news",
    "meta": {},
}


class Target(NamedTuple):
    """A parser with inputs to begin with, and pieces that its format has."""

    check: Callable[[bytes], None]
    corpus: Sequence[bytes]
    pieces: Sequence[bytes]


def check_records(data: bytes) -> None:
    """Stored entries and drafts: refused (ValueError), or the same when they are written again."""
    try:
        entries = unpack_entries(data, Entry, Extras)
    except ValueError:
        entries = []
    again = b"".join(map(pack_entry, entries))
    read = unpack_entries(again, Entry, Extras) if entries else []
    assert [_plain(one) for one in read] == [_plain(one) for one in entries]
    try:
        events = list(unpack_events(data))
    except ValueError:
        return
    again = b"".join(map(pack_event, events))
    assert list(map(_fields, unpack_events(again) if events else ())) == list(map(_fields, events))


def _plain(entry: Entry) -> tuple[Any, ...]:
    return (*entry[:3], entry.frame.body, entry.extras)


def _fields(event: Event) -> tuple[Any, ...]:
    return tuple(getattr(event, name) for name in Event.__slots__)


def check_redis(data: bytes) -> None:
    """Records in Redis: refused (ValueError), or written again they are read as the same."""
    try:
        event, time_ms = decode_record(1 << 20, data)
    except ValueError:
        return
    assert time_ms >= 0
    again, _ = decode_record(1 << 20, encode_event(event))
    assert _fields(again) == _fields(event)


def check_ndjson(data: bytes) -> None:
    """Lines of a publish: the fast reader gives what the slow one gives, or both refuse."""
    outcomes = []
    for read in (events_of_lines, lambda body: _read_slowly(bytes(body).split(b"\n"))):
        try:
            outcomes.append([_fields(event) for event in read(data)])
        except (Problem, InvalidEvent) as error:
            outcomes.append(type(error).__name__)
    assert outcomes[0] == outcomes[1]


def check_filter(data: bytes) -> None:
    """Filters: refused with a position in the text, or evaluated as the slow evaluation does."""
    expression = data.decode("utf-8", "replace")
    try:
        native = compile_expression(expression)
    except InvalidExpression as error:
        is_inside = 0 <= error.position <= len(expression)
        assert is_inside
        return
    found = second(parse(expression), _DOCUMENT)
    wanted = found if isinstance(found, bool) else None
    data_json = json.dumps(_DOCUMENT["data"]).encode()
    read: dict[str, Any] = {
        "topics": ("news",),
        "data": data_json,
        "event": b"trade",
        "data_kind": DATA_JSON,
    }
    assert matches(native, **read) == wanted


def check_stream(data: bytes) -> None:
    """Event streams: one piece and single bytes give the same blocks, within the bound."""
    outcomes = []
    for step in (len(data) or 1, 1, 3):
        parser = EventStreamParser(max_event_bytes=256)
        blocks: list[Block] = []
        try:
            for at in range(0, len(data), step):
                blocks += parser.feed(data[at : at + step])
                assert parser.held_bytes <= 256
        except StreamEventTooLong:
            # Blocks before the long one may be reported, or not yet.
            return
        outcomes.append((blocks, parser.retry_ms))
    assert outcomes[0] == outcomes[1] == outcomes[2]


def check_fields(data: bytes) -> None:
    """Fields of the bus: read in any order they end, or raise FrameError."""
    fields = Fields(data)
    try:
        fields.text()
        fields.blob(1 << 20)
        fields.texts(8)
    except FrameError:
        return


def check_feed(data: bytes) -> None:
    """Selections: refused, or the same feed when it is read from its canonical form."""
    try:
        topics = read_feed(data)
    except (Problem, InvalidSubscription):
        return
    again = read_feed(topics.pack())
    assert (again, again.feed) == (topics, topics.feed)
    assert FeedTopics.unpack(topics.feed, topics.pack()) == topics
    assert Subscription(topics, topics_max=len(topics)).selectors == topics


def check_envelope(data: bytes) -> None:
    """Lines of a publish, in envelopes: a block each, with one line of JSON that says the same."""
    try:
        events = list(events_of_lines(data))
    except (Problem, InvalidEvent):
        return
    entries = encode_entries([(7 << 20) + n for n in range(1, 1 + len(events))], events)
    frames, is_over = _ENVELOPES.select(
        [entry.frame for entry in entries],
        [entry.topics for entry in entries],
        [event.meta for event in events],
    )
    assert not is_over
    for event, entry, frame in zip(events, entries, frames, strict=True):
        (block,) = EventStreamParser(max_event_bytes=1 << 24).feed(frame.body)
        assert block.data is not None
        assert block.event == (event.event or b"")
        assert b"\n" not in block.data
        assert json.loads(block.data) == _envelope(event, entry)


def _envelope(event: Event, entry: Entry) -> dict[str, object]:
    """What an envelope says, from the event itself."""
    text = event.data.decode()
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return {
        "topic": event.topics[0] if len(event.topics) == 1 else list(event.topics),
        "id": id_of(entry.position, event).decode(),
        "event": None if event.event is None else event.event.decode(),
        "data": json.loads(text) if event.data_kind == DATA_JSON else lines,
        "meta": None if event.meta is None else json.loads(event.meta),
        "time": entry.frame.time_ms,
    }


TARGETS: Final[dict[str, Target]] = {
    "records": Target(
        check_records,
        [
            *(pack_event(event) for event in _EVENTS),
            *(pack_entry(entry) for entry in encode_entries([7, 8, 9], _EVENTS)),
        ],
        [b"\x00", b"\x01", b"\xff\xff", b"\x00\x00\x00\x01"],
    ),
    "redis": Target(
        check_redis,
        [encode_event(event) for event in _EVENTS],
        [b"null", b"true", b'"', b"{", b"[", b"-1", b"1e999", b'"t":', b'"d":', b"\\u0000"],
    ),
    "ndjson": Target(
        check_ndjson,
        [
            b'{"topic":"news","data":"x"}\n{"topic":["a","b"],"data":{"n":1},"event":"t"}',
            b'{"topic":"a","data":"\\u003a","private":true,"id":"i"}\n\n',
        ],
        [
            b'"topic":',
            b'"data":',
            b"\n",
            b"null",
            b"\\u003a",
            b"\\ud800",
            b"[",
            b"1e400",
            b'"a":1,',
        ],
    ),
    "filter": Target(
        check_filter,
        [
            b'data.price > 5 && event == "trade"',
            b'!(data.name.startsWith("eu/")) || has(data.list)',
            b"data.price in [1, 5, 2.5]",
        ],
        [
            b"&&",
            b"||",
            b"!",
            b"(",
            b")",
            b"data.",
            b"has(",
            b"in",
            b"topic",
            b"==",
            b"<=",
            b'"',
            b"\\",
            b"1e9",
            b"[",
        ],
    ),
    "stream": Target(
        check_stream,
        [
            b"id: 1\nevent: t\ndata: a\ndata: b\n\n: note\nretry: 5\r\n\r\n",
            b"\xef\xbb\xbfdata:x\r\r",
        ],
        [b"\n", b"\r", b"\r\n", b"data", b"id:", b"\x00", b"\xef\xbb\xbf", b"retry: 9"],
    ),
    "feed": Target(
        check_feed,
        [b'["a","b/{id}","*"]', b'[{"topic":"a"},"\\u00e9",{"topic":"a"}]'],
        [b'"', b",", b"[", b"{", b'{"topic":', b"null", b"\\u0000", b"\\ud800", b"$", b"*", b"1e9"],
    ),
    "envelope": Target(
        check_envelope,
        [
            b'{"topic":["a","b\\"\\\\"],"data":"l\\r\\n\\u2028x","event":"t","id":"i","meta":{"k":"v","n":1.5}}',
            b'{"topic":"\\u00e9","data":{"n":[1,null,true,"\\ud83d\\ude00"]},"retry":5}\n{"topic":"b","data":""}',
        ],
        [
            b'"topic":',
            b'"data":',
            b'"meta":{',
            b"\n",
            b"null",
            b"\\u0000",
            b"\\u001f",
            b"\\r",
            b'\\"',
            b"[",
            b"1e308",
            b"\xc3\xa9",
        ],
    ),
    "fields": Target(
        check_fields,
        [text("news") + blob(b"data") + texts(["a", "b"])],
        [b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x80"],
    ),
}


def inputs(target: Target, seed: int) -> Iterator[bytes]:
    """Changed inputs of the corpus, for ever."""
    rand = random.Random(seed)
    while True:
        data = bytearray(rand.choice(target.corpus))
        for _ in range(rand.randint(1, 4)):
            at = rand.randint(0, len(data))
            kind = rand.randrange(6)
            if kind == 0:
                data[at:at] = rand.choice(target.pieces)
            elif kind == 1:
                data[at : at + 1] = bytes((rand.randrange(256),))
            elif kind == 2:
                del data[at : at + rand.randint(1, 8)]
            elif kind == 3 and data[at:]:
                data[at] ^= 1 << rand.randrange(8)
            elif kind == 4:
                other = rand.choice(target.corpus)
                data[at:] = other[rand.randint(0, len(other)) :]
            else:
                data[at:at] = data[at : at + rand.randint(1, 16)]
        yield bytes(data)


def run(name: str, seed: int, seconds: float, most: int) -> tuple[int, list[bytes]]:
    """Tries inputs until a time or a number is reached: how many, and those that failed."""
    target, failed, count = TARGETS[name], [], 0
    deadline = time.monotonic() + seconds
    for data in (one for source in (target.corpus, inputs(target, seed)) for one in source):
        if count >= most or (count % 64 == 0 and time.monotonic() > deadline) or len(failed) >= 5:
            break
        count += 1
        try:
            target.check(data)
        except Exception:
            failed.append(data)
            print(f"{name}: {data!r}\n{traceback.format_exc(limit=-2)}")
    return count, failed


def main() -> int:
    """1 if an input failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=float, default=10, help="for each target")
    parser.add_argument("--inputs", type=int, default=sys.maxsize, help="for each target at most")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    failures = 0
    for name in given.targets or TARGETS:
        count, failed = run(name, given.seed, given.seconds, given.inputs)
        failures += len(failed)
        print(f"{name}: {count} inputs, {len(failed)} failed")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
