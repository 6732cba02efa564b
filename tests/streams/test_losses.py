"""An older file in the place of another has its own durable streams; losses are kept apart."""

import shutil
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from fastsse.backbone.sqlite.losses import ANYTHING, LOSSES_MAX, lost_from, note_loss
from fastsse.backbone.sqlite.schema import open_writing
from tests.http.conftest import Start, asked
from tests.http.raw import until
from tests.streams.test_protocol import CLOSED, TEXT, content, created


async def test_an_older_file_in_its_place_has_its_own_streams(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastsse.backbone.sqlite.writer.AGAIN_S", 2.0)
    path, copy = tmp_path / "h.db", tmp_path / "copy"
    server = await start(store=f"sqlite:{path}")
    ask = partial(asked, server)
    for name in ("kept", "deleted", "closed"):
        await created(ask, f"/streams/{name}", body=b"old ")
    await server.close()
    shutil.copy(path, copy)
    server = await start(store=f"sqlite:{path}")
    ask = partial(asked, server)
    await created(ask, "/streams/new", body=b"x")
    await ask("POST", "/streams/kept", TEXT, body=b"lost")
    await ask("POST", "/streams/closed", CLOSED)
    assert (await ask("DELETE", "/streams/deleted")).status == 204
    path.rename(tmp_path / "away")
    assert (await ask("POST", "/streams/kept", TEXT, body=b"refused")).status == 503
    backbone = server._worker._hub._backbone
    # It tries again at once, and then after 2 s: the files are exchanged between.
    await until(lambda: backbone.counters()["store_failures"] >= 2)
    for ending in ("-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)
    copy.rename(path)
    await until(lambda: backbone.trouble is None)
    assert set(backbone.streams.rows) == {"kept", "deleted", "closed"}
    assert (await ask("GET", "/streams/new")).status == 404
    await created(ask, "/streams/new", body=b"again")
    for name in ("kept", "deleted", "closed"):
        if name != "deleted":  # Its content may have been removed before.
            assert await content(ask, f"/streams/{name}") == b"old "
        assert (await ask("POST", f"/streams/{name}", TEXT, body=b"new")).status == 204
        offset = (await ask("HEAD", f"/streams/{name}")).headers["stream-next-offset"]
        assert await content(ask, f"/streams/{name}", offset) == b""


def test_losses_are_kept_apart_and_bounded(tmp_path: Path) -> None:
    with closing(open_writing(str(tmp_path / "h.db"), 1)) as connection:
        for n in range(1, 1_001):
            note_loss(connection, n * 10, n * 10 + 5)
        (count,) = connection.execute("SELECT count(*) FROM loss").fetchone()
        assert count == LOSSES_MAX
        assert [lost_from(connection, place) for place in (10_000, 10_001, 10_004)] == [
            0,
            10_005,
            10_005,
        ]
        assert [lost_from(connection, place) for place in (10_005, 9_995, 9_993)] == [0, 0, 9_995]
        assert lost_from(connection, 0) == 0
        note_loss(connection, ANYTHING, 9_997)
        assert [lost_from(connection, place) for place in (0, 9_996, 9_997, 10_003)] == [
            9_997,
            9_997,
            0,
            10_005,
        ]
        note_loss(connection, ANYTHING, 20_000)
        assert connection.execute("SELECT * FROM loss").fetchall() == [(20_000, ANYTHING)]
