"""Kafka to streams: fastsse next to other servers, and the log platform of `examples/`."""
