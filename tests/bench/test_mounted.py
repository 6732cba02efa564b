"""The benchmark of streams inside an ASGI application runs: small, its figures mean nothing."""

from bench.mounted import MOUNT, PEERS
from bench.mounted.__main__ import DELIVERY, IDLE, OPENED, REQUEST, measure, shown
from bench.peers.cases import Run


def test_each_server_delivers_opens_and_holds_streams() -> None:
    found = measure(Run(quick=True), rounds=1)
    for peer in PEERS:
        assert {DELIVERY, OPENED, IDLE} <= found[peer.name].keys()
    assert REQUEST in found[MOUNT.name]
    text = "\n".join(shown(found))
    assert "hand-over" in text
    assert all(peer.title in text for peer in PEERS)
