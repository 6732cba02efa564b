"""What a peer is: a server of our own writing on somebody else's library, and how to start it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

PYTHON_PACKAGES = "pip install '.[peers]'"


def _events(url: str, topic: str) -> str:
    return f"{url}/events"


def _no_envelope(topic: str) -> tuple[bytes, bytes]:
    return b"", b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One server to compare with.

    Attributes:
        name: for the command line and the JSON.
        title: for the table.
        command: given an empty directory of its own, the arguments of a process that prints
            `listening on <host>:<port>` (or what `address` reads) and then serves
            `GET` and `POST /events?topic=…` until SIGTERM. It may build something first.
        missing: what is missing here, empty when nothing is.
        install: the command that installs what is missing.
        versions: of what the figures depend on.
        settings: what its documentation recommends and is set here, in a sentence.
        address: reads `host:port` from what the process printed; None: not there yet.
        stream_url, publish_url: given the server's URL and a topic, where it streams and where it
            takes events.
        headers: of a publish.
        envelope: given a topic, what stands around an event's data in the body of a publish.
    """

    name: str
    title: str
    command: Callable[[Path], list[str]]
    install: str
    settings: str
    missing: Callable[[], str]
    versions: Callable[[], Mapping[str, str]]
    environment: Mapping[str, str] = field(default_factory=dict)
    address: Callable[[str], str | None] | None = None
    stream_url: Callable[[str, str], str] = _events
    publish_url: Callable[[str, str], str] = _events
    headers: tuple[tuple[str, str], ...] = ()
    envelope: Callable[[str], tuple[bytes, bytes]] = _no_envelope


def lacks_modules(*names: str) -> Callable[[], str]:
    """A `missing` for Python modules."""
    return lambda: ", ".join(name for name in names if find_spec(name) is None)


def versions_of(*packages: str) -> Callable[[], Mapping[str, str]]:
    """A `versions` for installed Python packages."""
    return lambda: {name: _version(name) for name in packages}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
