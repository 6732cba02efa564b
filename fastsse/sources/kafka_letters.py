"""A topic of Kafka as a store of dead letters."""

import asyncio
from collections.abc import Sequence
from secrets import token_hex
from typing import Any, Final

from fastsse.config.sources import SourceRule
from fastsse.sources.deadletters import KeptLetter, Letter, LetterRefused
from fastsse.sources.extras import import_extra
from fastsse.sources.kafka_client import client_settings, reason_of
from fastsse.sources.source import SourceAway

__all__ = ["KafkaLetters"]

# How long a letter may take before it is tried again; the client tries as often as it can within.
WRITE_S: Final = 5.0
READ_S: Final = 2.0


class KafkaLetters:
    """Writes letters to a topic: the payload as the value, the rest as headers.

    Arguments:
        rule: the source.
    """

    def __init__(self, rule: SourceRule) -> None:
        self._kafka = import_extra("confluent_kafka", "kafka", f"The source {rule.name}")
        self._rule = rule
        self._producer: Any = None
        self._reader: Any = None
        # In what is written again, so that reading ends there.
        self._is_again = False
        self._over: set[int] = set()
        self._mark = token_hex(8).encode()

    async def open(self) -> None:
        """As LetterStore."""
        settings = client_settings(self._rule, consumes=False)
        self._producer = self._kafka.Producer(
            {**settings, "enable.idempotence": True, "delivery.timeout.ms": int(WRITE_S * 1000)}
        )

    async def write(self, letters: Sequence[Letter]) -> int:
        """As LetterStore."""
        errors = await asyncio.to_thread(self._written, letters)
        count = next((at for at, error in enumerate(errors) if error is not None), len(errors))
        if count:
            return count
        error = errors[0]
        if isinstance(error, str):
            raise LetterRefused(error)
        raise SourceAway(error.str())

    async def read(self, count: int, skip: int = 0) -> Sequence[KeptLetter]:
        """As LetterStore. Letters that were settled are behind the place of a consumer group."""
        try:
            return await asyncio.to_thread(self._read, count)
        except self._kafka.KafkaException as error:
            raise SourceAway(reason_of(error)) from None

    async def settle(self, done: Sequence[KeptLetter], failed: Sequence[KeptLetter]) -> None:
        """As LetterStore. A topic loses nothing, so letters that failed are written again and the
        group goes on."""
        left = [one.letter for one in failed]
        self._is_again = True
        while left:
            left = left[await self.write(left) :]
        try:
            await asyncio.to_thread(self._go_on, (*done, *failed))
        except self._kafka.KafkaException as error:
            raise SourceAway(reason_of(error)) from None

    async def close(self) -> None:
        """As LetterStore."""
        self._producer = None
        reader, self._reader = self._reader, None
        if reader is not None:
            await asyncio.to_thread(reader.close)

    def _read(self, count: int) -> list[KeptLetter]:
        if self._reader is None:
            self._begin()
        found: list[KeptLetter] = []
        while len(found) < count:
            batch = self._reader.consume(count - len(found), READ_S)
            if not batch:
                break
            for message in batch:
                if message.error() is not None:
                    raise self._kafka.KafkaException(message.error())
                found += self._take(message)
        return found

    def _take(self, message: Any) -> list[KeptLetter]:
        """The letter of a message, if it is one of this source that was there before."""
        headers = dict(message.headers() or ())
        if headers.get("replay") == self._mark:
            part = self._kafka.TopicPartition(message.topic(), message.partition())
            self._reader.pause([part])
            self._over.add(message.partition())
        if message.partition() in self._over:
            return []
        return _kept_message(message, headers, self._rule.name)

    def _begin(self) -> None:
        kafka, topic = self._kafka, self._rule.dead_letter
        self._reader = kafka.Consumer(
            {
                **client_settings(self._rule, consumes=True),
                "group.id": f"{self._rule.group}.letters",
                "auto.offset.reset": "earliest",
            }
        )
        described = self._reader.list_topics(topic, timeout=READ_S * 2).topics[topic]
        parts = [kafka.TopicPartition(topic, number) for number in described.partitions]
        for part in (assigned := self._reader.committed(parts, timeout=READ_S * 2)):
            if part.offset < 0:
                part.offset = self._kafka.OFFSET_BEGINNING
        self._reader.assign(assigned)

    def _go_on(self, read: Sequence[KeptLetter]) -> None:
        behind: dict[int, int] = {}
        for one in read:
            partition, _, offset = one.place.partition(b"/")
            behind[int(partition)] = max(behind.get(int(partition), 0), int(offset) + 1)
        topic = self._rule.dead_letter
        offsets = [self._kafka.TopicPartition(topic, *place) for place in behind.items()]
        if offsets:
            self._reader.commit(offsets=offsets, asynchronous=False)

    def _written(self, letters: Sequence[Letter]) -> list[Any]:
        """Why each was not written: an error that may go away, or a text; None: it was."""
        errors: list[Any] = ["no answer"] * len(letters)

        def done(at: int) -> Any:
            def note(error: Any, message: Any) -> None:
                is_final = error is not None and not error.retriable() and not _is_away(error)
                errors[at] = error.str() if is_final else error

            return note

        for at, letter in enumerate(letters):
            headers = {
                "source": self._rule.name,
                "origin": letter.origin.encode("utf-8", "replace"),
                "why": letter.why.encode("utf-8", "replace"),
                **({"words": letter.words} if letter.words else {}),
                **({"replay": self._mark} if self._is_again else {}),
            }
            try:
                self._producer.produce(
                    self._rule.dead_letter, letter.payload, headers=headers, on_delivery=done(at)
                )
            except (BufferError, self._kafka.KafkaException) as error:
                errors[at] = str(error)
        self._producer.flush(WRITE_S * 2)
        return errors


def _kept_message(message: Any, headers: dict[str, Any], source: str) -> list[KeptLetter]:
    texts = {
        name: (headers.get(name) or b"").decode("utf-8", "replace")
        for name in ("source", "origin", "why", "words")
    }
    if texts["source"] != source:
        return []
    place = b"%d/%d" % (message.partition(), message.offset())
    letter = Letter(texts["origin"], texts["why"], message.value() or b"", texts["words"])
    return [KeptLetter(place, letter)]


def _is_away(error: Any) -> bool:
    return error.name() in ("_MSG_TIMED_OUT", "_TRANSPORT", "_ALL_BROKERS_DOWN", "_AUTHENTICATION")
