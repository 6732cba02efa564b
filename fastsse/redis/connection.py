"""Connections to Redis. Each has one owner, and is kept open for a task or opened on demand."""

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

from hiredis import pack_command
from redis import exceptions
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from fastsse.backoff import Backoff
from fastsse.config.redis_url import read_sentinel_url
from fastsse.log import get_logger
from fastsse.redis.errors import (
    ANSWERS,
    AnswerLost,
    AnswerTimeout,
    RedisRefusal,
    TlsMismatch,
    error_of_opening,
    first_line,
    refusal_of,
)
from fastsse.redis.scripts import Script
from fastsse.redis.sentinel import Sentinels, check_is_master

__all__ = ["ConnectionOnDemand", "RedisAddress", "RedisConnection", "while_connected"]

# A sentinel that takes longer is skipped: the next one is asked.
SENTINEL_S: Final = 1.0
# The parameters of a URL's query for TLS.
_FILES: Final = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")


class RedisAddress:
    """The address of a Redis, with login and TLS.

    Arguments:
        url: `redis://`, `rediss://` or `unix://`, with user, password and database as the client
            library takes them; `redis+sentinel://` or `rediss+sentinel://` with sentinels.
        timeout_s: how long connecting and an ordinary answer may take.

    Raises ValueError for an invalid address.
    """

    __slots__ = ("_kind", "_options", "_sentinels", "database", "timeout_s")

    def __init__(self, url: str, timeout_s: float) -> None:
        named = read_sentinel_url(url)
        options: dict[str, Any] = dict(parse_url(url if named is None else named.server))
        self._kind: type[AbstractConnection] = options.pop("connection_class", Connection)
        self._options = options | {
            "protocol": 2,
            # Timeouts are handled here: if the library gave up in the middle of an answer, it would
            # assign the rest to the next command.
            "socket_timeout": None,
            "socket_connect_timeout": timeout_s,
            "health_check_interval": 0,
            "retry": Retry(NoBackoff(), 0),
        }
        self._sentinels: Sentinels | None = None
        if named is not None:
            self._sentinels = Sentinels(
                named.hosts,
                named.name,
                {
                    **{key: value for key, value in options.items() if key.startswith("ssl_")},
                    "username": named.user,
                    "password": named.password,
                    "tls": self._is_tls,
                },
                min(timeout_s, SENTINEL_S),
            )
        self.timeout_s: Final = timeout_s
        #: The number of the database.
        self.database: Final = int(options.get("db") or 0)

    async def connection(self) -> AbstractConnection:
        """A connection that is not open yet. With sentinels it is to the master that they name.
        Raises AnswerLost when none names one."""
        if self._sentinels is None:
            return self._kind(**self._options)
        host, port = await self._sentinels.master()
        return self._kind(**{**self._options, "host": host, "port": port})

    async def check(self, connection: AbstractConnection) -> None:
        """Raises RedisRefusal (READONLY) if Sentinel named the server of this open connection and
        the server is no master, as happens right after a failover."""
        if self._sentinels is not None:
            await check_is_master(connection)

    def silence(self) -> AnswerTimeout:
        """The error for a server that accepts a connection and does not answer."""
        return AnswerTimeout("; it may speak no TLS" if self._is_tls else "")

    def fault_of(self, error: Exception) -> RedisRefusal | AnswerLost:
        """The error for a connection that could not be opened."""
        for name in _FILES:
            path = self._options.get(name)
            if path is not None and not os.access(path, os.R_OK):
                return TlsMismatch(f"{name} {path} can't be read")
        return error_of_opening(error)

    @property
    def _is_tls(self) -> bool:
        return issubclass(self._kind, SSLConnection)


OnMessage = Callable[[bytes, bytes, bytes], None]
"""Called with a published message: the pattern that matched, the channel, the payload."""


