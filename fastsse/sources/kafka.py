"""Kafka: the messages of topics as events, by a consumer group.

confluent-kafka does the work in threads of its own; all calls are made in one thread of the source.
The client fetches ahead, within a bound in bytes. An offset is committed when the log has the
event, so a message is read again after any failure, by this node or another of the group. The log
knows it by its partition and offset, which it stores with the event: it takes each message once.
A topic that was deleted and made again has another id, and so other numbers.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from fastsse.config.sources import SourceRule
from fastsse.directives import Producer, producer_key
from fastsse.log import get_logger
from fastsse.sources.extras import import_extra
from fastsse.sources.kafka_client import client_settings, reason_of
from fastsse.sources.kafka_messages import KafkaMessage
from fastsse.sources.source import Batch, Message, SourceAway

__all__ = ["KafkaSource"]

log = get_logger("sources")
# Messages of a batch: a loop turn of about 5 ms.
BATCH_MAX: Final = 1_000
WAIT_S: Final = 0.5
# How long closing may take; a group notices a lost member after its session timeout.
CLOSE_S: Final = 1.0
PROBE_S: Final = 1.0
PROBE_EACH_S: Final = 2.0
# Commits are at least so far apart: one for each batch would keep a broker busy that brings few
# messages a batch.
COMMIT_EACH_S: Final = 0.2
ASK_S: Final = 10.0
# Why a commit that a rebalance crosses is refused.
_REBALANCES: Final = ("ILLEGAL_GENERATION", "REBALANCE_IN_PROGRESS", "UNKNOWN_MEMBER_ID")
# A UUID of zeros.
_NO_ID: Final = "A" * 22

T = TypeVar("T")


class KafkaSource:
    """Reads the topics of one source. Raises MissingExtra when it is made without the library.

    Arguments:
        rule: the source.
        letters_wait: says, in any thread, that dead letters can't be written now. Nothing is
            committed then, so that a kill loses none: the messages are read again, and the log
            knows the others.
    """

    def __init__(self, rule: SourceRule, letters_wait: Callable[[], bool]) -> None:
        self._kafka = import_extra("confluent_kafka", "kafka", f"The source {rule.name}")
        self._rule: Final = rule
        self._letters_wait: Final = letters_wait
        self._most: Final = min(rule.pending, BATCH_MAX)
        self._thread: ThreadPoolExecutor | None = None
        self._consumer: Any = None
        self._is_idle = False
        self._probe_at_s = 0.0
        self._error_text: str | None = None
        # The producer of each partition, and the offset behind the last message of it.
        self._producers: dict[tuple[str, int], bytes] = {}
        self._next: dict[tuple[str, int], int] = {}
        # Where the group continues in partitions that were assigned, until a message of them comes.
        self._committed: dict[tuple[str, int], int] = {}
        self._topic_ids: dict[str, str] = {}
        # Where the group shall continue, which was not sent yet.
        self._uncommitted: dict[tuple[str, int], Any] = {}
        self._commit_at_s = 0.0
        self.backlog: int | None = None

    @property
    def trouble(self) -> str | None:
        """As Source."""
        return self._error_text

    async def open(self) -> None:
        """As Source. The client connects by itself, now and again."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"kafka-{self._rule.name}")
        self._is_idle = False
        try:
            await self._call(self._subscribe)
        except self._kafka.KafkaException as error:
            raise SourceAway(reason_of(error)) from None

    async def read(self) -> Batch:
        """As Source."""
        try:
            return await self._call(self._read)
        except self._kafka.KafkaException as error:
            raise SourceAway(reason_of(error)) from None

    async def acknowledge(self, batch: Batch) -> None:
        """As Source. The next read sends it, some times a second, without waiting for the answer:
        a commit that is lost is part of the next one, and at the end all are waited for."""
        # No call of the thread is under way, and a change of threads for each batch costs more than
        # all else in a quiet topic.
        places: Any = batch.places
        for place in places:
            self._uncommitted[place.topic, place.partition] = place

    async def idle(self) -> None:
        """As Source. Keeps the membership in the group without reading."""
        await self._call(self._poll_idle)

    async def preview(self, count: int, wait_s: float) -> Sequence[Message]:
        """As Source: what the group would be given next. Does not join the group."""
        try:
            return await asyncio.to_thread(self._preview, count, wait_s)
        except self._kafka.KafkaException as error:
            raise SourceAway(reason_of(error)) from None

    async def close(self, *, is_end: bool) -> None:
        """As Source."""
        thread, self._thread = self._thread, None
        consumer, self._consumer = self._consumer, None
        if thread is None:
            return
        if consumer is not None:
            closing = asyncio.get_running_loop().run_in_executor(thread, self._leave, consumer)
            await asyncio.wait((closing,), timeout=CLOSE_S)
        thread.shutdown(wait=False)

    async def _call(self, function: Callable[..., T], *arguments: Any) -> T:
        assert self._thread is not None
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, function, *arguments)

    def _preview(self, count: int, wait_s: float) -> list[Message]:
        consumer = self._kafka.Consumer(client_settings(self._rule, consumes=True))
        try:
            consumer.assign(self._places_of_group(consumer, wait_s))
            found: list[Message] = []
            until_s = time.monotonic() + wait_s
            while len(found) < count and time.monotonic() < until_s:
                message = consumer.poll(0.1)
                if message is not None and message.error() is None and message.value() is not None:
                    found.append(KafkaMessage(message))
            return found
        finally:
            consumer.close()

    def _places_of_group(self, consumer: Any, wait_s: float) -> list[Any]:
        """Where the group continues in each partition."""
        timeout_s = max(wait_s, PROBE_S)
        known = consumer.list_topics(timeout=timeout_s).topics
        partition = self._kafka.TopicPartition
        places = []
        for topic in self._rule.topics:
            if topic not in known or known[topic].error is not None:
                raise SourceAway(f"there is no topic {topic}")
            places += [partition(topic, number) for number in known[topic].partitions]
        first = -2 if (self._rule.start or "earliest") == "earliest" else -1
        committed = consumer.committed(places, timeout=timeout_s)
        return [
            partition(place.topic, place.partition, place.offset if place.offset >= 0 else first)
            for place in committed
        ]

    # -- in the thread of the source ------------------------------------------------------------

    def _subscribe(self) -> None:
        settings = client_settings(self._rule, consumes=True)
        own = {"error_cb": self._on_error, "on_commit": self._on_commit}
        self._consumer = self._kafka.Consumer({**settings, **own})
        self._consumer.subscribe(
            list(self._rule.topics),
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )

    def _read(self) -> Batch:
        self._wake()
        self._commit_if_due(self._consumer)
        first = self._consumer.poll(WAIT_S)
        if first is None:
            self._probe()
            return Batch()
        # `consume` alone would wait until the batch is full.
        found = [first, *self._consumer.consume(self._most - 1, 0)] if self._most > 1 else [first]
        messages = [message for message in found if not self._is_error(message)]
        if not messages:
            return Batch()
        self._error_text = None
        return self._batch(messages)

    def _batch(self, messages: Sequence[Any]) -> Batch:
        ends: dict[tuple[str, int], int] = {}
        missed = 0
        # A message without a value is a tombstone of a compacted topic, and no event.
        made: list[KafkaMessage] = []
        for message in messages:
            place, offset = (message.topic(), message.partition()), message.offset()
            expected = self._next.get(place)
            if expected is None:
                expected = self._committed.pop(place, -1)
            elif offset < expected:
                self._forget_producers()
            if 0 <= expected < offset:
                missed += self._missed(place, expected)
            self._next[place] = ends[place] = offset + 1
            if message.value() is not None:
                made.append(KafkaMessage(message, self._producer(place, offset)))
        partition = self._kafka.TopicPartition
        places = [partition(topic, number, offset) for (topic, number), offset in ends.items()]
        self.backlog = self._unread(places)
        kind, made_ms = messages[0].timestamp()
        age_ms = max(0, int(time.time() * 1000) - made_ms) if kind else 0
        return Batch(made, places, age_ms, self.backlog == 0, missed)

    def _missed(self, place: tuple[str, int], expected: int) -> int:
        """How many messages from an offset on were deleted. Offsets may also be absent in the
        middle, where a topic is compacted or has transactions; then none was deleted."""
        low, _ = self._consumer.get_watermark_offsets(
            self._kafka.TopicPartition(*place), cached=True
        )
        return max(0, int(low) - expected)

    def _producer(self, place: tuple[str, int], offset: int) -> Producer | None:
        key = self._producers.get(place)
        if key is None:
            topic, number = place
            topic_id = self._topic_id(topic)
            scope = f"source/{self._rule.name}/{topic}/{topic_id}"
            key = producer_key(scope, str(number).encode()) if topic_id else b""
            self._producers[place] = key
        return Producer(key, 0, offset) if key else None

    def _topic_id(self, topic: str) -> str:
        """The id that a topic got when it was made; empty for brokers without ids (before 2.8).
        Without it the messages of a topic that was made again would count as repeats."""
        if topic not in self._topic_ids:
            names = {topic, *(place.topic for place in self._consumer.assignment())}
            self._topic_ids |= self._described(sorted(names))
        return self._topic_ids[topic]

    def _described(self, topics: list[str]) -> dict[str, str]:
        from confluent_kafka.admin import AdminClient

        client = AdminClient(client_settings(self._rule, consumes=False))
        asked = client.describe_topics(self._kafka.TopicCollection(topics), request_timeout=ASK_S)
        try:
            found = {topic: str(one.result(ASK_S).topic_id) for topic, one in asked.items()}
        except TimeoutError:
            raise SourceAway("the broker does not describe its topics") from None
        return {topic: "" if text == _NO_ID else text for topic, text in found.items()}

    def _forget_producers(self) -> None:
        """Offsets went back, or partitions were assigned: a topic may be another one."""
        self._producers.clear()
        self._topic_ids.clear()
        self._next.clear()
        self._committed.clear()

    def _unread(self, places: Sequence[Any]) -> int:
        """Messages of these partitions behind the batch, as the client knew at the last fetch."""
        unread = 0
        for place in places:
            _, high = self._consumer.get_watermark_offsets(place, cached=True)
            unread += max(0, high - place.offset)
        return unread

    def _commit_if_due(self, consumer: Any) -> None:
        if time.monotonic() >= self._commit_at_s:
            self._commit(consumer)

    def _commit(self, consumer: Any) -> None:
        places = list(self._uncommitted.values())
        if not places or self._letters_wait():
            return
        self._uncommitted.clear()
        self._commit_at_s = time.monotonic() + COMMIT_EACH_S
        try:
            consumer.commit(offsets=places, asynchronous=True)
        except self._kafka.KafkaException as error:
            log.warning("Offsets can't be committed.", source=self._rule.name, why=reason_of(error))

    def _leave(self, consumer: Any) -> None:
        """Leaves the group, and waits for commits."""
        self._commit(consumer)
        consumer.close()

    def _poll_idle(self) -> None:
        self._is_idle = True
        self._commit_if_due(self._consumer)
        # Every time, because partitions may have been assigned since.
        self._consumer.pause(self._consumer.assignment())
        message = self._consumer.poll(0)
        if message is not None and message.error() is None:
            place = (message.topic(), message.partition(), message.offset())
            self._consumer.seek(self._kafka.TopicPartition(*place))

    def _wake(self) -> None:
        if self._is_idle:
            self._is_idle = False
            self._consumer.resume(self._consumer.assignment())

    def _is_error(self, message: Any) -> bool:
        error = message.error()
        if error is None:
            return False
        if error.fatal():
            raise self._kafka.KafkaException(error)
        self._error_text = reason_of(error)
        return True

    def _probe(self) -> None:
        """After an error: asks the broker from time to time whether all is well again."""
        now_s = time.monotonic()
        if self._error_text is None or now_s < self._probe_at_s:
            return
        self._probe_at_s = now_s + PROBE_EACH_S
        try:
            known = self._consumer.list_topics(timeout=PROBE_S).topics
        except self._kafka.KafkaException:
            return
        missing = [name for name in self._rule.topics if name not in known]
        self._error_text = f"there is no topic {missing[0]}" if missing else None

    def _on_assign(self, consumer: Any, partitions: Sequence[Any]) -> None:
        if not partitions:
            return  # It keeps those that it has.
        self._forget_producers()
        self._committed = self._places(consumer, partitions)
        log.info(
            "Partitions were assigned to a source.",
            source=self._rule.name,
            partitions=len(partitions),
        )

    def _places(self, consumer: Any, partitions: Sequence[Any]) -> dict[tuple[str, int], int]:
        """One question for all. Without an answer it is not known what was missed."""
        try:
            known = consumer.committed(list(partitions), timeout=PROBE_S)
        except self._kafka.KafkaException:
            return {}
        return {(one.topic, one.partition): one.offset for one in known if one.offset >= 0}

    def _on_revoke(self, consumer: Any, partitions: Sequence[Any]) -> None:
        # Called within a poll, so no batch is under way. Commits that were sent are answered first.
        self._commit(consumer)
        log.info(
            "Partitions of a source were revoked.",
            source=self._rule.name,
            partitions=len(partitions),
        )

    def _on_lost(self, consumer: Any, partitions: Sequence[Any]) -> None:
        """As a revocation, but others may have the partitions already: nothing is committed."""
        self._uncommitted.clear()
        self._on_revoke(consumer, partitions)

    def _on_error(self, error: Any) -> None:
        """Errors that belong to no message; the client retries by itself."""
        if error.name() == "_ALL_BROKERS_DOWN" and self._error_text is not None:
            return  # The error before it says why.
        self._error_text = reason_of(error)

    def _on_commit(self, error: Any, partitions: Sequence[Any]) -> None:
        if error is None or self._consumer is None:
            return
        # Another group generation began. What this member still has is committed again.
        mine = {(one.topic, one.partition) for one in self._consumer.assignment()}
        for one in partitions:
            place = one.topic, one.partition
            if place in mine:
                again = self._kafka.TopicPartition(*place, one.offset)
                self._uncommitted.setdefault(place, again)
        if error.name() not in _REBALANCES:
            log.warning("Offsets can't be committed.", source=self._rule.name, why=error.str())
