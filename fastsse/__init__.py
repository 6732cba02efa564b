"""fastsse: a Server-Sent-Events fan-out server with a native core.

async with fastsse.Server(fastsse.Config(port=0)) as server:
    server.publish("news", "hello", event="tick")

fastsse.encode("hello", event="tick")  # b'event: tick\\ndata: hello\\n\\n'
"""

import importlib
from typing import TYPE_CHECKING, Any

from fastsse.version import __version__

if TYPE_CHECKING:
    from fastsse._core import encode
    from fastsse.asgi import Grants, Mount, mount
    from fastsse.client import relay
    from fastsse.config import Config
    from fastsse.errors import FastsseError
    from fastsse.events import Event
    from fastsse.handlers import HandledEvent
    from fastsse.hooks import StreamHook
    from fastsse.server import Server

__all__ = [
    "Config",
    "Event",
    "FastsseError",
    "Grants",
    "HandledEvent",
    "Mount",
    "Server",
    "StreamHook",
    "__version__",
    "encode",
    "mount",
    "relay",
]

_HOMES = {
    "Config": "fastsse.config",
    "Event": "fastsse.events",
    "FastsseError": "fastsse.errors",
    "Grants": "fastsse.asgi",
    "HandledEvent": "fastsse.handlers",
    "Mount": "fastsse.asgi",
    "Server": "fastsse.server",
    "StreamHook": "fastsse.hooks",
    "encode": "fastsse._core",
    "mount": "fastsse.asgi",
    "relay": "fastsse.client",
}


def __getattr__(name: str) -> Any:
    """Imports a name when it is first used: a short command needs few of them."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'fastsse' has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(home), name)
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("fastsse."):
            raise
        raise ImportError(f"fastsse.{name} needs the package fastsse, not fastsse-client") from None
    # From now on it is found without a call.
    globals()[name] = value
    return value
