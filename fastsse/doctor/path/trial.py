"""Publishes and listens through a path and notes what happens. Judges nothing."""

import asyncio
import json
import secrets
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

import httpx

from fastsse.client.decoder import ReceivedEvent
from fastsse.client.errors import ClientError
from fastsse.client.http import Params, events_url, new_client
from fastsse.client.publisher import Publisher
from fastsse.doctor.path.evidence import Evidence, OpeningEvidence, Resumed, Timed, Watched
from fastsse.doctor.path.stream import AS_BROWSERS, PLAIN, Stream
from fastsse.limits import TRIAL_TOPICS

# Held back bytes come out when a buffer is full; the usual ones are 4 KiB to 64 KiB.
_RELEASE_STEPS_BYTES = (2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000)
_OPENING_COMMENT = b"fastsse"
_MARKER = -1

ReportStep = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Way:
    """Where to listen and where to publish; `topic` is the beginning of the topics used.

    A server keeps what is published below the default topic for a minute at most, and what is
    published elsewhere as long as its rules say.
    """

    url: str
    publish_url: str
    token: str | None = None
    topic: str = TRIAL_TOPICS.removesuffix("/")


@dataclass(frozen=True, slots=True)
class TrialTiming:
    """How long things take, in seconds.

    `timed_events` are published `every_s`; later than `late_s` is late; `patience_s` is waited for
    what should come at once; streams are held for `watch_s` with an event each `beat_s`.
    """

    timed_events: int = 8
    every_s: float = 0.25
    late_s: float = 1.0
    patience_s: float = 5.0
    watch_s: float = 75.0
    beat_s: float = 1.0
    away_events: int = 3


async def try_path(
    way: Way, pace: TrialTiming, report_step: ReportStep = lambda _: None
) -> Evidence:
    """Runs the whole trial; `report_step` is given a line at each step.

    Takes about `watch_s` and 3 s more on a good path. Raises nothing for what the path does.
    """
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(new_client(None))
        # Patience would hide what the path does.
        publisher = await stack.enter_async_context(
            Publisher(way.publish_url, token=way.token, client=client, patience_s=0)
        )
        return await _Trial(way, pace, report_step, client, publisher).run()


