"""Load tools: a native swarm of SSE clients and an open-loop publisher.

`Crew(Plan(...))` runs the swarm, `OpenLoop(Schedule(...))` publishes what it measures. The commands
`fastsse swarm` and `fastsse publish --rate` are made of them, and so are the benchmarks.
"""

from fastsse.swarm.crew import Crew
from fastsse.swarm.figures import Figures, Histogram
from fastsse.swarm.plan import Plan
from fastsse.swarm.publisher import OpenLoop, Schedule
from fastsse.swarm.refusal import Refusal

__all__ = ["Crew", "Figures", "Histogram", "OpenLoop", "Plan", "Refusal", "Schedule"]
