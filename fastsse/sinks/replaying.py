"""Replay: events that a webhook did not take are sent again."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from fastsse.config.webhooks import WebhookRule
from fastsse.log import get_logger
from fastsse.outbound import AddressGuard, OutboundClient, OutboundError, OutboundOptions, Signer
from fastsse.sinks.webhooks import message_of
from fastsse.sources.deadletters import KeptLetter
from fastsse.sources.file_letters import FileLetters
from fastsse.sources.replaying import shown
from fastsse.sources.source import SourceAway

__all__ = ["WebhookReplays"]

log = get_logger("webhooks")
NO_LETTERS: Final = "the webhook has no dead_letter"


class _Replay:
    """Sends the letters of one webhook again, each in a request of its own, in their order. It ends
    at the first that fails in a way that may pass; those that are refused for good stay."""

    def __init__(
        self, rule: WebhookRule, store: FileLetters, guard: AddressGuard, count: int
    ) -> None:
        self._rule = rule
        self._store = store
        self._guard = guard
        self._left = count
        self._sent = self._failed = 0
        self._trouble: str | None = None
        self._is_running = True

    @property
    def state(self) -> dict[str, Any]:
        """For operators, in the form of a source's replay."""
        return {
            "state": "running" if self._is_running else "failed" if self._trouble else "done",
            "events": self._sent,
            "filtered": 0,
            "set_aside": self._failed,
            "trouble": self._trouble,
        }

    async def run(self) -> None:
        """Runs to the end, or until it is cancelled."""
        rule = self._rule
        signer = Signer([secret.get_secret_value() for secret in rule.secrets])
        options = OutboundOptions(timeout_s=rule.timeout, connections=1)
        try:
            async with OutboundClient(self._guard, signer, options) as client:
                while self._left > 0 and self._trouble is None:
                    kept = await self._store.read(min(100, self._left), skip=self._failed)
                    if not kept:
                        break
                    self._left -= len(kept)
                    await self._send(client, kept)
        except SourceAway as fault:
            self._trouble = str(fault)
        finally:
            self._is_running = False
            log.info("Dead letters of a webhook were sent.", webhook=rule.name, **self.state)

    async def _send(self, client: OutboundClient, kept: Sequence[KeptLetter]) -> None:
        for one in kept:
            try:
                if not one.letter.has_payload:
                    raise OutboundError(one.letter.why, is_final=True)
                message_id, body = message_of(self._rule.name, [orjson.loads(one.letter.payload)])
                await client.post_once(self._rule.url, body, message_id=message_id)
            except (OutboundError, ValueError) as error:
                if isinstance(error, OutboundError) and not error.is_final:
                    self._trouble = str(error)
                    return
                self._failed += 1
            else:
                # One by one, so that a replay that is cut sends no letter twice.
                await self._store.settle([one], [])
                self._sent += 1


class WebhookReplays:
    """The dead letters of webhooks, for operators. Loop thread only.

    Arguments:
        rules: the webhooks.
        guard: decides which addresses may be reached.
    """

    def __init__(self, rules: Sequence[WebhookRule], guard: AddressGuard) -> None:
        self._rules = {rule.name: rule for rule in rules}
        self._guard = guard
        self._replays: dict[str, tuple[_Replay, asyncio.Task[None]]] = {}

    def knows(self, name: str) -> bool:
        """Whether there is a webhook of this name."""
        return name in self._rules

    async def letters(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """As `Sources.letters`, of the webhook `source`."""
        rule, count = self._rules[str(question["source"])], int(question["count"])
        if rule.dead_letter is None:
            return {"trouble": NO_LETTERS}
        store = FileLetters(rule.dead_letter.partition(":")[2], rule.name)
        replay = self._replays.get(rule.name)
        if question.get("replays") and (replay is None or replay[1].done()):
            made = _Replay(rule, store, self._guard, count)
            replay = self._replays[rule.name] = (made, asyncio.create_task(made.run()))
            return {"letters": [], "replay": made.state, "trouble": None}
        trouble, found = None, list[dict[str, Any]]()
        try:
            found = shown(await store.read(count))
        except SourceAway as fault:
            trouble = str(fault)
        return {
            "letters": found,
            "replay": None if replay is None else replay[0].state,
            "trouble": trouble,
        }

    async def close(self) -> None:
        """Ends replays; what was not sent stays."""
        tasks = [task for _, task in self._replays.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
