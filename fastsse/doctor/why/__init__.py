"""Why a client receives nothing: looks from outside, in the order in which a person would.

`opening` asks for the stream and reads its first bytes; `rights` reads the token; `server` asks the
operator's side, if the role is there; `path` publishes through the path. `why` puts them in order.
"""

from fastsse.doctor.why.question import Question
from fastsse.doctor.why.why import why

__all__ = ["Question", "why"]
