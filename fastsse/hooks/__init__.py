"""Hooks: other services, and the program around a server, are notified of streams of this node:
each that opens and ends, and the first and the last subscriber of a topic.

Workers report to a control service, which is in the process that orders, so what it says is exact
for the whole node.
"""

from fastsse.hooks.notices import SUBJECT, StreamHook
from fastsse.hooks.process import StreamHooks
from fastsse.hooks.reports import HookReports
from fastsse.hooks.streamhandlers import StreamHandler, StreamHandlers

__all__ = [
    "SUBJECT",
    "HookReports",
    "StreamHandler",
    "StreamHandlers",
    "StreamHook",
    "StreamHooks",
]
