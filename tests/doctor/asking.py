"""What `fastsse why` finds about a server under test."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from fastsse.checks import NOTE, OK, UNKNOWN, WRONG, Check
from fastsse.config import Config
from fastsse.doctor.why import Question, why
from tests.auth.minting import SECRET, mint


def config(**options: Any) -> Config:
    return Config(**{"port": 0, "drain": 0, "access_lines": 0, **options})


async def asked(url: str, topic: str = "news", **members: Any) -> list[Check]:
    """All checks; without the trial of the path, which has tests of its own."""
    given = {"tries_path": False, "patience_s": 5.0, **members}
    return [check async for check in why(Question(url, topic, **given))]


def found(checks: list[Check], name: str) -> Check:
    """The check of this name; the first that is not right, if there are several."""
    named = [check for check in checks if check.name == name]
    assert named, [check.name for check in checks]
    return min(named, key=lambda check: (WRONG, NOTE, UNKNOWN, OK).index(check.verdict))


def first_wrong(checks: list[Check]) -> Check:
    return next(check for check in checks if check.verdict == WRONG)


def token(**claims: Any) -> str:
    return mint({"mercure": {"subscribe": ["news"]}, **claims}, key=SECRET).decode()


async def held(stack: AsyncExitStack, url: str, topic: str = "other") -> None:
    """A stream of another client, for as long as the stack is there."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    stack.callback(writer.close)
    writer.write(f"GET /events?topic={topic} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await reader.readuntil(b"\n\n")
