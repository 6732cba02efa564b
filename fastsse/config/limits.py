"""Who a client is behind proxies, and how much one client may do."""

from typing import Annotated, Literal

from fastsse.config.groups import OptionGroup, option, size
from fastsse.config.kinds import Bytes, Choice, Count, Networks, Switch

__all__ = ["LimitOptions"]

_MOST = 1_000_000_000


class LimitOptions(OptionGroup):
    """Proxies to trust, and limits for each client address and each token subject.

    0 sets no limit. A rate may be exceeded for a moment: two seconds' worth may come at once.
    IPv6 clients are one by their /64.
    """

    title = "Proxies and limits"

    trusted_proxies: Networks = option(
        (),
        "Proxies whose X-Forwarded-For is believed: addresses, networks, or unix for those that "
        "come by a Unix socket. Repeat it for several.",
    )
    proxy_protocol: Switch = option(
        False, "Trusted proxies begin each connection with a PROXY protocol v2 header."
    )
    address_streams: Count = option(
        0, "Streams one client address may hold; 0: any number.", ge=0, le=_MOST
    )
    over_limit: Annotated[Literal["newest", "oldest"], Choice] = option(
        "newest",
        "Which stream goes when a client has too many: the newest is turned away, or the oldest "
        "is ended for it.",
    )
    address_opens: Count = option(
        0, "Streams one client address may open a second; 0: any number.", ge=0, le=_MOST
    )
    address_publishes: Count = option(
        0, "Publishes a second from one client address; 0: any number.", ge=0, le=_MOST
    )
    address_requests: Count = option(
        0,
        "Other requests a second from one client address: tickets, renewals, revocations, pongs, "
        "questions who is there; 0: any number.",
        ge=0,
        le=_MOST,
    )
    address_replay: Bytes = size(
        "0B",
        "Bytes of history replayed a second to one client address; 0: any number.",
        least="0B",
        most="16TiB",
    )
    subject_streams: Count = option(
        0, "Streams one token subject (sub) may hold; 0: any number.", ge=0, le=_MOST
    )
    subject_opens: Count = option(
        0, "Streams one token subject may open a second; 0: any number.", ge=0, le=_MOST
    )
    subject_publishes: Count = option(
        0, "Publishes a second by one token subject; 0: any number.", ge=0, le=_MOST
    )
    subject_requests: Count = option(
        0,
        "Other requests a second by one token subject: tickets, renewals, revocations, pongs, "
        "questions who is there; 0: any number.",
        ge=0,
        le=_MOST,
    )
    subject_replay: Bytes = size(
        "0B",
        "Bytes of history replayed a second to one token subject; 0: any number.",
        least="0B",
        most="16TiB",
    )
