"""Hubs for the tests of the Mercure protocol."""

import pytest

from fastsse.server import Server
from tests.http.conftest import Start, start
from tests.mercure.client import KEY

__all__ = ["start"]


@pytest.fixture
async def hub(start: Start) -> Server:
    """A hub with one key, where anybody may read what is public."""
    return await start(jwt_key=KEY, anonymous=True, subscriptions=True)
