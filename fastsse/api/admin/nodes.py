"""`GET /admin/nodes`: the workers of all nodes, with what they hold and use."""

from fastsse.control.gather import Gathered

__all__ = ["merged_nodes"]


def merged_nodes(gathered: Gathered) -> object:
    """The answers of all workers, by node. `missing` names workers and nodes that did not
    answer."""
    rows = [
        {"node": node, "worker": worker, **row}
        for node, worker, row in gathered.answers
        if row is not None
    ]
    return {"workers": rows, "missing": gathered.missing}
