"""Services of several processes, as those of the supervisor's tests."""

from tests.supervisor.conftest import serve

__all__ = ["serve"]
