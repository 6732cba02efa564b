"""Whether Redis is nearly full. With `noeviction` a full Redis refuses every publish, so operators
are warned before."""

import asyncio
from typing import Final

from fastsse.backoff import Backoff
from fastsse.log import get_logger
from fastsse.redis.connection import RedisAddress, RedisConnection, while_connected
from fastsse.redis.errors import RedisRefusal

__all__ = ["MemoryWatch", "read_info"]

log = get_logger("redis")
LOOK_S: Final = 10.0
# Parts of `maxmemory`: the warning begins at the first and ends below the second.
FULL: Final = 0.9
NOT_FULL: Final = 0.85


class MemoryWatch:
    """Reads the memory usage of Redis every 10 s. Loop thread only.

    Arguments:
        address: of Redis.

    Attributes:
        used_bytes, limit_bytes: the last values; 0: not known, or no limit.
        is_low: whether Redis is nearly full.
    """

    def __init__(self, address: RedisAddress) -> None:
        self._address = address
        self.used_bytes = self.limit_bytes = 0
        self.is_low = False

    async def run(self) -> None:
        """Reads until it is cancelled. Stops if Redis does not permit INFO."""
        await while_connected(self._address, "reading the memory of Redis", self._watch)

    async def _watch(self, link: RedisConnection, backoff: Backoff) -> None:
        while True:
            try:
                info = read_info(await link.call(b"INFO", b"memory"))
            except RedisRefusal as refusal:
                if refusal.code != "NOPERM":
                    raise
                # A managed Redis has alarms of its own.
                await asyncio.Event().wait()
            else:
                backoff.reset()
                self._note(int(info.get("used_memory", 0)), int(info.get("maxmemory", 0)))
            await link.lasts(LOOK_S)

    def _note(self, used_bytes: int, limit_bytes: int) -> None:
        self.used_bytes, self.limit_bytes = used_bytes, limit_bytes
        part = used_bytes / limit_bytes if limit_bytes else 0.0
        was_low, self.is_low = self.is_low, part >= (NOT_FULL if self.is_low else FULL)
        about = {"used_bytes": used_bytes, "limit_bytes": limit_bytes}
        if self.is_low and not was_low:
            log.warning("Redis is nearly full; it will refuse events.", **about)
        elif was_low and not self.is_low:
            log.info("Redis has memory again.", **about)

    def counters(self) -> dict[str, int]:
        """Under the names of the metrics."""
        return {
            "store_memory_bytes": self.used_bytes,
            "store_memory_limit_bytes": self.limit_bytes,
            "store_memory_low": int(self.is_low),
        }


def read_info(answer: bytes) -> dict[str, str]:
    """The fields of INFO."""
    lines = answer.decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)