class _Trial:
    def __init__(
        self,
        way: Way,
        pace: TrialTiming,
        report_step: ReportStep,
        client: httpx.AsyncClient,
        publisher: Publisher,
    ) -> None:
        self._way = way
        self._pace = pace
        self._report_step = report_step
        self._client = client
        self._publisher = publisher
        self._loop = asyncio.get_running_loop()
        self._topic = f"{way.topic}/{secrets.token_hex(6)}"
        self._encodings = AS_BROWSERS

    async def run(self) -> Evidence:
        self._report_step("opening a stream")
        async with self._stream(self._topic) as stream:
            opening = await self._open(stream)
            evidence = Evidence(opening)
            if opening.problem or opening.status != 200:
                return evidence
            try:
                evidence = replace(evidence, timed=(await self._time(stream),))
            except ClientError as error:
                return replace(evidence, publishing=str(error))
        try:
            evidence = await self._time_plainly(evidence)
            evidence = await self._resume(evidence)
            return await self._watch(evidence)
        except ClientError as error:
            return replace(evidence, publishing=str(error))

    def _stream(self, topic: str, last_event_id: str = "", query: Params | None = None) -> Stream:
        return Stream(
            self._client,
            events_url(self._way.url),
            [("topic", topic), *(query or [])],
            token=self._way.token,
            headers={"Last-Event-ID": last_event_id} if last_event_id else None,
            encodings=self._encodings,
        )

    async def _publish(self, topic: str, number: int, pad_bytes: int = 0) -> None:
        data = json.dumps({"doctor": number, "pad": "x" * pad_bytes})
        await self._publisher.publish(topic, data)

    # ── Opening ──────────────────────────────────────────────────────────────────────────────

    async def _open(self, stream: Stream) -> OpeningEvidence:
        shaken_bytes = None
        came = await stream.until(lambda: stream.headers is not None, self._pace.patience_s)
        if not came and stream.end is None:
            try:
                # Some hold even the head back until there is enough to go with it.
                shaken_bytes = await self._release(stream)
            except ClientError as error:
                return OpeningEvidence(problem=f"no answer, and no publishing: {error}")
        if stream.headers is None:
            problem = "no answer" if stream.end is None else stream.end.reason
            return OpeningEvidence(problem=problem, silent=stream.end is None)
        is_stream = stream.status == 200
        wait_s = self._pace.patience_s if is_stream and stream.is_readable else 0.0
        await stream.until(lambda: bool(stream.arrivals), wait_s)
        if not is_stream:
            await stream.until(lambda: stream.end is not None, self._pace.late_s)
        return OpeningEvidence(
            status=stream.status,
            headers=dict(stream.headers),
            first_byte_after_s=stream.arrivals[0] - stream.started_at if stream.arrivals else None,
            shaken_bytes=shaken_bytes,
            is_fastsse=any(text == _OPENING_COMMENT for _, text in stream.comments),
            body=stream.body.decode(errors="replace"),
        )

    # ── Timing ───────────────────────────────────────────────────────────────────────────────

    async def _time(self, stream: Stream) -> Timed:
        """Publishes one by one and waits for the last."""
        self._report_step("timing events")
        count = self._pace.timed_events
        sent_at: list[float] = []
        for number in range(1, count + 1):
            sent_at.append(self._loop.time())
            await self._publish(self._topic, number)
            await asyncio.sleep(self._pace.every_s)
        readable = stream.is_readable
        if readable:
            await stream.until(lambda: len(_came_at(stream)) >= count, self._pace.patience_s)
        came_at = _came_at(stream)
        delays = tuple(
            came_at[number] - at if number in came_at else None
            for number, at in enumerate(sent_at, 1)
        )
        released = None
        if readable and None in delays and stream.end is None:
            released = await self._release(stream)
        return Timed(stream.content_encoding, readable, delays, released)

    async def _release(self, stream: Stream) -> int | None:
        """Publishes ever more until something comes out; how much that took."""
        self._report_step("looking for the size of the buffer")
        before, sent_bytes = len(stream.arrivals), 0
        for upto_bytes in _RELEASE_STEPS_BYTES:
            await self._publish(self._topic, 0, upto_bytes - sent_bytes)
            sent_bytes = upto_bytes
            if await stream.until(lambda: len(stream.arrivals) > before, self._pace.late_s):
                return sent_bytes
        return None

    async def _time_plainly(self, evidence: Evidence) -> Evidence:
        """Once more without compression, if that may be what held events back."""
        first = evidence.timed[0]
        if not first.encoding or (first.readable and not first.is_late(self._pace.late_s)):
            return evidence
        self._encodings = PLAIN
        async with self._stream(self._topic) as stream:
            opened = await stream.until(lambda: bool(stream.arrivals), self._pace.patience_s)
            if not opened and stream.headers is None:
                return evidence
            return replace(evidence, timed=(first, await self._time(stream)))

    # ── Resuming ─────────────────────────────────────────────────────────────────────────────

    async def _resume(self, evidence: Evidence) -> Evidence:
        if evidence.timed[-1].is_late(self._pace.late_s):
            return evidence  # What does not come in time can't show whether it is there.
        self._report_step("cutting and resuming")
        topic = f"{self._topic}/resume"
        async with self._stream(topic) as stream:
            await stream.until(lambda: bool(stream.arrivals), self._pace.patience_s)
            await self._publish(topic, 0)
            await stream.until(lambda: bool(_numbers(stream)), self._pace.patience_s)
            last_event_id = stream.last_event_id
        count = self._pace.away_events
        for number in range(1, count + 1):
            await self._publish(topic, number)
        by_header = await self._resumed(topic, self._stream(topic, last_event_id))
        evidence = replace(evidence, away_events=count, by_header=by_header)
        if by_header.is_whole(count):
            return evidence
        query: Params = [("last_event_id", last_event_id)]
        by_query = await self._resumed(topic, self._stream(topic, query=query))
        return replace(evidence, by_query=by_query)

    async def _resumed(self, topic: str, stream: Stream) -> Resumed:
        """What a stream brings before the marker that is published once it is open."""
        async with stream:
            if not await stream.until(lambda: bool(stream.arrivals), self._pace.patience_s):
                reason = "no answer in time" if stream.end is None else stream.end.reason
                return Resumed(problem=reason)
            if stream.status != 200:
                return Resumed(problem=f"status {stream.status}")
            await self._publish(topic, _MARKER)
            await stream.until(
                lambda: any(number == _MARKER for _, number in _numbers(stream)),
                self._pace.patience_s,
            )
            # An earlier try's marker is history by now.
            numbers = tuple(number for _, number in _numbers(stream) if number > 0)
            gaps = [event.gap.reason for _, event in stream.events if event.gap is not None]
            return Resumed(numbers, gaps[0] if gaps else "")

    # ── Holding ──────────────────────────────────────────────────────────────────────────────

    async def _watch(self, evidence: Evidence) -> Evidence:
        """Two streams at the same time distinguish a limit on silence from one on age."""
        pace = self._pace
        if not pace.watch_s:
            return evidence
        busy_topic = f"{self._topic}/busy"
        busy, quiet = self._stream(busy_topic), self._stream(f"{self._topic}/quiet")
        async with busy, quiet:
            until = self._loop.time() + pace.watch_s
            number = 0
            while (left_s := until - self._loop.time()) > 0:
                self._report_step(f"holding streams, {left_s:.0f} s more")
                if busy.end is not None and quiet.end is not None:
                    break
                number += 1
                await self._publish(busy_topic, number)
                await asyncio.sleep(min(pace.beat_s, left_s))
            return replace(evidence, busy=self._watched(busy), quiet=self._watched(quiet))

    def _watched(self, stream: Stream) -> Watched:
        comments = sum(text != _OPENING_COMMENT for _, text in stream.comments)
        held_s = self._loop.time() - stream.started_at if stream.end is None else stream.end.age_s
        return Watched(held_s, stream.worst_gap_s, comments, stream.end)


def _came_at(stream: Stream) -> dict[int, float]:
    """When each numbered event arrived; padding and markers are left out."""
    return {number: at for at, number in _numbers(stream) if number > 0}


def _numbers(stream: Stream) -> list[tuple[float, int]]:
    """The doctor's own events that arrived: (time, number)."""
    numbered = ((at, _number(event)) for at, event in stream.events)
    return [(at, number) for at, number in numbered if number is not None]


def _number(event: ReceivedEvent) -> int | None:
    if event.gap is not None:
        return None
    try:
        number = event.json()["doctor"]
    except (ValueError, TypeError, KeyError):
        return None
    return number if isinstance(number, int) else None
