"""A stream that is created again under the name of one that was deleted shares nothing with it."""

from functools import partial
from pathlib import Path

import pytest

from tests.http.conftest import Start, asked
from tests.streams.test_protocol import CLOSED, TEXT, content, created, producer


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_producers_offsets_and_etags_of_a_deleted_stream_mean_nothing_in_the_next(
    start: Start, tmp_path: Path, store: str
) -> None:
    options = {} if store == "memory" else {"store": f"sqlite:{tmp_path}/h.db"}
    server = await start(**options)
    ask = partial(asked, server)
    for turn in (b"one", b"two"):
        await created(ask, "/streams/s")
        for n in range(3):
            answer = await ask("POST", "/streams/s", TEXT, *producer(n), body=b"%b%d " % (turn, n))
            assert answer.status == 200
            again = await ask("POST", "/streams/s", TEXT, *producer(n), body=b"%b%d " % (turn, n))
            assert again.status == 204
        seq = ("Stream-Seq: 5",)
        assert (await ask("POST", "/streams/s", TEXT, *seq, body=b"end")).status == 204
        page = await ask("GET", "/streams/s?offset=-1")
        assert page.body == b"%b0 %b1 %b2 end" % (turn, turn, turn)
        etag = f"If-None-Match: {page.headers['etag']}"
        assert (await ask("GET", "/streams/s?offset=-1", etag)).status == 304
        assert (await ask("POST", "/streams/s", CLOSED, *producer(3))).status in (200, 204)
        assert (await ask("DELETE", "/streams/s")).status == 204
        assert (await ask("GET", "/streams/s?offset=-1", etag)).status == 404
        await created(ask, "/streams/s", body=b"between")
        assert (await ask("GET", "/streams/s?offset=-1", etag)).status == 200
        assert await content(ask, "/streams/s") == b"between"
        assert (await ask("DELETE", "/streams/s")).status == 204
