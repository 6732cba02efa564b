"""Compares the intake with the way that every other request takes, on many mutated requests.

    python -m tests.http.fuzz_intake --inputs 1000000 --seed 7

What the intake takes, llhttp and the routes must accept with the same target, topics, data, id and
answer, and the same number of bytes; what it leaves it must not have changed. Nothing is sent over
sockets, so about 100,000 inputs a second are compared. One seed always makes the same inputs. A
difference is printed with its input, and the exit status is 1.

The inputs are mutations of the requests in `intake_corpus.txt`. With `--keep FILE`, taken inputs of
a new shape are added to that file, for later runs (`--corpus FILE`).
"""

import argparse
import ast
import random
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

from fastsse._intake import Intake, Lane, Tally
from fastsse.api.access import OpenAccess
from fastsse.api.authorization import Authorization
from fastsse.api.publish import Publish, PublishGate
from fastsse.api.publish_intake import PublishIntake
from fastsse.api.rate_limits import RequestLimits
from fastsse.config import Config
from fastsse.errors import FastsseError
from fastsse.events import Event
from fastsse.http.cors import Cors
from fastsse.http.hosts import Hosts
from fastsse.http.intake import make_intake
from fastsse.http.parser import HeadLimits, RequestParser
from fastsse.http.request import Request, Targets
from fastsse.http.responses import Response
from fastsse.http.router import Route, Router
from fastsse.hub import Hub, Published
from fastsse.positions import Positions
from fastsse.trails import request_id_line
from tests.http.fuzz_streams import known_streams, routes_of

CORPUS: Final = Path(__file__).with_name("intake_corpus.txt")
LIMITS: Final = HeadLimits(head_bytes=4096, headers=20, body_bytes=8192)
# Bytes and lines that request smuggling and bad clients are made of.
# fmt: off
PIECES: Final = (
    b"\r\nContent-Type: Application/JSON ;a=b", b"\r\nContent-Type:\tapplication/json",
    b"&meta=%7B%22a%22:1%7D",
    b'\r\n', b'\n', b'\r', b'\x00', b' ', b'\t', b':', b'%', b'%0d%0a', b'%00', b'%2', b'%zz',
    b'&', b'=', b'?', b'#', b'+', b'/', b'//', b'\x80', b'\xff', b'\xc3\xa9', b'\xed\xa0\x80',
    b'\xf4\x90\x80\x80', b'\x7f', b'\x0b', b'\r\n\r\n', b'\r\n ', b'\r\n\t', b' :', b'0', b'1',
    b'9', b'-', b'+5', b'0x5', b'5, 5', b'\r\nContent-Length: 5', b'\r\nContent-Length:5',
    b'\r\ncontent-length : 5', b'\r\nTransfer-Encoding: chunked',
    b'\r\nTransfer-Encoding:chunked', b'\r\ntransfer-encoding: identity',
    b'\r\nTransfer-Encoding\t: chunked', b'\r\nX: a\r\n b', b'\r\nHost: localhost',
    b'\r\nHost: other', b'\r\nConnection: close', b'\r\nConnection: keep-alive',
    b'\r\nConnection: upgrade', b'\r\nUpgrade: websocket', b'\r\nProxy-Connection: close',
    b'\r\nExpect: 100-continue', b'\r\nContent-Encoding: gzip', b'\r\nContent-Encoding: identity',
    b'\r\nAccept: text/event-stream', b'\r\nAccept: */*', b'\r\nContent-Type: text/event-stream',
    b'\r\nContent-Type: application/json', b'\r\nOrigin: https://a.example', b'\r\nOrigin: null',
    b'\r\nCookie: a=b', b'\r\nTE: trailers', b'\r\nAuthorization: Bearer secret',
    b'\r\nAuthorization: Bearer wrong', b'\r\nTrailer: X', b'\r\nIdempotency-Key: k',
    b'\r\nIdempotency-Key: "k" ', b'\r\nIdempotency-Key:', b'\r\nIf-Match: *', b'\r\nIf-Match:"a"',
    b'\r\nIf-Match: 1-1', b'\r\ntraceparent: 00-a-b-01', b'\r\nX-Request-Id: 1',
    b'\r\nX-Forwarded-For: 10.0.0.1', b'\r\nKeep-Alive: 5', b'\r\n: empty', b'\r\nX:',
    b'\r\nX: \x01', b'GET ', b'POST ', b'post ', b'HTTP/1.0', b'HTTP/1.1', b'HTTP/2.0',
    b'http://localhost', b'*', b'topic=', b'&topic=b', b'&topic=', b'&id=a', b'&id=', b'&id=1-1',
    b'id=a&', b'&id=urn:uuid:', b'&%69d=a', b'&id=earliest', b'&id=%22', b'&id=a%5cb', b'&id=a+b',
    b'&event=x', b'&event=error', b'&private=true', b'&retry=5', b'&authorization=a',
    b'&ticket=a', b'$', b'&event=fastsse.x', b'/.well-known/mercure/a', b'chunked',
    b'5\r\nhello\r\n0\r\n\r\n', b'/streams/log', b'/streams/', b'/json', b'/private/bytes',
    b'\r\nContent-Type: text/plain', b'\r\nContent-Type: application/octet-stream',
    b'\r\nProducer-Id: p', b'\r\nProducer-Epoch: 0', b'\r\nProducer-Seq: 12', b'[', b'"',
    b'\r\nProducer-Id: p\r\nProducer-Epoch: 01\r\nProducer-Seq:0', b'\r\nStream-Seq: 1',
    b'\r\nStream-Seq:', b'\r\nStream-Seq:\ta', b'\r\nStream-Closed: true', b'9007199254740992',
    b'\r\nStream-TTL: 5', b'{"a": 1}', b' {"a":"\\u0041"} ', b'1e2', b'[[1],2]',
)
# fmt: on


