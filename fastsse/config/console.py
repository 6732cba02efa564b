"""Options of the operator's side: the console, and what it shows."""

from fastsse.config.kinds import Count, OptionGroup, Switch, Token, option

__all__ = ["ConsoleOptions"]


class ConsoleOptions(OptionGroup):
    """Who may look at connections and topics under `/admin` and end streams, and what is kept for
    it."""

    title = "Console"

    console_password: Token | None = option(
        None,
        "Password of the console and of /admin, sent as `Authorization: Bearer`. Without it a "
        "token with the claim fastsse.console is needed; without JWT keys too, only this machine "
        "may use them.",
    )
    connection_details: Switch = option(
        True,
        "Keep address, user agent and subject of each stream for /admin/connections, 64 bytes a "
        "stream.",
    )
    metrics_topics: Count = option(
        0, "Topics with the most events a second that /metrics shows by name; 0: none.", le=1000
    )
