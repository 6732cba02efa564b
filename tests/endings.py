"""What tests start in sessions of their own ends with pytest, even if pytest is killed: as in the
conformance suite."""

import tests.conformance  # noqa: F401  (makes the suite importable)

from sse_conformance.endings import forget, start_watcher, watch, watched  # isort: skip

__all__ = ["forget", "start_watcher", "watch", "watched"]
