"""Sources: what already flows through Redis becomes events."""

from fastsse.sources.runner import Sources

__all__ = ["Sources"]
