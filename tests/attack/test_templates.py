"""Strangers bring templates; what those cost is their own affair."""

import tracemalloc

import pytest

from fastsse.hub import channels, time_budget
from fastsse.hub.channels import Channel, Channels
from tests.hub.conftest import make_node, node
from tests.hub.onenode import Node

__all__ = ["make_node", "node"]

TOPICS = 300


@pytest.fixture
def one_step_a_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_budget, "BURST_S", 0.0)
    monkeypatch.setattr(channels, "LOOKS_AT_ONCE", 0)


def join(node: Node, *selectors: str) -> Channel:
    return node.hub.channels.join(selectors, None)


@pytest.mark.usefixtures("one_step_a_sweep")
def test_a_client_with_one_template_does_not_wait_for_clients_with_hundreds(node: Node) -> None:
    for number in range(TOPICS):
        node.publish(f"topic/{number}", "x")
    crowd = [
        join(node, *(f"topic/{{a{who}b{number}}}" for number in range(50))) for who in range(10)
    ]
    honest = join(node, "topic/{id}")
    steps = 0
    while honest.waiting is not None:
        assert node.hub.channels._step()
        steps += 1
    assert steps <= (TOPICS // channels.LOOKS_A_STEP + 2) * (len(crowd) + 1)
    assert all(channel.waiting is not None for channel in crowd)
    for channel in (*crowd, honest):
        node.hub.channels.leave(channel)


@pytest.mark.usefixtures("one_step_a_sweep")
def test_a_topic_that_comes_or_goes_while_templates_look_is_not_missed(node: Node) -> None:
    for number in range(TOPICS):
        node.publish(f"topic/{number}", "x")
    channel = join(node, "topic/{id}")
    while channel.waiting is not None:
        node.publish(f"topic/new-{node.hub.history.events}", "x")
        node.hub.channels._step()
    wanted = channel.topics
    assert wanted is not None
    assert {topic.name for topic in wanted} == set(node.hub.topics.by_name)
    node.hub.channels.leave(channel)


def test_templates_that_match_everything_cost_a_bit_for_each_topic(node: Node) -> None:
    many = 4_000
    for number in range(many):
        node.hub.topics.intern(f"topic/{number}")
    made: list[Channel] = []
    assert bytes_kept(node.hub.channels, made, "topic/{warm}") > 0
    patterns = 10
    texts = [f"topic/{{v{number}}}" for number in range(patterns)]
    kept_bytes = bytes_kept(node.hub.channels, made, *texts)
    # Each has an automaton too; a table of topics would be half a million bytes.
    assert kept_bytes < patterns * (2 * many // 8 + 50_000)
    for channel in made:
        node.hub.channels.leave(channel)


def bytes_kept(channels: Channels, made: list[Channel], *texts: str) -> int:
    tracemalloc.start()
    try:
        made.append(channels.join(texts, None))
        while made[-1].waiting is not None:
            channels._step()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
