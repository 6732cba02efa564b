"""Puts events in order, keeps them, and passes them on to subscribers."""

from fastsse.hub.hub import SWEEP_ON_S, Hub
from fastsse.hub.published import Published, Separate

__all__ = ["SWEEP_ON_S", "Hub", "Published", "Separate"]
