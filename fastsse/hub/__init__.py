"""What puts events in order, keeps them, and hands them on to whoever listens."""

from fastsse.hub.hub import Hub, Published

__all__ = ["Hub", "Published"]
