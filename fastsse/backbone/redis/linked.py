"""Links for those who are more patient than a link: kept up for a task, or opened on demand."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastsse.backbone.redis.faults import AnswerLost, Refusal
from fastsse.backbone.redis.link import Address, Backoff, Link
from fastsse.log import get_logger

__all__ = ["LinkOnDemand", "while_linked"]

log = get_logger("redis")
# Something that is refused again and again is told once in so many tries, which are 0.5 s apart.
_TOLD_EVERY: Final = 120


async def while_linked(
    address: Address, what: str, work: Callable[[Link, Backoff], Coroutine[Any, Any, None]]
) -> None:
    """Has `work` done over a link, and over a new one whenever that breaks, until it is cancelled.

    Arguments:
        what: the task in a few words, for the log.
        work: gets the link, and the backoff to reset when something worked. It may raise
            AnswerLost or Refusal; whatever else it raises is logged.
    """
    backoff = Backoff()
    failures = 0
    while True:
        await backoff.wait()
        failures = failures + 1 if backoff.tries > 1 else 0
        try:
            link = await Link.open(address)
            try:
                await work(link, backoff)
            finally:
                await link.close()
        except AnswerLost:
            continue  # The log's own parts say that Redis is away.
        except Refusal as refusal:
            if failures % _TOLD_EVERY == 0:
                log.warning("Redis refuses.", what=what, why=str(refusal))
        except Exception:
            log.exception("A task failed, and begins anew.", what=what)


class LinkOnDemand:
    """A link that is opened for the first who asks, and again after it broke. Loop thread only."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._link: Link | None = None
        self._opening = asyncio.Lock()

    async def get(self) -> Link:
        """One that can be used. Raises AnswerLost or Refusal."""
        async with self._opening:
            if self._link is not None and not self._link.is_open:
                await self._link.close()
                self._link = None
            if self._link is None:
                self._link = await Link.open(self._address)
            return self._link

    async def close(self) -> None:
        """Ends it."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()
