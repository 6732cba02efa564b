"""A seeded fault simulation of the sqlite store: the real file, backbone, hub and sender.

Rooms: `disk` (what would survive a loss of power; what can happen to files), `readers` (clients
that resume, and the oracle), `world` (one seed), `streams_model` and `streams_world` (the same with
durable streams), `__main__` (many seeds: `make soak`).
"""
