"""What the workers of a service share beside the log of events: desks, and the way to them.

- `control`: what a desk is, how workers reach one, and what it keeps.
- `figures`: metrics, statistics and readiness of all workers as one.
- `presence`: who reads what. `shares`: what clients used of their limits.
- `reach`: a stream in whatever worker holds it.
- `makers`: every desk by its subject. Those of tickets and revocations are `auth`'s.
"""
