"""Webhooks out: batches of events as signed requests. Each is repeated until it is accepted.

A request is a message of Standard Webhooks whose data is a list of envelopes. Its id names the
first and the last event, so a receiver recognises a repeated batch. The place behind a batch is
stored when the batch was accepted, permanently refused, or given up after many tries. So every
event is sent at least once, and in order.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from fastsse.backoff import Backoff
from fastsse.config.webhooks import WebhookRule
from fastsse.control.service import ControlStore
from fastsse.entries import Entry
from fastsse.errors import FastsseError
from fastsse.log import get_logger
from fastsse.outbound import OutboundClient, OutboundError
from fastsse.redis.health import Outage
from fastsse.sinks.envelopes import EntryFilter, envelope_of
from fastsse.sinks.log_reader import LogReader
from fastsse.sources.deadletters import DeadLetters, Letter
from fastsse.spans import Span
from fastsse.tracing import TRACEPARENT, Tracer, trail_in
from fastsse.trails import Trail

__all__ = ["WebhookSink", "kept_place", "message_of"]

log = get_logger("webhooks")
BATCH_BYTES: Final = 1024 * 1024
WAIT_MAX_S: Final = 60.0
_PLACE: Final = "place/"


class WebhookSink:
    """Sends the events of one rule. Loop thread only.

    Arguments:
        rule: the webhook.
        reader: of the log, where the rule continues.
        client: signs and sends.
        store: keeps the place.
        letters: takes events that were refused or given up, as dead letters.
        counts: shared by all sinks.

    Attributes:
        trouble: why no batch is accepted now, or None.
        tracer: makes spans of requests with traced events; None: none.
    """

    def __init__(
        self,
        rule: WebhookRule,
        reader: LogReader,
        client: OutboundClient,
        store: ControlStore,
        letters: DeadLetters,
        counts: "Counter[str]",
    ) -> None:
        self._rule = rule
        self._reader = reader
        self._client = client
        self._store = store
        self._letters = letters
        self._counts = counts
        self._wants = EntryFilter(rule.filter, private=rule.private)
        self._outage = Outage(
            "A webhook is not taken.", "A webhook is taken again.", webhook=rule.name
        )
        self.trouble: str | None = None
        self.tracer: Tracer | None = None

    def begin(self) -> None:
        """Stores the place, so that a new rule begins with the events after its first start."""
        self._keep(self._reader.place)

    async def run(self) -> None:
        """Runs until it is cancelled."""
        backoff = Backoff()
        while True:
            await backoff.wait()
            try:
                stretch = await self._reader.read()
            except FastsseError as error:
                self._fails(f"the log can't be read: {error}")
                continue
            backoff.reset()
            if stretch.evicted_through > self._reader.place:
                self._counts["webhook_gaps"] += 1
                log.error(
                    "Events were evicted before a webhook was sent them.", webhook=self._rule.name
                )
            await self._send_all(stretch.entries)
            self._keep(stretch.through)

    async def _send_all(self, entries: Sequence[Entry]) -> None:
        batch: list[dict[str, Any]] = []
        size_bytes = 0
        for entry in entries:
            if not self._wants(entry):
                continue
            batch.append(envelope_of(entry))
            size_bytes += entry.frame.size
            if len(batch) >= self._rule.batch or size_bytes >= BATCH_BYTES:
                await self._send(batch)
                self._keep(entry.position)
                batch, size_bytes = [], 0
        if batch:
            await self._send(batch)

    async def _send(self, batch: Sequence[dict[str, Any]]) -> None:
        """Sends a batch. Returns when it was accepted, permanently refused, or given up."""
        message_id, body = message_of(self._rule.name, batch)
        until_s = time.monotonic() + self._rule.give_up
        trails = _trails(batch)
        tracer, name = self.tracer, self._rule.name
        span = None if tracer is None else tracer.deliver(name, trails, len(batch))
        headers = _trace_headers(span, trails)
        tries = 0
        while True:
            tries += 1
            try:
                await self._client.post_once(
                    self._rule.url, body, message_id=message_id, headers=headers
                )
            except OutboundError as error:
                self._fails(str(error))
                wait_s = self._client.wait_s(tries, error)
                if error.is_final or time.monotonic() + wait_s > until_s:
                    if span is not None:
                        span.end(str(error))
                    await self._set_aside(batch, str(error))
                    return
                await asyncio.sleep(wait_s)
            else:
                if span is not None:
                    span.end(attributes={"fastsse.tries": tries})
                self.trouble = None
                self._outage.is_over()
                self._counts["webhook_events"] += len(batch)
                self._counts["webhook_requests"] += 1
                return

    def _keep(self, place: int) -> None:
        self._reader.place = max(self._reader.place, place)
        self._store.put(_PLACE + self._rule.name, str(self._reader.place).encode())

    def _fails(self, why: str) -> None:
        self.trouble = why
        self._counts["webhook_failures"] += 1
        self._outage.lasts(why, asyncio.get_running_loop().time())

    async def _set_aside(self, batch: Sequence[dict[str, Any]], why: str) -> None:
        self._counts["webhook_given_up"] += len(batch)
        for event in batch:
            self._letters.add(Letter(event["position"], why, orjson.dumps(event)))
        await self._letters.settled()


def message_of(name: str, batch: Sequence[dict[str, Any]]) -> tuple[str, bytes]:
    """The id and the body of a request with events."""
    members = {
        "type": "fastsse.events",
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "data": batch,
    }
    return f"{name}.{batch[0]['position']}.{batch[-1]['position']}", orjson.dumps(members)


def kept_place(store: ControlStore, rule: WebhookRule) -> int | None:
    """The place where a rule continues; None for a new one."""
    kept = store.get(_PLACE + rule.name)
    return None if kept is None else int(kept)


def _trails(batch: Sequence[dict[str, Any]]) -> list[Trail]:
    """The traces that the events of a batch name."""
    found = (trail_in(event["meta"]) for event in batch if event["meta"])
    return [trail for trail in found if trail.trace_id is not None]


def _trace_headers(span: Span | None, trails: Sequence[Trail]) -> dict[str, str]:
    """The trace that a request names: that of its span, else that of the first traced event."""
    if span is None and not trails:
        return {}
    named = span or trails[0]
    state = {"tracestate": named.state.decode("latin-1")} if named.state else {}
    return {TRACEPARENT: named.traceparent, **state}
