"""The pytest plugin: pytest finds it by its entry point. It imports the server when it is used."""

from collections.abc import AsyncIterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from fastsse.testing import Recorder

# With pytest-asyncio in its strict mode an async fixture must be its own; anyio takes pytest's.
if find_spec("pytest_asyncio") is not None:
    import pytest_asyncio

    _fixture: Any = pytest_asyncio.fixture
else:
    _fixture = pytest.fixture


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


@_fixture
async def fastsse_hub() -> "AsyncIterator[Recorder]":
    """A hub in the loop of the test, with an empty history: `publish`, `events`, `next`."""
    from fastsse import Config, mount
    from fastsse.testing import recording

    async with recording(mount(_nothing, config=Config(drain=0))) as recorder:
        yield recorder