class Recorder(Lane):
    """A connection that records what the intake writes to it."""

    def __init__(self) -> None:
        self.written = b""
        self._transport = self

    def get_extra_info(self, name: str) -> object:
        """Has no socket that could be written to directly."""
        return object()

    def write(self, data: bytes) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return 0

    def on_waiting(self) -> None:
        raise AssertionError("the batch was not answered")

    def on_answered(self) -> None:
        self._state = 0


class Counter:
    """A hub that gives out positions in a row."""

    def __init__(self) -> None:
        self.n = 0
        self.events: list[Event] = []

    def publish(self, events: Sequence[Event], done: Any) -> None:
        first = self.n + 1
        self.n += len(events)
        self.events += events
        done(Published([(77 << 64) | n for n in range(first, self.n + 1)], events))

    publish_separately = publish

    def publish_now(self, batch: Sequence[Event]) -> Sequence[int] | None:
        """Takes every second batch."""
        if self.n % 2:
            return None
        first = (77 << 64) + self.n + 1
        self.n += len(batch)
        self.events += batch
        return Positions(first, len(batch))

    def allows(self, event: Event) -> bool:
        return True

    topics = SimpleNamespace(by_name={})


class Difference(Exception):
    """The two ways do not agree."""


class Comparator:
    """Both ways, next to each other.

    Arguments:
        token: what publishers must send; None: nothing.
        origins: of other pages.
    """

    def __init__(self, token: str | None = None, origins: Sequence[str] = ()) -> None:
        self._cors = cors = Cors(origins, cross_publish=token is not None)
        hosts = Hosts(("localhost",), enforced=True)
        targets = Targets()
        access = OpenAccess(token, cors)
        self._called: list[Any] = []
        self._fast, self._slow = Counter(), Counter()
        inactive = cast(RequestLimits, SimpleNamespace(active=False))
        gate = PublishGate(cast(Hub, self._slow), access, inactive, None, Authorization(Config()))
        publish = Publish(gate)
        open_streams = known_streams(self._fast, targets)
        routes = routes_of(gate, access, open_streams)
        routes[b"/events"] = {b"POST": Route(publish, publish.admit)}
        self._router = Router(routes, cors)
        context = SimpleNamespace(
            targets=targets,
            hosts=hosts,
            cors=cors,
            lines=b"",
            clients=SimpleNamespace(active=False),
            limits=LIMITS,
            loop=SimpleNamespace(call_soon=self._called.append),
            deadlines=SimpleNamespace(idle=None, lately_s=0.0),
            requests=SimpleNamespace(tally=lambda route, status: Tally()),
        )
        publishes = PublishIntake(cast(Hub, self._fast), access, inactive, 0)
        self.intake: Intake = make_intake(cast(Any, context), publishes, open_streams.route)
        open_streams.join(self.intake)
        self._new_parser = lambda: RequestParser(LIMITS, targets, hosts)
        self._parser = self._new_parser()
        self._lane = Recorder()

    def compare(self, data: bytes) -> int:
        """Offers one input; returns how many bytes the intake took. Raises Difference."""
        lane = self._lane
        lane.written = b""
        before = self.intake.taken
        size = self.intake.offer(lane, data)
        while self._called:
            self._called.pop()()
        if not size:
            if lane._state or lane.written or self.intake.taken != before or self._fast.events:
                raise Difference("what was left was changed")
            return 0
        events, self._fast.events = self._fast.events, []
        try:
            self._check(data[:size], events)
        except FastsseError as error:
            self._parser = self._new_parser()
            raise Difference(f"only the intake accepts it: {error}") from None
        return size

    def _check(self, data: bytes, events: Sequence[Event]) -> None:
        """The other way must understand exactly these requests."""
        answers = b""
        while data:
            request, data = self._parser.read_head(data)
            if request is None or not self._parser.expect_body(request):
                raise Difference("no whole request")
            self._parser.check_size()
            body, data = self._parser.read_body(data)
            if body is None or not self._parser.persists:
                raise Difference("no whole request, or the last one")
            request.body = body
            answers += self._answer(request)
        others, self._slow.events = self._slow.events, []
        if [fields(event) for event in events] != [fields(event) for event in others]:
            raise Difference(f"events {events} {others}")
        if answers != self._lane.written:
            raise Difference(f"answers {self._lane.written!r} {answers!r}")

    def _answer(self, request: Request) -> bytes:
        """What a connection writes (`Connection.respond`)."""
        written: list[bytes] = []

        def respond(response: Response) -> None:
            lines = self._cors.lines(request.headers) + request_id_line(request.headers)
            written.append(b"".join((response.head, lines, b"\r\n", response.body)))

        def fail(error: FastsseError) -> None:
            raise error

        route = self._router.find(request)
        assert route.admit is not None
        route.admit(request)
        route.handle(request, cast(Any, SimpleNamespace(respond=respond, fail=fail)))
        return b"".join(written)