class RedisConnection:
    """One connection with one owner. It is open from the start, and the first error closes it."""

    def __init__(
        self,
        address: RedisAddress,
        connection: AbstractConnection,
        on_message: OnMessage | None = None,
    ) -> None:
        self._timeout_s = address.timeout_s
        self._connection = connection
        self._on_message = on_message
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._fault: AnswerLost | None = None
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def open(
        cls, address: RedisAddress, on_message: OnMessage | None = None
    ) -> "RedisConnection":
        """Connects and logs in. Raises AnswerLost or RedisRefusal.

        `on_message` is called with the messages of patterns that are subscribed to on this link.
        """
        connection = await address.connection()
        try:
            async with asyncio.timeout(address.timeout_s):
                await connection.connect()  # type: ignore[no-untyped-call]
                await address.check(connection)
        except TimeoutError:
            await _shut(connection)
            raise address.silence() from None
        except (exceptions.RedisError, OSError) as error:
            await _shut(connection)
            raise address.fault_of(error) from None
        except BaseException:
            await _shut(connection)
            raise
        return cls(address, connection, on_message)

    @property
    def is_open(self) -> bool:
        """Whether it can still be used."""
        return self._fault is None

    async def call(self, *command: bytes | str | int, wait_s: float | None = None) -> Any:
        """The answer of one command. Raises RedisRefusal, or AnswerLost if the command may have
        been executed.

        `wait_s` is how long the command itself blocks in Redis, in addition to the timeout for an
        answer.
        """
        return (await self.calls([command], wait_s))[0]

    async def calls(
        self, commands: "list[tuple[bytes | str | int, ...]]", wait_s: float | None = None
    ) -> list[Any]:
        """The answers of several commands that are sent together. Raises as `call` for the first
        that fails."""
        answers = await self._send(commands, (wait_s or 0) + self._timeout_s)
        for answer in answers:
            if isinstance(answer, RedisRefusal):
                raise answer
        return answers

    async def run(self, script: Script, keys: "list[bytes]", *arguments: bytes | str | int) -> Any:
        """The answer of a script. Its text is sent only to a Redis that doesn't know its digest."""
        tail = (len(keys), *keys, *arguments)
        try:
            return await self.call(b"EVALSHA", script.digest, *tail)
        except RedisRefusal as refusal:
            if refusal.code != "NOSCRIPT":
                raise
            return await self.call(b"EVAL", script.text, *tail)

    async def lasts(self, time_s: float) -> None:
        """Waits for `time_s`. Raises AnswerLost if the connection ends before."""
        await asyncio.wait((self._reading,), timeout=time_s)
        if self._fault is not None:
            raise self._fault

    def abort(self, fault: AnswerLost) -> None:
        """Makes it unusable: each waiting call gets the fault. The owner must still call
        `close`."""
        self._end(fault)

    async def close(self) -> None:
        """Closes it: each waiting call gets AnswerLost."""
        self._end(AnswerLost("the connection was closed"))
        with contextlib.suppress(asyncio.CancelledError):
            await self._reading
        await _shut(self._connection)

    async def _send(
        self, commands: "list[tuple[bytes | str | int, ...]]", timeout_s: float
    ) -> list[Any]:
        if self._fault is not None:
            raise self._fault
        loop = asyncio.get_running_loop()
        answers = [loop.create_future() for _ in commands]
        self._waiting += answers
        packed = b"".join(
            [pack_command(command) for command in commands]  # type: ignore[arg-type]
        )
        try:
            async with asyncio.timeout(timeout_s):
                await self._connection.send_packed_command(packed, check_health=False)
                return [await answer for answer in answers]
        except TimeoutError:
            self._end(AnswerTimeout())
        except AnswerLost as lost:
            self._end(lost)
        except (exceptions.RedisError, OSError) as error:
            self._end(AnswerLost(f"Redis can't be reached: {first_line(error)}"))
        assert self._fault is not None
        raise self._fault

    async def _read(self) -> None:
        """Gives each answer to the oldest waiting call."""
        try:
            while True:
                answer = await self._answer()
                if self._on_message is not None and _is_message(answer):
                    self._on_message(*answer[1:])
                    continue
                if not self._waiting:
                    raise AnswerLost("Redis sent an answer to no command")
                waiting = self._waiting.popleft()
                if not waiting.done():
                    waiting.set_result(answer)
        except AnswerLost as lost:
            self._end(lost)
        finally:
            self._end(AnswerLost("reading from Redis failed"))

    async def _answer(self) -> Any:
        try:
            return await self._connection.read_response(disconnect_on_error=False)
        except ANSWERS as error:
            return refusal_of(error)
        except (exceptions.RedisError, OSError, EOFError) as error:
            raise AnswerLost(f"Redis can't be reached: {first_line(error)}") from None

    def _end(self, fault: AnswerLost) -> None:
        if self._fault is not None:
            return
        self._fault = fault
        if self._reading is not asyncio.current_task():
            self._reading.cancel()
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(fault)
                waiting.exception()  # So that a future that is no longer awaited logs no warning.
        self._waiting.clear()


def _is_message(answer: Any) -> bool:
    return isinstance(answer, list) and len(answer) == 4 and answer[0] == b"pmessage"


async def _shut(connection: AbstractConnection) -> None:
    with contextlib.suppress(exceptions.RedisError, OSError, RuntimeError):
        await connection.disconnect(nowait=True)


log = get_logger("redis")
# A repeated refusal is logged once in this many tries, which are 0.5 s apart.
_LOGGED_EVERY: Final = 120


async def while_connected(
    address: RedisAddress,
    what: str,
    work: Callable[[RedisConnection, Backoff], Coroutine[Any, Any, None]],
) -> None:
    """Runs `work` with a connection, and again with a new one when that breaks, until it is
    cancelled.

    Arguments:
        what: the task in a few words, for log lines ("writing presence").
        work: receives the connection, and the backoff to reset after a success. It may raise
            AnswerLost or RedisRefusal; every other exception is logged.
    """
    backoff = Backoff()
    failures = 0
    while True:
        await backoff.wait()
        failures = failures + 1 if backoff.tries > 1 else 0
        try:
            link = await RedisConnection.open(address)
            try:
                await work(link, backoff)
            finally:
                await link.close()
        except AnswerLost:
            continue  # The log's own tasks report that Redis can't be reached.
        except RedisRefusal as refusal:
            if failures % _LOGGED_EVERY == 0:
                log.warning("Redis refuses.", what=what, why=str(refusal))
        except Exception:
            log.exception("A task failed and is started again.", what=what)


class ConnectionOnDemand:
    """A connection that is opened for the first call, and again after it broke. Loop thread
    only."""

    def __init__(self, address: RedisAddress) -> None:
        self._address = address
        self._link: RedisConnection | None = None
        self._opening = asyncio.Lock()

    async def get(self) -> RedisConnection:
        """The open connection. Raises AnswerLost or RedisRefusal."""
        async with self._opening:
            if self._link is not None and not self._link.is_open:
                await self._link.close()
                self._link = None
            if self._link is None:
                self._link = await RedisConnection.open(self._address)
            return self._link

    async def close(self) -> None:
        """Closes the connection, if there is one."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()
