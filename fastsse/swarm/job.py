"""The order to a run's leader: one line of JSON, and how the shared memory is divided."""

from __future__ import annotations

import base64
import json
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from fastsse.swarm._swarm import BLOCK_BYTES
from fastsse.swarm.plan import Share

STRIDE_BYTES = -(-BLOCK_BYTES // mmap.PAGESIZE) * mmap.PAGESIZE
"""One process's part of the shared memory; no two write to the same page."""


def encode_job(memory_fd: int, shares: Sequence[Share], cpus: Sequence[int]) -> bytes:
    """The line for `decode_job`: shared memory, what each process does, cores to use."""
    job = {"memory_fd": memory_fd, "cpus": list(cpus), "shares": [asdict(s) for s in shares]}
    return json.dumps(job, default=_bytes_to_text).encode() + b"\n"


def _bytes_to_text(value: object) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(type(value).__name__)


def _share_of(values: Mapping[str, Any]) -> dict[str, Any]:
    share = {field.name: values[field.name] for field in fields(Share)}
    share["target"] = base64.b64decode(share["target"])
    share["sources"] = [base64.b64decode(source) for source in share["sources"]]
    share["request"] = [(base64.b64decode(text), number) for text, number in share["request"]]
    return share


def decode_job(line: bytes) -> tuple[int, list[dict[str, Any]], list[int]]:
    """The descriptor of the shared memory, the arguments of each process's Swarm, the cores."""
    job = json.loads(line)
    return job["memory_fd"], [_share_of(values) for values in job["shares"]], job["cpus"]
