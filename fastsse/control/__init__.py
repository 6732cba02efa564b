"""What the workers of a service share outside the log: control services, and the way to
them.

- `control`: what a control service is, how workers reach one, and what it keeps.
- `figures`: metrics, statistics and readiness of all workers as one.
- `nodes`: what control services have together with those of other nodes, where a store is shared.
- `presence`: who reads what; `roster`: the list of it, and what is published of each change.
- `usage`: what clients used of their limits; `learning`: what others hold of them.
- `reach`: a stream in whatever worker holds it.
- `makers`: every control service by its subject. Those of tickets and revocations are `auth`'s.
"""
