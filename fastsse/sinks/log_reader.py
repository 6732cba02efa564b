"""Reads the committed log from a place on."""

import asyncio
from collections.abc import Sequence
from typing import Final

from fastsse.backbone import Backbone, Stretch
from fastsse.errors import FastsseError

__all__ = ["LogReader"]

READ_BYTES: Final = 1024 * 1024
# How long a new event waits at most before it is read.
LOOK_S: Final = 0.05


class LogReader:
    """A place in the log of a store. Loop thread only.

    Arguments:
        backbone: the store.
        selectors: which topics are read.
        place: where to continue; None: behind what is there now.

    Attributes:
        place: everything up to it was read.
    """

    def __init__(self, backbone: Backbone, selectors: Sequence[str], place: int | None) -> None:
        self._backbone = backbone
        self._selectors: Final = tuple(selectors)
        self.place = backbone.head if place is None else place

    @property
    def is_at_end(self) -> bool:
        """Whether everything was read."""
        return self._backbone.head <= self.place

    async def read(self) -> Stretch:
        """The next entries; waits until there are new ones of any topic. Raises FastsseError when
        the store can't be read now."""
        while self.is_at_end:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)
        answer: asyncio.Future[Stretch | FastsseError] = asyncio.get_running_loop().create_future()

        def done(outcome: Stretch | FastsseError) -> None:
            if not answer.done():
                answer.set_result(outcome)

        self._backbone.read(self._selectors, self.place, READ_BYTES, done)
        stretch = await answer
        if isinstance(stretch, FastsseError):
            raise stretch
        return stretch
