"""A topic of Kafka as a store of dead letters."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from fastsse.config.sources import SourceRule
from fastsse.sources.deadletters import Letter, LetterRefused
from fastsse.sources.extras import import_extra
from fastsse.sources.kafka import client_settings
from fastsse.sources.source import SourceAway

__all__ = ["KafkaLetters"]

# How long a letter may take before it is tried again; the client tries as often as it can within.
WRITE_S: Final = 5.0


class KafkaLetters:
    """Writes letters to a topic: the payload as the value, the rest as headers.

    Arguments:
        rule: the source.
    """

    def __init__(self, rule: SourceRule) -> None:
        self._kafka = import_extra("confluent_kafka", "kafka", f"The source {rule.name}")
        self._rule = rule
        self._producer: Any = None

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

    async def close(self) -> None:
        """As LetterStore."""
        self._producer = None

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
            }
            try:
                self._producer.produce(
                    self._rule.dead_letter, letter.payload, headers=headers, on_delivery=done(at)
                )
            except (BufferError, self._kafka.KafkaException) as error:
                errors[at] = str(error)
        self._producer.flush(WRITE_S * 2)
        return errors


def _is_away(error: Any) -> bool:
    return error.name() in ("_MSG_TIMED_OUT", "_TRANSPORT", "_ALL_BROKERS_DOWN", "_AUTHENTICATION")
