"""Key sets (RFC 7517 §5): keys that an issuer publishes and rotates.

A set is fetched again every five minutes. So a withdrawn key verifies for ten minutes at most while
the issuer can be reached. A set is also fetched again for a token with an unknown key name, and for
a token that no key of the set has signed. Tokens cause at most one fetch per pause: names and
tokens without a key are remembered and refused, and others wait for the next fetch. The URL comes
only from the configuration. No part of a token is put into it, and redirects are not followed.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

import orjson

from fastsse.errors import FastsseError, Unavailable
from fastsse.jwtkeys import Key, WeakKey, key_of_jwk
from fastsse.log import get_logger

__all__ = ["FetchedKeySet", "FileKeySet", "KeySet", "KeysMissing", "read_key_set"]

log = get_logger("auth")
KEY_SET_BYTES_MAX: Final = 1024 * 1024
# The most keys of a set, and the most that are tried for a token without a kid.
KEYS_MAX: Final = 100
_TRIED_MAX: Final = 16
PAUSE_S: Final = 5.0
REFRESH_S: Final = 300.0
# A failed fetch is repeated after this time.
RETRY_S: Final = 30.0
# Keys of this age verify nothing until another fetch was tried: the timer was late, or the machine
# was suspended.
OVERDUE_S: Final = 600.0
# How long keys stay valid while the issuer can't be reached.
STALE_S: Final = 24 * 3600.0
FETCH_TIMEOUT_S: Final = 5.0
_MISSING_S: Final = 60.0
_MISSING_MAX: Final = 1_000
_WAITING_MAX: Final = 1_000
# How many of them may wait because of their signature. Above it a token is refused at once, so
# forged tokens don't use the places of tokens that name a new key.
_UNSIGNED_MAX: Final = 100
_FILE_LOOK_S: Final = 5.0
# The generation while the keys are overdue. It makes the verifier check cached tokens again.
_OVERDUE_GENERATION: Final = -1

Resume = Callable[[FastsseError | None], None]


def boottime_s() -> float:
    """Seconds since the machine started, including time in suspend."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class KeysMissing(FastsseError):
    """The set must be fetched before the key of a token is known.

    `fetch(resume)` calls `resume` once, on the loop thread: with None after the fetch, or with
    `Unavailable`.
    """

    def __init__(self, fetch: Callable[[Resume], None]) -> None:
        super().__init__("keys")
        self.fetch: Final = fetch


class KeySet(Protocol):
    """Finds keys by name."""

    @property
    def generation(self) -> int:
        """A number that changes when the keys change."""

    def find(self, algorithm: str, kid: str | None) -> Sequence[Key]:
        """The keys that may have signed such a token. Raises KeysMissing."""

    def look_again(self, token: bytes) -> bool:
        """Whether the keys may have changed, for a token that none of the found keys has signed;
        `token` is its digest. Raises KeysMissing."""

    def close(self) -> None:
        """Cancels pending fetches."""


def read_key_set(raw: bytes, algorithms: Sequence[str]) -> list[Key]:
    """The usable keys of a set. Raises ValueError for an invalid set. O(keys)."""
    if len(raw) > KEY_SET_BYTES_MAX:
        raise ValueError("it is larger than 1 MiB")
    members = orjson.loads(raw)
    keys = members.get("keys") if isinstance(members, dict) else None
    if not isinstance(keys, list):
        raise ValueError('it is not a JSON object with a list "keys"')
    if len(keys) > KEYS_MAX:
        raise ValueError(f"it has more than {KEYS_MAX} keys")
    return [key for jwk in keys if (key := _usable(jwk, algorithms)) is not None]


def _usable(jwk: object, algorithms: Sequence[str]) -> Key | None:
    try:
        return key_of_jwk(jwk, algorithms)
    except WeakKey as error:
        kid = jwk.get("kid") if isinstance(jwk, dict) else None
        log.warning("A key of the key set is refused.", kid=kid, must_be=str(error))
        return None


def _matching(keys: Sequence[Key], algorithm: str, kid: str | None) -> Sequence[Key]:
    suiting = [key for key in keys if algorithm in key.algorithms]
    if kid is not None:
        suiting = [key for key in suiting if key.kid in (kid, None)]
    return suiting[:_TRIED_MAX]


