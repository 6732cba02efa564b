"""Readers in Python that behave as browsers: one greenlet a stream; every event is checked.

They are for thousands of streams and for what the native swarm does not do; tens of thousands are
`SwarmUser`'s. Each kind's observations stand under its own type in Locust's statistics:

============== ====================================================================================
open           connect to a 200's head; fails with what was answered instead
first event    connect to the first event of that connection
delivery       due to received, of events that were due since the connection was made
replay         the same of events that are older than the connection
resume         a stream's end to its next opening (`return` for a Reconnector: connect to opening)
ended          how long a stream lived that the server or the network ended
============== ====================================================================================

Failures without a duration: `lost` (skipped without a report), `repeated`, `out of order`. Events
that a gap event reported are `announced`, events that a scenario conflates are `conflated`; neither
is a failure.
"""

from __future__ import annotations

import random
import time
from urllib.parse import urlencode

import gevent
from locust import User, task
from locust.env import Environment

from fastsse import stamp
from fastsse.client.decoder import Decoder, ReceivedEvent
from fastsse.client.errors import EventTooLarge
from fastsse.client.http import growing_wait_s
from fastsse.client.listener import DEFAULT_RETRY_S
from loadtests.order import Arrivals
from loadtests.trial import trial_of
from loadtests.wire import BadAnswer, Wire, plain

EVENT_BYTES_MAX = 1024 * 1024
IDLE_TIMEOUT_S = 60.0
SLOW_BUFFER_BYTES = 4096
SLOW_LOOK_S = 0.25
_random = random.Random()
_STAMP_CHARACTERS = 100
"""A stamp stands in the first of an event's data."""


class NotOpened(Exception):
    """An answer that is no stream."""


def now_us() -> int:
    """For durations."""
    return time.perf_counter_ns() // 1000


class _Reader(User):
    """One stream that reconnects and resumes. Subclasses read it."""

    abstract = True
    kind = ""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.trial = trial_of(environment)
        self.trial.readers.add(self)
        self.ledger = self.trial.ledger
        self.wire: Wire | None = None
        self.settled = False
        self._ended = False

    def on_start(self) -> None:
        self.number = self.trial.numbers.take("reader")
        self.scenario = self.trial.scenario
        self.decoder = Decoder(EVENT_BYTES_MAX)
        self.arrivals = Arrivals()
        self._failures = 0
        self._at_once = False
        self._lost_at_us: int | None = None
        self._target = self._target_of()

    def _target_of(self) -> str:
        url = self.trial.url
        query = [("topic", topic) for topic in self.scenario.topics_of(self.number)]
        if self.scenario.last:
            query.append(("last", str(self.scenario.last)))
        return f"{url.path}?{'&'.join(filter(None, (url.query, urlencode(query))))}"

    def on_stop(self) -> None:
        self.end()
        self.trial.readers.discard(self)
        self.trial.numbers.give_back("reader", self.number)

    def end(self) -> None:
        """Closes the stream permanently."""
        self._ended = True
        self.settled = False
        self._close()

    def cut(self) -> None:
        """Cuts the connection, as a network failure does; the stream reconnects at once."""
        self._at_once = self.wire is not None
        self._close(reset=True)

    @task
    def stay(self) -> None:
        """Reads one stream from its opening to its end, and waits before the next."""
        if self._ended:
            gevent.sleep(IDLE_TIMEOUT_S)
            return
        began_us = now_us()
        try:
            wire = self._open(began_us)
        except (OSError, BadAnswer, NotOpened) as error:
            self.ledger.one((self.kind, "open"), now_us() - began_us, error=plain(error))
            self._failures += 1
            if isinstance(error, NotOpened):
                self._give_up()
        else:
            self._stay_with(wire, began_us)
        self._wait()

    def _give_up(self) -> None:
        """A browser does not ask again after such an answer."""
        self._ended = self.settled = True
        self.ledger.moved("over", 1)

    def _open(self, began_us: int) -> Wire:
        wire = self._connect()
        try:
            wire.send("GET", self._target, self._headers())
            status = wire.status()
            if status != 200:
                raise NotOpened(f"HTTP {status}")
        except BaseException:
            wire.close()
            raise
        self.ledger.one((self.kind, "open"), now_us() - began_us)
        return wire

    def _connect(self) -> Wire:
        return Wire(self.trial.url)

    def _headers(self) -> list[tuple[str, str]]:
        headers = [("Accept", "text/event-stream"), ("Cache-Control", "no-cache")]
        if self.decoder.last_event_id:
            headers.append(("Last-Event-ID", self.decoder.last_event_id))
        return headers

    def _stay_with(self, wire: Wire, began_us: int) -> None:
        self.wire = wire
        self.settled = True
        self.ledger.moved("open", 1)
        self._failures = 0
        self._note_return(began_us)
        self.decoder.restart()
        self._began_us, self._had_event = began_us, False
        self._since_us = stamp.now_us() - (now_us() - began_us)
        try:
            wire.timeout_after(IDLE_TIMEOUT_S)
            self.read(wire)
        except (OSError, BadAnswer, EventTooLarge):
            self._failures += 1
        finally:
            self.ledger.moved("open", -1)
            self._close()
        self._note_end()

    def read(self, wire: Wire) -> None:
        """Reads until the stream ends. Raises OSError, BadAnswer, EventTooLarge."""
        while body := wire.read():
            self.take(self.decoder.feed(body))

    def _note_return(self, began_us: int) -> None:
        if self._lost_at_us is not None:
            self.ledger.one((self.kind, "resume"), now_us() - self._lost_at_us)
            self._lost_at_us = None

    def _note_end(self) -> None:
        if not self._ended:
            self._lost_at_us = now_us()
            self.ledger.one((self.kind, "ended"), self._lost_at_us - self._began_us)

    def _wait(self) -> None:
        """As long as a browser would, a random part more, and longer after each failure."""
        if self._at_once:
            self._at_once = False
            return
        retry_s = DEFAULT_RETRY_S if self.decoder.retry_s is None else self.decoder.retry_s
        gevent.sleep(growing_wait_s(retry_s, self._failures, _random))

    def _close(self, *, reset: bool = False) -> None:
        if self.wire is not None:
            self.wire.close(reset=reset)
            self.wire = None

    # --- events ----------------------------------------------------------------------------------

    def take(self, events: list[ReceivedEvent]) -> None:
        """Measures and checks received events."""
        received_us = stamp.now_us()
        for event in events:
            if event.gap is not None:
                self.arrivals.announce_gap()
                self.ledger.one((self.kind, "gap"))
            elif not event.event.startswith("fastsse."):
                self._take_event(event, received_us)

    def _take_event(self, event: ReceivedEvent, received_us: int) -> None:
        if not self._had_event:
            self._had_event = True
            self.ledger.one((self.kind, "first event"), now_us() - self._began_us)
        mark = stamp.decode(event.data[:_STAMP_CHARACTERS].encode())
        size_bytes = len(event.data)
        if mark is None:
            self.ledger.one((self.kind, "delivery"), size_bytes=size_bytes)
            return
        name = "delivery" if mark.due_us >= self._since_us else "replay"
        self.ledger.one((self.kind, name), received_us - mark.due_us, size_bytes=size_bytes)
        if mark.count:
            self._judge(mark)

    def _judge(self, mark: stamp.Stamp) -> None:
        verdict = self.arrivals.judge(mark)
        if verdict.kind == "lost" and self.scenario.conflates:
            self.ledger.many((self.kind, "conflated"), None, verdict.missing)
        elif verdict.kind == "lost":
            self.ledger.faults((self.kind, "lost"), "jumped over in silence", verdict.missing)
        elif verdict.kind == "announced":
            self.ledger.many((self.kind, "announced"), None, verdict.missing)
        elif verdict.kind == "late":
            self.ledger.faults((self.kind, "out of order"), "came after a later one", 1)
        elif verdict.kind == "again":
            self.ledger.faults((self.kind, "repeated"), "came twice", 1)


