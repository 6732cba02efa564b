"""Whether a path to a server, through proxies, is fit for event streams.

`trial` publishes and listens through it and notes what came when; `judge` says what that means;
`proxies` knows which setting of which proxy fixes it.
"""

from fastsse.doctor.path.judge import judge
from fastsse.doctor.path.trial import TrialTiming, Way, try_path

__all__ = ["TrialTiming", "Way", "judge", "try_path"]
