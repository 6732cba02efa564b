"""A topic of Kafka as the target of a mirror. The key of a record is the topic of its event, so the
events of a topic are in one partition, in order. Headers have the position and the mirror."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from fastsse.config.mirrors import MirrorRule
from fastsse.sinks.mirrors import Record
from fastsse.sources.extras import import_extra
from fastsse.sources.kafka_client import reason_of, server_settings
from fastsse.sources.source import SourceAway

__all__ = ["KafkaTarget"]

# How long a record may take before its batch is written again.
WRITE_S: Final = 15.0
_AWAY: Final = frozenset(
    {
        "_MSG_TIMED_OUT",
        "_TRANSPORT",
        "_ALL_BROKERS_DOWN",
        "_AUTHENTICATION",
        "_UNKNOWN_TOPIC",
        "_PURGE_QUEUE",
        "_PURGE_INFLIGHT",
        "TOPIC_AUTHORIZATION_FAILED",
        "CLUSTER_AUTHORIZATION_FAILED",
        "UNKNOWN_TOPIC_OR_PART",
    }
)


class KafkaTarget:
    """Writes to a topic, by one idempotent producer. Loop thread only. Raises MissingExtra when it
    is made without the library.

    Arguments:
        rule: the mirror.
    """

    def __init__(self, rule: MirrorRule) -> None:
        self._kafka = import_extra("confluent_kafka", "kafka", f"The mirror {rule.name}")
        self._rule = rule
        self._producer: Any = None
        self._error_text: str | None = None
        self._writing: asyncio.Future[list[Any]] | None = None

    @property
    def trouble(self) -> str | None:
        """As Target."""
        return self._error_text

    async def open(self) -> str | None:
        """As Target. Returns None. The client library connects by itself."""
        assert self._rule.url is not None
        own = {
            "enable.idempotence": True,
            "linger.ms": 5,
            "delivery.timeout.ms": int(WRITE_S * 1000),
            "allow.auto.create.topics": False,
        }
        settings = {**server_settings(self._rule.url), **own, **(self._rule.settings or {})}
        try:
            self._producer = self._kafka.Producer({**settings, "error_cb": self._on_error})
        except self._kafka.KafkaException as error:
            raise SourceAway(reason_of(error)) from None
        return None

    async def write(self, records: Sequence[Record]) -> Sequence[tuple[int, str]]:
        """As Target."""
        self._writing = asyncio.ensure_future(
            asyncio.to_thread(self._written, self._producer, records)
        )
        errors = await asyncio.shield(self._writing)
        refused: list[tuple[int, str]] = []
        for index, error in enumerate(errors):
            if error is None:
                continue
            # The library's errors can't be compared with text.
            if isinstance(error, str):
                raise SourceAway(self._error_text or "the broker does not answer")
            if error.retriable() or error.fatal() or error.name() in _AWAY:
                raise SourceAway(f"{error.str()} ({error.name()})")
            refused.append((index, error.str()))
        self._error_text = None
        return refused

    async def close(self) -> None:
        """As Target."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await asyncio.to_thread(_purged, producer)
        writing, self._writing = self._writing, None
        if writing is not None:
            # It ends at once when its records were dropped.
            await asyncio.gather(writing, return_exceptions=True)

    def _written(self, producer: Any, records: Sequence[Record]) -> list[Any]:
        """The error of each record; None: it was acknowledged; empty: it was not answered."""
        errors: list[Any] = [""] * len(records)

        def done(index: int) -> Callable[[Any, Any], None]:
            def note(error: Any, message: Any) -> None:
                errors[index] = error

            return note

        for index, record in enumerate(records):
            headers = {"fastsse-position": record.position, "fastsse-mirror": self._rule.name}
            try:
                producer.produce(
                    self._rule.to,
                    record.value,
                    record.topic.encode(),
                    headers=headers,
                    on_delivery=done(index),
                )
            except self._kafka.KafkaException as error:
                errors[index] = error.args[0]
        producer.flush(WRITE_S + 5)
        return errors

    def _on_error(self, error: Any) -> None:
        if error.name() != "_ALL_BROKERS_DOWN" or self._error_text is None:
            self._error_text = f"{error.str()} ({error.name()})"[:300]


def _purged(producer: Any) -> None:
    """Drops what was not sent: it is written again."""
    producer.purge()
    producer.flush(1.0)
