"""All that is known of durable streams in a file outlives `kill -9` of every process, at once after
the last answer."""

import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import httpx
import pytest

from tests.supervisor.service import Service

STREAMS = 40
TEXT = {"Content-Type": "text/plain"}


async def heads(client: httpx.AsyncClient, url: str) -> Sequence[dict[str, str]]:
    """What HEAD says of each stream."""
    answers = [await client.head(f"{url}/streams/s{n}") for n in range(STREAMS)]
    assert {answer.status_code for answer in answers} == {200}
    return [
        {name: text for name, text in answer.headers.items() if name.startswith("stream-")}
        for answer in answers
    ]


async def fill(client: httpx.AsyncClient, url: str) -> None:
    for n in range(STREAMS):
        expiry = {"Stream-TTL": "600"} if n % 5 == 0 else {}
        stream = f"{url}/streams/s{n}"
        assert (await client.put(stream, headers=TEXT | expiry)).status_code == 201
    for turn in range(3):
        for n in range(STREAMS):
            more = {}
            if n % 3 == 0:
                more = {"Producer-Id": "p", "Producer-Epoch": "1", "Producer-Seq": str(turn)}
            if n % 3 == 1:
                more = {"Stream-Seq": f"{turn:03}"}
            if n % 4 == 0 and turn == 2:
                more["Stream-Closed"] = "true"
            head = TEXT | more
            answer = await client.post(
                f"{url}/streams/s{n}", content=f"{turn} of {n};", headers=head
            )
            assert answer.status_code in (200, 204)


@pytest.mark.parametrize("workers", [1, 2])
async def test_heads_ends_producers_and_sequences_are_the_same_after_a_kill(
    serve: Callable[..., Awaitable[Service]], tmp_path: Path, workers: int
) -> None:
    options = ("--store", f"sqlite:{tmp_path}/h.db", "--workers", str(workers))
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        service = await serve(*options)
        await fill(client, service.url)
        before = await heads(client, service.url)
        # The process that has the file first, so that it writes nothing after its last answer.
        for pid in (*service.children()["hub"], service.process.pid):
            os.kill(pid, signal.SIGKILL)
        await service.ended()
        service = await serve(*options)
        assert await heads(client, service.url) == before
        await check_contents(client, service.url)


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_repeat_of_the_append_that_closed_a_stream_is_answered_after_a_kill(
    serve: Callable[..., Awaitable[Service]], tmp_path: Path, workers: int
) -> None:
    options = ("--store", f"sqlite:{tmp_path}/h.db", "--workers", str(workers))
    head = TEXT | {"Producer-Id": "p", "Producer-Epoch": "0", "Producer-Seq": "0"}
    head["Stream-Closed"] = "true"
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        service = await serve(*options)
        stream = f"{service.url}/streams/s"
        assert (await client.put(stream, headers=TEXT)).status_code == 201
        assert (await client.post(stream, content="all", headers=head)).status_code == 200
        for pid in (*service.children()["hub"], service.process.pid):
            os.kill(pid, signal.SIGKILL)
        await service.ended()
        # Nothing was published by the new processes.
        service = await serve(*options)
        stream = f"{service.url}/streams/s"
        for _ in range(2):
            again = await client.post(stream, content="all", headers=head)
            assert (again.status_code, again.headers["stream-closed"]) == (204, "true")
        assert (await client.get(stream)).text == "all"


async def check_contents(client: httpx.AsyncClient, url: str) -> None:
    for n in range(STREAMS):
        stream = f"{url}/streams/s{n}"
        read = await client.get(f"{stream}?offset=-1")
        assert read.text == f"0 of {n};1 of {n};2 of {n};"
        if n % 3 == 0:
            more = {"Producer-Id": "p", "Producer-Epoch": "1", "Producer-Seq": "2"}
            again = await client.post(stream, content=f"2 of {n};", headers=TEXT | more)
            assert (again.status_code, again.headers["producer-seq"]) == (204, "2")
        elif n % 3 == 1 and n % 4:
            late = await client.post(stream, content="x", headers=TEXT | {"Stream-Seq": "002"})
            assert late.status_code == 409
        if n % 4 == 0:
            assert (await client.post(stream, content="x", headers=TEXT)).status_code == 409
        assert (await client.get(f"{stream}?offset=-1")).text == read.text
