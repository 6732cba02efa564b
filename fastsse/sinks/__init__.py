"""Sinks: committed events are sent to other systems, in order, from a place that is kept."""

from fastsse.sinks.runner import Sinks

__all__ = ["Sinks"]
