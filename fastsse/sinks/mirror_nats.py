"""A subject of NATS as the target of a mirror. With JetStream each message is acknowledged before
the next one is sent. Its `Nats-Msg-Id` is the position of its event, so the server drops repeats.
The mirror continues behind the newest message of the subject."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from fastsse.config.mirrors import MirrorRule
from fastsse.config.source_url import read_server_url
from fastsse.sinks.mirrors import Record
from fastsse.sources.nats import NatsConnection, answer_of, text_of
from fastsse.sources.source import SourceAway

__all__ = ["NatsTarget"]

ANSWER_S: Final = 5.0
_NAME: Final = "Fastsse-Mirror"
_POSITION: Final = "Nats-Msg-Id"
# Too long for the server, or for the stream.
_REFUSED: Final = ("maximum payload exceeded", "message size exceeds maximum allowed")


class NatsTarget:
    """Writes to a subject. Loop thread only. Raises MissingExtra when it is made without the
    library.

    Arguments:
        rule: the mirror.
    """

    trouble: str | None = None

    def __init__(self, rule: MirrorRule) -> None:
        assert rule.url is not None
        self._rule = rule
        self._connection = NatsConnection(read_server_url(rule.url), f"The mirror {rule.name}")

    async def open(self) -> str | None:
        """As Target."""
        await self._connection.close()
        await self._connection.open()
        return await self._newest() if self._rule.jetstream else None

    async def write(self, records: Sequence[Record]) -> Sequence[tuple[int, str]]:
        """As Target."""
        self._connection.check()
        refused: list[tuple[int, str]] = []
        for index, record in enumerate(records):
            try:
                await self._publish(record)
            except Exception as error:
                why = text_of(error)
                if not any(part in why for part in _REFUSED):
                    raise SourceAway(why) from None
                refused.append((index, why))
        if not self._rule.jetstream:
            # The answer to a PING: the server has all that was sent before it.
            await self._asked(self._connection.client.flush(ANSWER_S))
        return refused

    async def close(self) -> None:
        """As Target."""
        await self._connection.close()

    async def _publish(self, record: Record) -> None:
        client, headers = self._connection.client, {
            _NAME: self._rule.name, _POSITION: record.position
        }  # fmt: skip
        if self._rule.jetstream:
            stream = client.jetstream(timeout=ANSWER_S)
            await answer_of(stream.publish(self._rule.to, record.value, headers=headers))
        else:
            await answer_of(client.publish(self._rule.to, record.value, headers=headers))

    async def _newest(self) -> str | None:
        """The position of the newest message of the subject, if it is of this mirror."""
        from nats.js.errors import NotFoundError

        stream = self._connection.client.jetstream(timeout=ANSWER_S)
        try:
            name = await answer_of(stream.find_stream_name_by_subject(self._rule.to))
            message = await answer_of(stream.get_last_msg(name, self._rule.to))
        except NotFoundError:
            return None
        except Exception as error:
            raise SourceAway(text_of(error)) from None
        headers = message.headers or {}
        return headers.get(_POSITION) if headers.get(_NAME) == self._rule.name else None

    async def _asked(self, question: Any) -> None:
        try:
            async with asyncio.timeout(ANSWER_S):
                await answer_of(question)
        except Exception as error:
            raise SourceAway(text_of(error)) from None
