"""How clients of Kafka are made: their settings, and texts of their errors."""

import re
from typing import Any, Final

from fastsse.config.source_url import read_server_url
from fastsse.config.sources import SourceRule

__all__ = ["client_settings", "reason_of", "server_settings"]

REASON_CHARS: Final = 300
# How long a try took and how many like it were left out: another text each time, for one reason.
_EACH_TIME: Final = re.compile(r" \(after \d+ms [^()]*(?:\(s\)[^()]*)?\)")

# The client holds about so many KiB that were fetched and not read.
FETCHED_KIB: Final = 16 * 1024
_DEFAULTS: Final = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "queued.max.messages.kbytes": FETCHED_KIB,
    "fetch.wait.max.ms": 100,
    # When that much is there the client fetches again after so long; a second (its default) is
    # longer than a log takes to read it.
    "fetch.queue.backoff.ms": 20,
    # A node that was killed has its partitions for so long.
    "session.timeout.ms": 10_000,
    # While a group waits for such a node its other members go on reading what they keep.
    "partition.assignment.strategy": "cooperative-sticky",
    "topic.metadata.refresh.interval.ms": 30_000,
    "allow.auto.create.topics": False,
    "reconnect.backoff.max.ms": 1_000,
}
# Of the consumer, whose other settings a producer has too.
_OF_CONSUMERS: Final = frozenset(_DEFAULTS) - {
    "topic.metadata.refresh.interval.ms",
    "reconnect.backoff.max.ms",
}


def client_settings(rule: SourceRule, *, consumes: bool) -> dict[str, Any]:
    """The settings of a client, as librdkafka names them, from the URL and `settings`."""
    assert rule.url is not None
    found = server_settings(rule.url)
    own = {} if consumes else dict.fromkeys(_OF_CONSUMERS)
    found |= {name: value for name, value in _DEFAULTS.items() if name not in own}
    if consumes:
        found |= {"group.id": rule.group, "auto.offset.reset": rule.start or "earliest"}
    return found | dict(rule.settings or {})


def server_settings(url: str) -> dict[str, Any]:
    """The settings that the URL of a server stands for."""
    server = read_server_url(url)
    is_tls = server.scheme == "kafkas"
    found: dict[str, Any] = {
        "bootstrap.servers": ",".join(server.hosts),
        "client.id": "fastsse",
        # The client would print a line for each attempt to connect. What matters comes as an error.
        "log_level": 0,
    }
    if server.user is not None:
        mechanism = server.options.get("mechanism", "PLAIN" if is_tls else "SCRAM-SHA-256")
        found |= {
            "security.protocol": "sasl_ssl" if is_tls else "sasl_plaintext",
            "sasl.mechanism": mechanism,
            "sasl.username": server.user,
            "sasl.password": server.password or "",
        }
    elif is_tls:
        found["security.protocol"] = "ssl"
    for name, setting in (
        ("ca", "ssl.ca.location"),
        ("cert", "ssl.certificate.location"),
        ("key", "ssl.key.location"),
    ):
        if name in server.options:
            found[setting] = server.options[name]
    return found


def reason_of(error: Any) -> str:
    """What an error of the client says, in one bounded line that is the same at each try.

    Arguments:
        error: a `KafkaError`, or an exception, whose first argument may be one.
    """
    inner = error.args[0] if getattr(error, "args", ()) else error
    if not hasattr(inner, "str"):
        return str(inner)[:REASON_CHARS]
    return _EACH_TIME.sub("", f"{inner.str()} ({inner.name()})")[:REASON_CHARS]
