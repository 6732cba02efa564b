"""The servers that read Kafka and stream: ours with a rule, the plain application, Centrifugo."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click

from bench.peers.centrifugo import PEER as CENTRIFUGO
from bench.peers.peer import PYTHON_PACKAGES, Peer, lacks_modules, versions_of
from bench.peers.process import PeerServer
from bench.server import Server
from bench.sources.broker import Broker

#: How a message becomes an event: as it is; its JSON; as in examples/logs.
RULES: Mapping[str, Mapping[str, object]] = {
    "data": {"topic": "s{key}"},
    "json": {"topic": "{data.service}", "payload": "json"},
    "logs": {
        "topic": "{data.service|unknown}",
        "payload": "json",
        "event": "line",
        "meta": {name: f"{{data.{name}}}" for name in ("host", "service", "level", "trace")},
    },
}
OTHERS = ("plain", "centrifugo")
#: Tansu lets a new member of a group wait for half of it.
SESSION_MS = 6_000
#: The header that says where Centrifugo publishes a message.
CHANNELS = "x-centrifugo-channels"


@dataclasses.dataclass(frozen=True, slots=True)
class Reader:
    """A server that reads the topic.

    Attributes:
        server: its processes.
        stream_url, topics: where the streams are; `s{n}` is the topic of stream n.
    """

    server: Server | PeerServer
    stream_url: str
    topics: tuple[str, ...] = ("s{n}",)

    def pids(self) -> list[int]:
        """Its processes."""
        server = self.server
        return server.pids() if isinstance(server, Server) else server.process_ids()


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where a server reads, and where it runs.

    Attributes:
        broker, topic: what it reads.
        folder: for its files.
        cpu: its core.
        settings: ours, of librdkafka.
    """

    broker: Broker
    topic: str
    folder: Path
    cpu: int
    settings: Mapping[str, object]


@contextmanager
def reader(name: str, at: Place) -> Iterator[Reader]:
    """One of them: a name of RULES or OTHERS."""
    if name in RULES:
        with _ours(RULES[name], at) as ours:
            yield ours
        return
    peer = _plain(at) if name == "plain" else _centrifugo(at)
    if missing := peer.missing():
        raise click.ClickException(f"{missing} is missing: {peer.install}")
    with PeerServer(peer, at.cpu) as server:
        if name == "plain":
            yield Reader(server, server.url)
        else:
            # The URL names the channel.
            yield Reader(server, peer.stream_url(server.url, "s{n}"), ())


@contextmanager
def _ours(mapping: Mapping[str, object], at: Place) -> Iterator[Reader]:
    rule = {"name": "load", "url": at.broker.url, "topics": [at.topic], "group": "load", **mapping}
    rule["settings"] = {"session.timeout.ms": SESSION_MS, **at.settings}
    path = at.folder / f"{at.topic}.toml"
    path.write_text("[[sources]]\n" + "".join(f"{k} = {_toml(v)}\n" for k, v in rule.items()))
    with Server(at.cpu, ["--config", str(path)]) as server:
        yield Reader(server, server.url)


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        members = (f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items())
        return "{ " + ", ".join(members) + " }"
    return json.dumps(value)


def _plain(at: Place) -> Peer:
    return Peer(
        name="plain",
        title="aiokafka, sse-starlette, uvicorn",
        command=lambda folder: [
            *(sys.executable, "-m", "bench.sources.plain_app", at.broker.servers, at.topic)
        ],
        install=PYTHON_PACKAGES,
        settings="uvloop and httptools, no access log, batches of 1,000, a queue a client",
        missing=lacks_modules("aiokafka", "sse_starlette", "uvicorn"),
        versions=versions_of("aiokafka", "sse-starlette", "uvicorn"),
    )


def _centrifugo(at: Place) -> Peer:
    """As bench/peers has it, with a consumer of Kafka."""
    kafka = {
        "brokers": [at.broker.servers],
        "topics": [at.topic],
        "consumer_group": "load",
        "publication_data_mode": {"enabled": True, "channels_header": CHANNELS},
    }
    consumer = {"enabled": True, "name": "load", "type": "kafka", "kafka": kafka}
    path = at.folder / "consumers.json"
    path.write_text(json.dumps({"consumers": [consumer]}))
    return dataclasses.replace(
        CENTRIFUGO,
        command=lambda directory: [*CENTRIFUGO.command(directory), str(path)],
    )
