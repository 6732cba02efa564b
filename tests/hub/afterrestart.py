"""Nodes that were started again on their disk, and what streams got of them."""

import json

from tests.hub.onenode import Client, MakeNode, Node

PAGE_BYTES = 2000
BIG = "x" * (PAGE_BYTES // 4 - 50)


def reasons(client: Client) -> list[str]:
    return [json.loads(gap.data)["reason"] for gap in client.gaps]


def words(client: Client) -> list[str]:
    return [data.partition(" ")[0] for data in client.data]


def restarted(make_node: MakeNode, before: Node, **options: object) -> Node:
    """A new node on the same disk."""
    return make_node(now_ms=before.now_ms + 5000, disk=before.store.disk, **options)


def read_until(node: Node, client: Client, last: str) -> list[str]:
    node.run_until(lambda: words(client)[-1:] == [last])
    return words(client)
