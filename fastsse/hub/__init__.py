"""What puts events in order, keeps them, and hands them on to whoever listens."""

from fastsse.hub.hub import SWEEP_ON_S, Hub, Published

__all__ = ["SWEEP_ON_S", "Hub", "Published"]
