"""The open-loop publisher: its schedule is fixed in advance and does not depend on the server."""

from __future__ import annotations

import secrets
from collections import defaultdict
from urllib.parse import urlencode

import gevent
from gevent.event import Event
from locust import User, task
from locust.env import Environment

from fastsse import stamp
from loadtests.trial import trial_of
from loadtests.wire import BadAnswer, Wire, plain

ANSWER_TIMEOUT_S = 30.0
HEADERS = (("Content-Type", "text/plain; charset=utf-8"),)
LEAD_S = 0.1
"""Between the decision to begin and the first due time."""

_SOURCES = 1 << 30
"""Sources are drawn below this, so that a topic's index can be added."""


class Refused(Exception):
    """The server refused the event."""


class Publisher(User):
    """Publishes its part of the scenario's rate over one keep-alive connection.

    Event k is due k intervals after the start, and its data contains this time. A publisher that
    has to wait sends late, but skips and moves no event: the wait is visible as `delay` here and in
    every reader's `delivery`. In Locust's statistics, type `publish`: `delay` (due to sent),
    `answer` (sent to answered) and `total` (due to answered).
    """

    kind = "publish"

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.trial = trial_of(environment)
        self.ledger = self.trial.ledger
        self._wire: Wire | None = None

    def on_start(self) -> None:
        trial = self.trial
        self.scenario = trial.scenario
        self.number = trial.numbers.take(self.kind)
        self._publishers = max(1, trial.options.publishers)
        self._interval_us = 1e6 * self._publishers / self.scenario.rate
        self._topics = self.scenario.published()
        self._targets = [self._target_of(topic) for topic in self._topics]
        self._source = secrets.randbelow(_SOURCES) + 1
        self._counts: dict[int, int] = defaultdict(int)

    def on_stop(self) -> None:
        self._close()
        self.trial.numbers.give_back(self.kind, self.number)

    def _target_of(self, topic: str) -> str:
        url = self.trial.url
        query = "&".join(filter(None, (url.query, urlencode({"topic": topic}))))
        return f"{url.path}?{query}"

    @task
    def publish(self) -> None:
        """Publishes the whole schedule."""
        options = self.trial.options
        if options.publish_from == "settled":
            self.trial.orders.all_settled.wait()
        begin_us = stamp.now_us() + int(1e6 * LEAD_S)
        offset_us = self._interval_us * self.number / self._publishers
        event = 0
        while True:
            due_us = begin_us + int(offset_us + event * self._interval_us)
            if options.publish_for and due_us >= begin_us + 1e6 * options.publish_for:
                break
            gevent.sleep(max(0, due_us - stamp.now_us()) / 1e6)
            self._publish_one((event * self._publishers + self.number) % len(self._topics), due_us)
            event += 1
        self.trial.orders.say_published()
        Event().wait()

    def _publish_one(self, topic: int, due_us: int) -> None:
        mark = stamp.Stamp(due_us, self._source + topic, self._counts[topic] + 1)
        data = stamp.encode(mark, self.scenario.event_bytes)
        sent_us = stamp.now_us()
        used, error = self._post(self._targets[topic], data)
        answered_us = stamp.now_us()
        self._counts[topic] += used
        note = self.ledger.one
        note((self.kind, "delay"), sent_us - due_us)
        note((self.kind, "answer"), answered_us - sent_us, size_bytes=len(data), error=error)
        note((self.kind, "total"), answered_us - due_us)

    def _post(self, target: str, data: bytes) -> tuple[bool, Exception | None]:
        """Returns whether the event's count is used, and the error.

        A count is used when the event is published, and also when that is unknown: readers then
        find the event, or find it missing.
        """
        sent = False
        try:
            if self._wire is None:
                self._wire = Wire(self.trial.url)
                self._wire.timeout_after(ANSWER_TIMEOUT_S)
            sent = True
            self._wire.send("POST", target, HEADERS, data)
            status = self._wire.status()
            while self._wire.read():
                pass
        except (OSError, BadAnswer) as error:
            self._close()
            return sent, plain(error)
        return (True, None) if status == 200 else (False, Refused(f"HTTP {status}"))

    def _close(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None
