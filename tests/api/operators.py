"""Operators, what they list, and streams for them to find."""

from typing import Any

from fastsse.server import Server
from tests.auth.minting import mint
from tests.http.raw import connected, request
from tests.mercure.client import KEY, ask

HTML = "<img src=x onerror=alert(1)>"

PASSWORD = "Authorization: Bearer open-sesame"


def operator(role: str | None = "act", key: str = KEY, **claims: Any) -> str:
    """The header of a token with a console role; None: with all grants, and no role."""
    ours = {} if role is None else {"fastsse": {"console": role}}
    grants = {"mercure": {"publish": ["*"], "subscribe": ["*"]}}
    return f"Authorization: Bearer {mint({**grants, **ours, **claims}, key=key).decode()}"


async def listed(server: Server, query: str = "", *headers: str) -> list[dict[str, Any]]:
    answer = await ask(server, "GET", f"/admin/connections?{query}", *headers)
    assert answer.status == 200, answer.body
    found: list[dict[str, Any]] = answer.json["connections"]
    return found


class Subscriber:
    """A stream that is held open."""

    def __init__(self, server: Server, query: str, *headers: str) -> None:
        self._server = server
        self._query = query
        self._headers = headers

    async def __aenter__(self) -> Any:
        self._connection = connected(self._server)
        raw = await self._connection.__aenter__()
        await raw.send(request("GET", f"/events?{self._query}", *self._headers))
        stream = await raw.stream()
        await stream.opening()
        return raw

    async def __aexit__(self, *error: Any) -> None:
        await self._connection.__aexit__(*error)
