"""The control plane of a node: facts that its workers share outside the log.

- `service`: what a control service is, how workers reach one, and what it keeps.
- `stats`: metrics, statistics and readiness of all workers together.
- `cluster`: what control services share with those of other nodes on the same store.
- `presence`: who is subscribed to what; `roster`: the list of it, and an event for each change.
- `usage`: what clients used of their limits; `usage_learning`: what other workers hold of them.
- `stream_lookup`: finds a stream in the worker that holds it.

`fastsse.services` lists every control service by its subject; `auth` owns those of tickets and
revocations.
"""
