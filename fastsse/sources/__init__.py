"""Sources: what already flows through Redis becomes events."""

from fastsse.sources.sources import Sources

__all__ = ["Sources"]
