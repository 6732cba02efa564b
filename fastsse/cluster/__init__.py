"""The control plane between nodes that share a log, on Redis."""