def fields(event: Event) -> tuple[object, ...]:
    return tuple([getattr(event, name) for name in Event.__slots__])


def mutations(corpus: Sequence[bytes], seed: int) -> Iterator[bytes]:
    """Requests with one to three changes, for ever; some follow another in one piece."""
    rand = random.Random(seed)
    bits, pick = rand.getrandbits, rand.choice

    def place(data: bytes) -> int:
        return bits(16) % (len(data) + 1)

    while True:
        base = pick(corpus)
        for _ in range(64):
            data = base
            for _ in range(1 + (bits(3) < 3) + (bits(3) == 0)):
                at, kind = place(data), bits(3)
                if kind <= 1:
                    data = data[:at] + pick(PIECES) + data[at:]
                elif kind == 2:
                    data = data[:at] + bytes((bits(8),)) + data[at + 1 :]
                elif kind == 3:
                    data = data[:at] + data[at + 1 + bits(3) :]
                elif kind == 4:
                    data = (
                        data[:at] + bytes((data[at] ^ 1 << bits(3),)) + data[at + 1 :]
                        if data[at:]
                        else data
                    )
                elif kind == 5:  # A line stands twice, or in another place.
                    lines = data.split(b"\r\n")
                    lines.insert(bits(8) % (len(lines) + 1), pick(lines))
                    data = b"\r\n".join(lines)
                elif kind == 6:  # The length is right again, or nearly.
                    data = data[:at] + pick(PIECES) + data[at:]
                    data = with_length(data, int(bits(4) == 0) - int(bits(4) == 0))
                else:
                    data = data[:at] + pick(corpus)[place(data) :]
            if bits(3) == 0:
                data = base + data
            yield data


_LENGTH: Final = re.compile(rb"(?i)content-length: *[0-9]+")


def with_length(data: bytes, wrong: int) -> bytes:
    """The request with the length of what follows its blank line."""
    head, blank, body = data.partition(b"\r\n\r\n")
    return _LENGTH.sub(b"Content-Length: %d" % (len(body) + wrong), head) + blank + body


def read_corpus(path: Path = CORPUS) -> list[bytes]:
    """One request a line, as Python writes bytes; each with its right length."""
    lines = path.read_text().splitlines()
    return [with_length(ast.literal_eval(line), 0) for line in lines if line[:1] == "b"]


def comparators() -> list[Comparator]:
    """Servers with different options."""
    return [
        Comparator(),
        Comparator(token="secret"),
        Comparator(origins=["https://a.example"]),
        Comparator(token="secret", origins=["*"]),
    ]


def run(corpus: Sequence[bytes], seed: int, inputs: int, keep: Path | None = None) -> list[str]:
    """Compares as many inputs; returns the differences found, at most 10. Prints the numbers."""
    sides = comparators()
    shapes = {shape(data) for data in corpus}
    found: list[str] = []
    taken, started_s = 0, time.monotonic()
    for number, data in zip(range(inputs), mutations(corpus, seed), strict=False):
        side = sides[number & 3]
        try:
            size = side.compare(data)
        except Difference as difference:
            found.append(f"{difference}: {data!r}")
            if len(found) == 10:
                break
            continue
        taken += size > 0
        if size and keep is not None and (new := shape(data)) not in shapes and len(shapes) < 5000:
            shapes.add(new)
            with keep.open("a") as file:
                print(repr(data), file=file)
        if number % 5_000_000 == 4_999_999:
            print(f"{number + 1:,} inputs, {taken:,} taken, {len(found)} differences", flush=True)
    rate = inputs / (time.monotonic() - started_s)
    print(
        f"seed {seed}: {inputs:,} inputs, {taken:,} taken, {len(found)} differences, {rate:,.0f}/s"
    )
    return found


def shape(data: bytes) -> bytes:
    """What is left of a request without letters and digits that follow others."""
    return re.sub(rb"[A-Za-z0-9]+", b"a", data)[:400]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args(arguments)
    found = run(read_corpus(options.corpus), options.seed, options.inputs, options.keep)
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
