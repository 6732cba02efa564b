"""Nodes for the hub's tests; each is stopped, whatever the test did."""

from collections.abc import Callable, Iterator

import pytest

from tests.hub.onenode import Node


@pytest.fixture
def make_node() -> Iterator[Callable[..., Node]]:
    nodes: list[Node] = []

    def make(*args: object, **kwargs: object) -> Node:
        nodes.append(Node(*args, **kwargs))  # type: ignore[arg-type]
        return nodes[-1]

    yield make
    for node in nodes:
        node.close()


@pytest.fixture
def node(make_node: Callable[..., Node]) -> Node:
    return make_node()
