"""Options of the operator's side: the console, and what it shows."""

from fastsse.config.kinds import Count, OptionGroup, Seconds, Switch, Token, duration, option

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
    console_minting: Seconds = duration(
        "0s",
        "Longest lifetime of tokens that operators with the role act may make in the console, with "
        "the server's key; 0s: none.",
        least="0s",
        most="30d",
    )
    metrics_topics: Count = option(
        0, "Topics with the most events a second that /metrics shows by name; 0: none.", le=1000
    )
