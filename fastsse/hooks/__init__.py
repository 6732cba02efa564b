"""Hooks: notify other services, and the program around a server, of the streams of this node.

There is a hook for each stream that opens or ends, and for the first and the last subscriber of a
topic. Workers report to one control service, in the process that orders, so the notices are exact
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
