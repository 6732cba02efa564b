"""The rows of all streams at one node: what Redis says and what the log says, in any order."""

import asyncio

from fastsse.backbone.redis.followed_rows import FollowedRows
from fastsse.backbone.stream_expiry import control_event
from fastsse.directives import END, Directives
from fastsse.entries import Entry, encode_entries
from fastsse.events import Event
from fastsse.positions import position_at
from fastsse.redis.errors import AnswerLost
from fastsse.streamstate import StreamConfig, StreamControl, StreamRow

CONFIG = StreamConfig("text/plain")


def at(n: int) -> int:
    return position_at(1000 + n)


def entry(n: int, event: Event) -> Entry:
    return encode_entries([at(n)], [event], 1000)[0]


def content(n: int, topic: str = "a") -> Entry:
    return entry(n, Event(topic, "x"))


def created(n: int, topic: str = "a") -> Entry:
    return entry(n, control_event(topic, StreamControl("create", CONFIG), 0))


def dropped(n: int, topic: str = "a") -> Entry:
    return entry(n, control_event(topic, StreamControl("drop"), 0))


def row(generation: int, tail: int) -> StreamRow:
    return StreamRow(at(generation), CONFIG, at(tail))


class Stored:
    """Rows in Redis, in pages of one."""

    def __init__(self, **rows: StreamRow) -> None:
        self.rows = rows
        self.faults = 0
        self.between: list[Entry] = []
        self.followed = FollowedRows(self.some, self.catch_up)

    async def some(self, cursor: bytes, count: int) -> tuple[bytes, dict[str, StreamRow]]:
        if self.faults:
            self.faults -= 1
            raise AnswerLost("away")
        await asyncio.sleep(0)
        self.followed.note(self.between)
        self.between = []
        pairs, number = list(self.rows.items()), int(cursor)
        after = number + 1 if number + 1 < len(pairs) else 0
        return b"%d" % after, dict(pairs[number : number + 1])

    async def catch_up(self) -> bool:
        return True


async def test_rows_that_are_ahead_of_the_log_never_go_back() -> None:
    stored = Stored(a=row(5, 9), b=row(1, 1))
    await stored.followed.load()
    assert stored.followed.rows == stored.rows
    stored.followed.note([created(3), dropped(4), created(5), content(6), content(9)])
    assert stored.followed.rows == stored.rows
    stored.followed.note([content(10)])
    assert stored.followed.rows["a"].tail == at(10)
    stored.followed.note([entry(11, Event("a", "", directives=Directives(control=END)))])
    assert stored.followed.rows["a"].tail == at(10)
    stored.followed.note([dropped(12)])
    assert "a" not in stored.followed.rows


async def test_what_the_log_brings_while_rows_are_read_is_not_lost() -> None:
    stored = Stored(a=row(1, 2), b=row(1, 1), c=row(1, 1))
    stored.between = [content(3), created(4, "new"), dropped(5, "c")]
    changed: list[str] = []
    stored.followed.on_changed = lambda topic, _: changed.append(topic)
    await stored.followed.load()
    rows = stored.followed.rows
    assert sorted(rows) == ["a", "b", "new"]
    assert (rows["a"].tail, rows["new"].generation) == (at(3), at(4))
    assert set(changed) == {"a", "b", "c", "new"}


async def test_rows_are_read_again_after_a_fault_and_differences_are_reported() -> None:
    stored = Stored(a=row(1, 2), b=row(1, 1))
    stored.faults = 2
    await stored.followed.load()
    changed: list[tuple[str, StreamRow | None]] = []
    stored.followed.on_changed = lambda topic, row: changed.append((topic, row))
    stored.rows = {"b": row(1, 7)}
    await stored.followed.load()
    assert sorted(changed, key=lambda pair: pair[0]) == [("a", None), ("b", row(1, 7))]


async def test_nothing_is_kept_of_the_log_before_rows_are_asked_for_and_after() -> None:
    stored = Stored(a=row(1, 2))
    followed = stored.followed
    followed.note([created(3, "b")])
    assert (followed.rows, followed.is_followed) == ({}, False)
    loading = asyncio.create_task(followed.load())
    await asyncio.sleep(0)
    followed.forget()
    await loading
    followed.note([created(3, "b")])
    assert (followed.rows, followed.is_loaded) == ({}, False)
