"""Key sets (RFC 7517 §5): keys that an issuer publishes and rotates.

A set is read again when it is old, and when a token names a key that it lacks. What tokens name
can't make it be read more often than once in a pause: names that were looked for and not found
are remembered, others wait for the next reading. The address is the configuration's alone;
nothing of a token is put into it, and redirects are not followed.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

import orjson

from fastsse.auth.keys import Key, key_of_jwk
from fastsse.errors import FastsseError, Refused
from fastsse.log import get_logger

__all__ = ["FetchedKeySet", "FileKeySet", "KeySet", "KeysMissing", "read_key_set"]

log = get_logger("auth")
KEY_SET_MAX_BYTES: Final = 1024 * 1024
# Keys that a set may have, and those that are tried for a token without a kid.
KEYS_MAX: Final = 100
_TRIED_MAX: Final = 16
PAUSE_S: Final = 5.0
REFRESH_S: Final = 300.0
# Without a successful reading for so long the keys count no more.
STALE_S: Final = 24 * 3600.0
FETCH_TIMEOUT_S: Final = 5.0
_MISSING_S: Final = 60.0
_MISSING_MAX: Final = 1_000
_WAITING_MAX: Final = 1_000
_FILE_LOOK_S: Final = 5.0

Resume = Callable[[FastsseError | None], None]


class KeysMissing(FastsseError):
    """Which key a token means can't be told before the set was read again.

    `fetch(resume)` has `resume` called once, on the loop thread: with None when it was read, or
    with `Refused`.
    """

    def __init__(self, fetch: Callable[[Resume], None]) -> None:
        super().__init__("keys")
        self.fetch: Final = fetch


class KeySet(Protocol):
    """Where keys are found by their name."""

    @property
    def generation(self) -> int:
        """Another number whenever the keys became others."""

    def find(self, algorithm: str, kid: str | None) -> Sequence[Key]:
        """The keys that may have signed such a token. Raises KeysMissing."""

    def close(self) -> None:
        """Ends what is under way."""


def read_key_set(raw: bytes, algorithms: Sequence[str]) -> list[Key]:
    """The usable keys of a set. Raises ValueError when it is none. O(keys)."""
    if len(raw) > KEY_SET_MAX_BYTES:
        raise ValueError("it is larger than 1 MiB")
    members = orjson.loads(raw)
    keys = members.get("keys") if isinstance(members, dict) else None
    if not isinstance(keys, list):
        raise ValueError('it is no JSON object with a list "keys"')
    if len(keys) > KEYS_MAX:
        raise ValueError(f"it has more than {KEYS_MAX} keys")
    return [key for jwk in keys if (key := key_of_jwk(jwk, algorithms)) is not None]


def _matching(keys: Sequence[Key], algorithm: str, kid: str | None) -> Sequence[Key]:
    suiting = [key for key in keys if algorithm in key.algorithms]
    if kid is not None:
        suiting = [key for key in suiting if key.kid in (kid, None)]
    return suiting[:_TRIED_MAX]


class FileKeySet:
    """A key set in a file, which is looked at when a name is unknown, and every five seconds.

    Raises OSError or ValueError when it can't be read at first; later the keys stay then.
    """

    def __init__(
        self, path: str, algorithms: Sequence[str], now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = Path(path)
        self._algorithms = algorithms
        self._now_s = now_s
        self._looked_s = now_s()
        self._seen = self._stamp()
        self._keys = self._read()
        self.generation = 0

    def find(self, algorithm: str, kid: str | None) -> Sequence[Key]:
        """As KeySet; never raises KeysMissing."""
        if self._now_s() - self._looked_s >= _FILE_LOOK_S:
            self._look()
        found = _matching(self._keys, algorithm, kid)
        if not found and self._look():
            found = _matching(self._keys, algorithm, kid)
        return found

    def close(self) -> None:
        """Nothing is under way."""

    def _look(self) -> bool:
        """Reads the file again if it became another; whether that is so."""
        self._looked_s = self._now_s()
        try:
            stamp = self._stamp()
            if stamp == self._seen:
                return False
            self._keys = self._read()
        except (OSError, ValueError) as error:
            log.warning("The key set can't be read; its keys stay.", reason=str(error))
            return False
        self._seen = stamp
        self.generation += 1
        return True

    def _stamp(self) -> tuple[int, int, int]:
        status = self._path.stat()
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _read(self) -> list[Key]:
        with self._path.open("rb") as file:
            return read_key_set(file.read(KEY_SET_MAX_BYTES + 1), self._algorithms)


class FetchedKeySet:
    """A key set behind a URL. Made on the loop that it runs on; the first reading begins at once.

    Arguments:
        url: where it is; only the configuration says so.
        algorithms: that its keys may be used for.
        pause_s: the least time between two readings.
        now_s: a clock that only goes on.
    """

    def __init__(
        self,
        url: str,
        algorithms: Sequence[str],
        pause_s: float = PAUSE_S,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._algorithms = algorithms
        self._pause_s = pause_s
        self._now_s = now_s
        self._context = ssl.create_default_context() if url.startswith("https:") else None
        self._loop = asyncio.get_running_loop()
        self._keys: list[Key] = []
        self._read_s: float | None = None  # When it was last read with success,
        self._tried_s = now_s()  # and at all.
        self._missing: dict[str, float] = {}
        self._waiting: list[tuple[str | None, Resume]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self.generation = 0
        self._begin()

    def find(self, algorithm: str, kid: str | None) -> Sequence[Key]:
        """As KeySet."""
        now_s = self._now_s()
        age_s = STALE_S if self._read_s is None else now_s - self._read_s
        if age_s >= STALE_S:
            raise KeysMissing(lambda resume: self._wait(None, resume))
        if age_s >= REFRESH_S:
            self._schedule()
        found = _matching(self._keys, algorithm, kid)
        if found or kid is None or now_s < self._missing.get(kid, 0.0):
            return found
        raise KeysMissing(lambda resume: self._wait(kid, resume))

    def close(self) -> None:
        """Ends what is under way; whoever waits is told so."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        self._resume(Refused("keys", 1))

    def _wait(self, kid: str | None, resume: Resume) -> None:
        if len(self._waiting) >= _WAITING_MAX:
            resume(Refused("keys", 1))
            return
        self._waiting.append((kid, resume))
        self._schedule()

    def _schedule(self) -> None:
        """Has the set read as soon as the pause allows, unless that is under way."""
        if self._task is None and self._timer is None:
            delay_s = max(0.0, self._tried_s + self._pause_s - self._now_s())
            self._timer = self._loop.call_later(delay_s, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._tried_s = self._now_s()
        self._task = self._loop.create_task(self._read())

    async def _read(self) -> None:
        error: FastsseError | None = None
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                raw = await self._fetch()
            self._take(raw)
        except asyncio.CancelledError:
            return
        except Exception as failure:  # Whatever a network and its server can do.
            error = Refused("keys", max(1, round(self._pause_s)))
            log.warning("The key set can't be fetched.", reason=_reason(failure))
        self._task = None
        self._resume(error)

    async def _fetch(self) -> bytes:
        import httpx

        client = httpx.AsyncClient(verify=self._context or False, timeout=FETCH_TIMEOUT_S)
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        async with client, client.stream("GET", self._url, headers=headers) as answer:
            if answer.status_code != 200:
                raise ValueError(f"the status is {answer.status_code}")
            raw = b""
            async for piece in answer.aiter_raw():
                raw += piece
                if len(raw) > KEY_SET_MAX_BYTES:
                    raise ValueError("it is larger than 1 MiB")
            return raw

    def _take(self, raw: bytes) -> None:
        keys = read_key_set(raw, self._algorithms)
        if not keys:
            raise ValueError("none of its keys can be used here")
        self._keys = keys
        self._read_s = self._now_s()
        self.generation += 1

    def _resume(self, error: FastsseError | None) -> None:
        """Tells all who wait; remembers the names that were not found."""
        waiting, self._waiting = self._waiting, []
        until_s = self._now_s() + _MISSING_S
        for kid, _ in waiting:
            if error is None and kid is not None:
                self._missing.pop(kid, None)
                self._missing[kid] = until_s
        while len(self._missing) > _MISSING_MAX:
            del self._missing[next(iter(self._missing))]
        for _, resume in waiting:
            resume(error)


def _reason(failure: Exception) -> str:
    """What went wrong, in words that hold nothing of the URL, which may have a secret in it."""
    return str(failure) if type(failure) is ValueError else type(failure).__name__
