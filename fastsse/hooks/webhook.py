"""Notices as signed requests. Each is retried until it is accepted or too old."""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import orjson

from fastsse.config.hooks import HookRule
from fastsse.log import get_logger
from fastsse.outbound import (
    AddressGuard,
    OutboundClient,
    OutboundError,
    OutboundOptions,
    Signer,
)

__all__ = ["HookWebhook"]

log = get_logger("hooks")
WAIT_MAX_S: Final = 60.0
# How long the last request of a node that stops may take.
STOP_S: Final = 2.0


class HookWebhook:
    """The receiver (`outlet.Receiver`) of one rule. Loop thread only.

    Arguments:
        rule: the address.
        guard: decides which addresses may be reached.
        counts: shared by all hooks.
    """

    announces: Final = True

    def __init__(self, rule: HookRule, guard: AddressGuard, counts: "Counter[str]") -> None:
        self.name: Final = rule.name
        self.on: Final = rule.on
        self.topics: Final = rule.topics
        self.linger: Final = rule.linger
        self.batch: Final = rule.batch
        self._rule = rule
        self._counts = counts
        options = OutboundOptions(timeout_s=rule.timeout, wait_max_s=WAIT_MAX_S, connections=2)
        signer = Signer([secret.get_secret_value() for secret in rule.secrets])
        self._client = OutboundClient(guard, signer, options)
        # After a restart of this node the ids differ.
        self._run = secrets.token_hex(8)
        self._count = 0
        self._is_away = False

    async def deliver(self, notices: Sequence[bytes]) -> bool:
        """As Receiver."""
        message_id, body = self._message(notices)
        until_s = time.monotonic() + self._rule.give_up
        tries = 0
        while True:
            tries += 1
            try:
                await self._client.post_once(self._rule.url, body, message_id=message_id)
            except OutboundError as error:
                self._failed(str(error))
                wait_s = self._client.wait_s(tries, error)
                if error.is_final or time.monotonic() + wait_s > until_s:
                    self._counts["hook_given_up"] += len(notices)
                    return error.is_final
                await asyncio.sleep(wait_s)
            else:
                self._taken(len(notices))
                return True

    async def close(self, last: bytes | None) -> None:
        """As Receiver."""
        if last is not None:
            message_id, body = self._message([last])
            try:
                async with asyncio.timeout(STOP_S):
                    await self._client.post_once(self._rule.url, body, message_id=message_id)
            except (OutboundError, TimeoutError) as error:
                log.warning(
                    "A hook was not reported that the node ends.", hook=self.name, why=str(error)
                )
        await self._client.close()

    def _message(self, notices: Sequence[bytes]) -> tuple[str, bytes]:
        self._count += 1
        members = {
            "type": "fastsse.hooks",
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "node": self._rule.node_name,
            "data": orjson.Fragment(b"[%b]" % b",".join(notices)),
        }
        return f"{self.name}.{self._run}.{self._count}", orjson.dumps(members)

    def _failed(self, why: str) -> None:
        self._counts["hook_failures"] += 1
        if not self._is_away:
            log.warning("A hook is not taken.", hook=self.name, why=why)
        self._is_away = True

    def _taken(self, notices: int) -> None:
        self._counts["hook_notices"] += notices
        self._counts["hook_requests"] += 1
        if self._is_away:
            log.info("A hook is taken again.", hook=self.name)
        self._is_away = False
