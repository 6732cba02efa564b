"""Sentinel: which server is the master now. Every new connection asks it, so a failover needs no
restart and no message between the nodes."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from redis import exceptions
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from fastsse.redis.errors import AnswerLost, RedisRefusal

__all__ = ["Sentinels"]


class Sentinels:
    """The sentinels of one master.

    Arguments:
        hosts: host and port of each.
        name: the master's.
        options: of the connections to the sentinels: login and TLS.
        timeout_s: for each sentinel.
    """

    def __init__(
        self,
        hosts: Sequence[tuple[str, int]],
        name: str,
        options: Mapping[str, Any],
        timeout_s: float,
    ) -> None:
        self._hosts: Final = list(hosts)
        self._name: Final = name
        self._options: Final = dict(options)
        self._timeout_s: Final = timeout_s

    async def master(self) -> tuple[str, int]:
        """Host and port of the master, by the first sentinel that knows one. Raises AnswerLost when
        none does."""
        faults: list[str] = []
        for at, (host, port) in enumerate(self._hosts):
            try:
                async with asyncio.timeout(self._timeout_s):
                    found = await self._ask(host, port)
            except (exceptions.RedisError, OSError, TimeoutError) as error:
                faults.append(f"{host}:{port}: {_text(error)}")
                continue
            if found is None:
                faults.append(f"{host}:{port} knows no master {self._name}")
                continue
            # The next question goes to the one that answered.
            self._hosts.insert(0, self._hosts.pop(at))
            return found
        raise AnswerLost(f"no sentinel names the master {self._name} ({'; '.join(faults)[:300]})")

    async def _ask(self, host: str, port: int) -> tuple[str, int] | None:
        kind: Any = SSLConnection if self._is_tls else Connection
        options = {name: value for name, value in self._options.items() if name != "tls"}
        connection = kind(
            host=host,
            port=port,
            protocol=2,
            socket_connect_timeout=self._timeout_s,
            retry=Retry(NoBackoff(), 0),
            **options,
        )
        try:
            await connection.connect()
            await connection.send_command("SENTINEL", "get-master-addr-by-name", self._name)
            answer: Any = await connection.read_response()
        finally:
            await connection.disconnect(nowait=True)
        return None if answer is None else (answer[0].decode(), int(answer[1]))

    @property
    def _is_tls(self) -> bool:
        return bool(self._options.get("tls"))


async def check_is_master(connection: AbstractConnection) -> None:
    """Raises RedisRefusal (READONLY) for a server that is no master: the sentinel named it too
    early or too late."""
    await connection.send_command("ROLE")
    answer: Any = await connection.read_response()
    if answer[0] != b"master":
        raise RedisRefusal("READONLY", "the server that Sentinel names is a replica")


def _text(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:120] or type(error).__name__
