"""Load tools: a native swarm of SSE clients and an open-loop publisher.

`Crew(Plan(...))` runs the swarm, `OpenLoop(Schedule(...))` publishes what it measures. The commands
`fastsse swarm` and `fastsse publish --rate` are made of them, and so are the benchmarks.
"""

from fastsse.swarm.crew import Crew
from fastsse.swarm.open_loop import OpenLoop, Schedule
from fastsse.swarm.plan import Plan
from fastsse.swarm.refusal import Refusal
from fastsse.swarm.results import Histogram, SwarmResults

__all__ = ["Crew", "Histogram", "OpenLoop", "Plan", "Refusal", "Schedule", "SwarmResults"]
