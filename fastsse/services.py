"""Every control service of a node, by subject: in the hub's process, or in the only worker."""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

from fastsse.auth.guard import SERVICES as TOKEN_SERVICES
from fastsse.control.feeds import SUBJECT as FEEDS
from fastsse.control.feeds import FeedService
from fastsse.control.gather import SUBJECT as GATHER
from fastsse.control.gather import GatherService, OwnFacts
from fastsse.control.presence import SUBJECT as PRESENCE
from fastsse.control.presence import PresenceService
from fastsse.control.schedule import SUBJECT as SCHEDULE
from fastsse.control.schedule import Append, ScheduleCounts, ScheduleService
from fastsse.control.service import MakeService
from fastsse.control.stats import SUBJECT as STATS
from fastsse.control.stats import stats_service
from fastsse.control.stream_lookup import SUBJECT as STREAM_LOOKUP
from fastsse.control.stream_lookup import StreamLookupService
from fastsse.control.usage import SUBJECT as USAGE
from fastsse.control.usage import UsageService
from fastsse.facts import build_facts
from fastsse.hooks import SUBJECT as HOOKS
from fastsse.hooks import StreamHooks
from fastsse.log import set_level
from fastsse.metrics import Counters
from fastsse.stacks import stacks
from fastsse.wakes import SUBJECT as WAKES
from fastsse.wakes import StreamWakes

__all__ = ["service_makers"]


def service_makers(
    own: Counters = dict,
    facts: OwnFacts = MappingProxyType({}),
    append: Append | None = None,
    wakes: StreamWakes | None = None,
    hooks: StreamHooks | None = None,
) -> Mapping[str, MakeService]:
    """What makes them. `own` are counters of the control services' process that no worker has,
    `facts` what it answers operators itself; `append` is that of the backbone, for delayed events,
    None: there are none; `wakes` are the subscriptions to its durable streams; `hooks` are sent of
    streams."""
    schedule = ScheduleCounts()

    def counters() -> Mapping[str, int]:
        return {**own(), **schedule.read()}

    makers: dict[str, MakeService] = {
        **TOKEN_SERVICES,
        GATHER: partial(GatherService, own=facts, acts={"log-level": set_level, "stacks": stacks}),
        FEEDS: FeedService,
        STATS: stats_service(counters, build_facts()),
        PRESENCE: PresenceService,
        STREAM_LOOKUP: StreamLookupService,
        USAGE: UsageService,
    }
    if append is not None:
        makers[SCHEDULE] = partial(ScheduleService, append=append, counts=schedule)
    if wakes:
        makers[WAKES] = wakes.make
    if hooks:
        makers[HOOKS] = hooks.make
    return makers
