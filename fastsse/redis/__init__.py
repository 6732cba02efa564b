"""The connection to Redis: used by the log, the control plane between nodes, and sources."""
