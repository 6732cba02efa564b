"""Resuming: where a stream continues, and its pages until it is live."""
