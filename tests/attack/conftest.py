"""Attacks come by the same ways as everybody: the servers of the tests of HTTP, on one loop."""

from tests.http.conftest import Start, ask, asked, server, start

__all__ = ["Start", "ask", "asked", "server", "start"]
