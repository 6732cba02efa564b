"""The scripts of the log."""

import pathlib
from typing import Final

from fastsse.redis.scripts import Script

__all__ = ["APPEND", "NEWEST", "NEWEST_EVENTS", "OPEN", "PAGE", "TOUCH"]

_HERE: Final = pathlib.Path(__file__).parent
APPEND: Final = Script("append", "ids", "seen", "parts", folder=_HERE)
OPEN: Final = Script("open", "ids", folder=_HERE)
PAGE: Final = Script("page", "ids", "seen", "parts", folder=_HERE)
TOUCH: Final = Script("touch", folder=_HERE)
NEWEST: Final = Script("newest", "ids", "parts", folder=_HERE)
NEWEST_EVENTS: Final = Script("newest_events", "ids", "parts", folder=_HERE)
