"""Topics that only the server itself publishes to: those below Mercure's well-known path.

A publisher there could announce subscriptions that do not exist. Clients take topics for
URLs, so every spelling that a URL parser makes the same path of counts: percent escapes, letter
case, backslashes, dot segments and doubled slashes (WHATWG URL §4.4, RFC 3986 §6.2.2).
"""

import posixpath
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote

from fastsse.errors import Forbidden

__all__ = [
    "CONSOLE_TOPIC",
    "DROPPED_TOPIC",
    "HUB_PATH",
    "SUBSCRIPTIONS_PATH",
    "check_not_reserved",
    "is_reserved",
]

HUB_PATH: Final = "/.well-known/mercure"
#: Topics below it are the server's events about who is present, all of them private.
SUBSCRIPTIONS_PATH: Final = f"{HUB_PATH}/subscriptions/"
#: What streams of consoles ask for; no event has it.
CONSOLE_TOPIC: Final = f"{HUB_PATH}/fastsse/console"
#: Has entries that stand for appends of which rules left nothing.
DROPPED_TOPIC: Final = f"{HUB_PATH}/fastsse/dropped"
_WORD: Final = "mercure"
# An escape of an escape of an escape; a topic with more is refused.
_ROUNDS_MAX: Final = 4


def is_reserved(topic: str) -> bool:
    """Whether a topic is, or may be read as, one below the hub's path. O(bytes)."""
    if "%" not in topic and _WORD not in topic.lower():
        return False
    for _ in range(_ROUNDS_MAX):
        if HUB_PATH in _plain(topic):
            return True
        decoded = unquote(topic, errors="replace")
        if decoded == topic:
            return False
        topic = decoded
    return True


def check_not_reserved(topics: Iterable[str]) -> None:
    """Raises Forbidden when one of the topics is reserved."""
    for topic in topics:
        if is_reserved(topic):
            raise Forbidden(f"Topics below {HUB_PATH} are the server's own.")


def _plain(topic: str) -> str:
    """The topic in lower case, with one slash between segments and without dot segments."""
    return posixpath.normpath("/" + topic.lower().replace("\\", "/"))
