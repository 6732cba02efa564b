"""Durable Streams: append-only streams at URLs. Each is a topic with a row (`fastsse.streamstate`).

See https://github.com/durable-streams/durable-streams, PROTOCOL.md, and docs/design.
"""
