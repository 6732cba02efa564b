"""Servers for the tests of durable streams, as those of HTTP have them."""

from tests.http.conftest import Ask, Start, ask, pytest_asyncio_loop_factories, server, start

__all__ = ["Ask", "Start", "ask", "pytest_asyncio_loop_factories", "server", "start"]
