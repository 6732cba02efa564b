"""Sources: messages of Redis channels and streams become events."""

from fastsse.sources.runner import Sources

__all__ = ["Sources"]
