"""Every desk of a node, by subject: in the hub's process, or in the only worker."""

from collections.abc import Mapping

from fastsse.auth.guard import DESKS as GUARD_DESKS
from fastsse.desks.control import MakeDesk
from fastsse.desks.figures import SUBJECT as FIGURES
from fastsse.desks.figures import figures_desk
from fastsse.desks.presence import SUBJECT as PRESENCE
from fastsse.desks.presence import PresenceDesk
from fastsse.desks.reach import SUBJECT as REACH
from fastsse.desks.reach import ReachDesk
from fastsse.desks.shares import SUBJECT as SHARES
from fastsse.desks.shares import SharesDesk
from fastsse.facts import build_facts
from fastsse.metrics import Counters

__all__ = ["desk_makers"]


def desk_makers(own: Counters = dict) -> Mapping[str, MakeDesk]:
    """What makes them. `own` are counters of the desks' process that no worker has."""
    return {
        **GUARD_DESKS,
        FIGURES: figures_desk(own, build_facts()),
        PRESENCE: PresenceDesk,
        REACH: ReachDesk,
        SHARES: SharesDesk,
    }
