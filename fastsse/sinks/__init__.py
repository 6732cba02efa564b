"""Sinks: committed events are sent to other systems, in order, from a stored place."""

from fastsse.sinks.runner import Sinks

__all__ = ["Sinks"]