class FileKeySet:
    """A key set in a file. The file is checked when a name or a signature is unknown, and for any
    token when the last check is five seconds old.

    Raises OSError or ValueError if the first read fails. If a later read fails, the keys stay.
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
        self._generation = 0

    @property
    def generation(self) -> int:
        """As KeySet. Checks the file when that is due, also for cached tokens."""
        if self._now_s() - self._looked_s >= _FILE_LOOK_S:
            self._look()
        return self._generation

    def find(self, algorithm: str, kid: str | None) -> Sequence[Key]:
        """As KeySet; never raises KeysMissing."""
        found = _matching(self._keys, algorithm, kid)
        if not found and self._look():
            found = _matching(self._keys, algorithm, kid)
        return found

    def look_again(self, token: bytes) -> bool:
        """As KeySet; never raises KeysMissing."""
        return self._look()

    def close(self) -> None:
        """Does nothing: a file key set has no pending fetch."""

    def _look(self) -> bool:
        """Reads the file again if it has changed; returns whether it has."""
        self._looked_s = self._now_s()
        try:
            stamp = self._stamp()
            if stamp == self._seen:
                return False
            self._keys = self._read()
        except (OSError, ValueError) as error:
            log.warning("The key set can't be read; the earlier keys stay.", reason=str(error))
            return False
        self._seen = stamp
        self._generation += 1
        return True

    def _stamp(self) -> tuple[int, int, int]:
        status = self._path.stat()
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _read(self) -> list[Key]:
        with self._path.open("rb") as file:
            return read_key_set(file.read(KEY_SET_BYTES_MAX + 1), self._algorithms)


class FetchedKeySet:
    """A key set at a URL. Make it on the loop that it uses; the first fetch starts at once.

    Arguments:
        url: the URL, from the configuration.
        algorithms: the algorithms that its keys may be used for.
        pause_s: the minimum time between two fetches.
        now_s: a monotonic clock that includes time in suspend.
    """

    def __init__(
        self,
        url: str,
        algorithms: Sequence[str],
        pause_s: float = PAUSE_S,
        now_s: Callable[[], float] = boottime_s,
    ) -> None:
        self._url = url
        self._algorithms = algorithms
        self._pause_s = pause_s
        self._now_s = now_s
        self._context = ssl.create_default_context() if url.startswith("https:") else None
        self._loop = asyncio.get_running_loop()
        self._keys: list[Key] = []
        self._raw = b""
        self._read_s: float | None = None  # When a fetch last succeeded,
        self._begun_s = self._ended_s = now_s()  # and when the last one started and ended.
        self._missing: dict[str | bytes, float] = {}
        self._waiting: list[tuple[str | bytes | None, Resume]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._generation = 0
        self._begin()

    @property
    def generation(self) -> int:
        """As KeySet."""
        return _OVERDUE_GENERATION if self._is_overdue(self._now_s()) else self._generation

    def find(self, algorithm: str, kid: str | None) -> Sequence[Key]:
        """As KeySet."""
        now_s = self._now_s()
        if not self._is_believed(now_s) or self._is_overdue(now_s):
            raise KeysMissing(lambda resume: self._wait(None, resume))
        found = _matching(self._keys, algorithm, kid)
        if found or kid is None or self._was_missed(kid):
            return found
        raise KeysMissing(lambda resume: self._wait(kid, resume))

    def look_again(self, token: bytes) -> bool:
        """As KeySet; never returns True, because it must wait for a fetch."""
        unsigned = sum(type(name) is bytes for name, _ in self._waiting)
        if self._was_missed(token) or unsigned >= _UNSIGNED_MAX:
            return False
        raise KeysMissing(lambda resume: self._wait(token, resume))

    def close(self) -> None:
        """Cancels the fetch; requests that wait are refused."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        self._resume(Unavailable("keys", 1))

    def _is_believed(self, now_s: float) -> bool:
        return self._read_s is not None and now_s - self._read_s < STALE_S

    def _is_overdue(self, now_s: float) -> bool:
        """Whether the keys are old and no fetch was tried that could have renewed them."""
        age_s = now_s - (self._read_s or 0.0)
        return age_s >= OVERDUE_S and now_s - self._ended_s >= REFRESH_S

    def _was_missed(self, name: str | bytes) -> bool:
        """Whether the set was just fetched for this name or token, without success."""
        return self._now_s() < self._missing.get(name, 0.0)

    def _wait(self, name: str | bytes | None, resume: Resume) -> None:
        if len(self._waiting) >= _WAITING_MAX:
            resume(Unavailable("keys", 1))
            return
        self._waiting.append((name, resume))
        if self._task is None:
            self._read_in(max(0.0, self._begun_s + self._pause_s - self._now_s()))

    def _read_in(self, delay_s: float) -> None:
        """Schedules a fetch after `delay_s`, unless an earlier one is scheduled."""
        due_s = self._loop.time() + delay_s
        if self._timer is not None:
            if self._timer.when() <= due_s:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due_s, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._begun_s = self._now_s()
        self._task = self._loop.create_task(self._read())

    async def _read(self) -> None:
        error: FastsseError | None = None
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                raw = await self._fetch()
            self._take(raw)
        except asyncio.CancelledError:
            return
        except Exception as failure:  # Any failure of the network or the server.
            error = Unavailable("keys", max(1, round(self._pause_s)))
            log.warning("The key set can't be fetched.", reason=_reason(failure))
        self._task = None
        self._ended_s = self._now_s()
        self._read_in(REFRESH_S if error is None else RETRY_S)
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
                if len(raw) > KEY_SET_BYTES_MAX:
                    raise ValueError("it is larger than 1 MiB")
            return raw

    def _take(self, raw: bytes) -> None:
        """Stores the keys. The verifier's cache is dropped only if they have changed."""
        if raw != self._raw:
            keys = read_key_set(raw, self._algorithms)
            if not keys:
                raise ValueError("none of its keys can be used here")
            self._keys, self._raw = keys, raw
            self._generation += 1
        self._read_s = self._now_s()

    def _resume(self, error: FastsseError | None) -> None:
        """Resumes all waiting requests; remembers the names and tokens that caused the fetch.

        After a failed fetch, requests that wait only for old keys continue with these while they
        are valid.
        """
        waiting, self._waiting = self._waiting, []
        now_s = self._now_s()
        for name, _ in waiting:
            if error is None and name is not None:
                self._missing.pop(name, None)
                self._missing[name] = now_s + _MISSING_S
        while len(self._missing) > _MISSING_MAX:
            del self._missing[next(iter(self._missing))]
        for name, resume in waiting:
            resume(None if name is None and self._is_believed(now_s) else error)


def _reason(failure: Exception) -> str:
    """The reason of a failure, without the URL, which may contain a secret."""
    return str(failure) if type(failure) is ValueError else type(failure).__name__
