"""Durable Streams: fastsse and other servers of the protocol. See `python -m bench.streams`."""
