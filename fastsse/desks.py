"""Every desk of a node, by subject: in the hub's process, or in the only worker."""

from collections.abc import Mapping

from fastsse.auth.guard import DESKS as GUARD_DESKS
from fastsse.control import MakeDesk
from fastsse.facts import build_facts
from fastsse.figures import SUBJECT as FIGURES
from fastsse.figures import figures_desk
from fastsse.metrics import Counters
from fastsse.presence import SUBJECT as PRESENCE
from fastsse.presence import PresenceDesk
from fastsse.shares import SUBJECT as SHARES
from fastsse.shares import SharesDesk

__all__ = ["desk_makers"]


def desk_makers(own: Counters = dict) -> Mapping[str, MakeDesk]:
    """What makes them. `own` are counters of the desks' process that no worker has."""
    return {
        **GUARD_DESKS,
        FIGURES: figures_desk(own, build_facts()),
        PRESENCE: PresenceDesk,
        SHARES: SharesDesk,
    }
