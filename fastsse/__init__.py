"""fastsse: a Server-Sent-Events fan-out server with a native core."""

from fastsse.version import __version__

__all__ = ["__version__"]