class SseUser(_Reader):
    """Stays open, as a page in a browser."""

    kind = "sse"


class Reconnector(_Reader):
    """Stays open for a while, disconnects, and reconnects at once with its last id. No event may be
    missing or come twice."""

    kind = "again"
    _left = False

    def read(self, wire: Wire) -> None:
        """Reads until it disconnects, at a random time."""
        stay_s = _random.expovariate(1 / max(self.trial.options.stay, 0.01))
        leaves_at = time.monotonic() + stay_s
        self._left = False
        while (left_s := leaves_at - time.monotonic()) > 0:
            wire.timeout_after(left_s)
            try:
                body = wire.read()
            except TimeoutError:
                break
            if not body:
                return
            self.take(self.decoder.feed(body))
        self._left = True
        wire.close(reset=_random.random() < 0.5)

    def _note_return(self, began_us: int) -> None:
        if self.decoder.last_event_id:
            self.ledger.one((self.kind, "return"), now_us() - began_us)

    def _note_end(self) -> None:
        if self._left:
            self.ledger.one((self.kind, "left"), now_us() - self._began_us)
        else:
            super()._note_end()

    def _wait(self) -> None:
        if self._failures or not self._left:
            super()._wait()


class SlowReader(_Reader):
    """Reads `--slow-rate` bytes a second with a small receive buffer, or nothing at all.

    The server's lag policy acts on it: `ended` has the time until the server closed it, `gap` and
    `announced` have the events that were left out. Its deliveries are late because it reads slowly.
    A reader that reads nothing can't see that the server has closed the stream.
    """

    kind = "slow"

    def _connect(self) -> Wire:
        return Wire(self.trial.url, receive_buffer_bytes=SLOW_BUFFER_BYTES)

    def read(self, wire: Wire) -> None:
        """A little at a time."""
        rate = self.trial.options.slow_rate
        bite_bytes = max(1, round(rate * SLOW_LOOK_S)) if rate else 0
        while True:
            gevent.sleep(SLOW_LOOK_S)
            if bite_bytes:
                body = wire.read(bite_bytes)
                if not body:
                    return
                self.take(self.decoder.feed(body))
            elif not wire.established:
                return
