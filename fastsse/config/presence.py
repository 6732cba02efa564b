"""Who is there: subscription events, and whether a page still listens."""

from fastsse.config.groups import OptionGroup, duration, option
from fastsse.config.kinds import Seconds, Switch

__all__ = ["PresenceOptions"]


class PresenceOptions(OptionGroup):
    """Presence and liveness."""

    title = "Presence"

    subscriptions: Switch = option(
        False,
        "Publish a private event when a subscription begins and when it ends, and list those that "
        "are active, by Mercure's interface and under `/presence`.",
    )
    ping: Seconds = duration(
        "0s",
        "Streams opened with ping=true get a visible event fastsse.ping this often; 0s: never.",
        least="0s",
        most="1h",
    )
    pong_timeout: Seconds = duration(
        "0s",
        "Such a stream ends when no POST /pong names it for this long; 0s: it need not.",
        least="0s",
        most="1h",
    )
