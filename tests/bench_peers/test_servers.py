"""Each installed peer is a server that the swarm reads: whatever is published arrives once."""

import os
import time
from typing import Any

import pytest

from bench.peers.catalogue import PEERS
from bench.peers.peer import Peer
from bench.peers.process import PeerServer
from fastsse.swarm import Crew, OpenLoop, Plan, Schedule


def installed(peer: Peer) -> Any:
    """A parameter; its test is skipped with what would install the peer."""
    missing = peer.missing()
    reason = f"no {missing} here: {peer.install}"
    return pytest.param(peer, id=peer.name, marks=pytest.mark.skipif(bool(missing), reason=reason))


each_peer = pytest.mark.parametrize("peer", [installed(peer) for peer in PEERS.values()])


def wait_for_stamped(crew: Crew, count: int) -> None:
    """Some peers answer a connect with an event of their own, which may come late."""
    deadline = time.monotonic() + 60
    while crew.figures()["stamped"] < count and time.monotonic() < deadline:
        time.sleep(0.01)


@each_peer
def test_delivers_every_event_once_to_each_subscriber_of_its_topic(peer: Peer) -> None:
    with PeerServer(peer) as server:
        news, rest = (peer.stream_url(server.url, topic) for topic in ("news", "other"))
        plan = Plan(url=news, connections=5, topics=("news",))
        other = Plan(url=rest, connections=2, topics=("other",))
        with Crew(plan) as crew, Crew(other) as others:
            assert crew.wait_until_settled(60)
            assert others.wait_until_settled(60)
            schedule = Schedule(
                url=peer.publish_url(server.url, "news"),
                topics=("news",),
                headers=peer.headers,
                envelope=peer.envelope("news"),
                rate=200,
                duration_s=0.2,
                depth=8,
            )
            published = OpenLoop(schedule).run()
            assert published["events_accepted"] == 40
            wait_for_stamped(crew, 200)
            got, none = crew.figures(), others.figures()
    assert got["stamped"] == 200
    assert not any(got[fault] for fault in ("lost", "repeated", "late", "id_repeated"))
    assert none["stamped"] == 0


@each_peer
def test_leaves_no_process_behind(peer: Peer) -> None:
    with PeerServer(peer) as server:
        processes = server.process_ids()
        assert server.memory()["pss"] > 0
        assert server.cpu_us() >= 0
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
