# The native load generator's parts, compiled into `fastsse.swarm._swarm`.
