"""Resuming: where a stream goes on, and its pages until it is live."""
