"""What the threads of this process do now, for a report of a fault."""

import sys
import threading
import traceback
from typing import Final

__all__ = ["stacks"]

_TEXT_MAX: Final = 64 * 1024


def stacks(_question: object = None) -> str:
    """The stack of each Python thread, the innermost call last; at most 64 KiB. Any thread."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = [
        f"{names.get(ident, ident)}\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sys._current_frames().items()
    ]
    return "\n".join(parts)[:_TEXT_MAX]
