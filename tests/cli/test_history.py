"""`fastsse history check|repair|export|import|trim` on real files."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from fastsse.cli import main
from fastsse.config import Config
from fastsse.entries import Entry
from fastsse.events import Event
from fastsse.positions import format_position, parse_position
from tests.backbone.storage import Clock, abandon, opened
from tests.hub.backbone_contract import EVERY_FIELD, START_MS, same

Captured = pytest.CaptureFixture[str]
EVERYTHING = Config(history_age="3650d")
EVENTS = (
    EVERY_FIELD,
    Event("a", "three\rlines\r\nhere\n"),
    Event("b", "", id_style="uuid"),
    Event("é", "\0 : x", event="message"),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


async def filled(path: Path, *events: Event, clock: Clock | None = None) -> list[Entry]:
    async with opened(path, EVERYTHING, now_ms=clock or Clock()) as tail:
        await tail.append(*events)
        return list(tail.entries)


def exported(path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> bytes:
    capfdbinary.readouterr()
    assert main(["history", "export", str(path)]) == 0
    return capfdbinary.readouterr().out


async def test_an_export_has_every_field_and_an_import_brings_all_of_it_back(
    path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    entries = await filled(path, *EVENTS)
    lines = exported(path, capfdbinary)
    (first,) = (json.loads(line) for line in lines.splitlines() if b'"mine"' in line)
    assert first == {
        "position": format_position(entries[0].position).decode(),
        "topics": ["a", "b"],
        "id": "mine",
        "event": "tick",
        "retry": 2500,
        "private": True,
        "id_style": "position",
        "data": '{"n":\n1}',
        "data_kind": "json",
        "meta": {"tenant": "acmé", "level": 3, "share": 0.5, "test": False},
    }
    source, other = path.with_name("lines"), path.with_name("other.db")
    source.write_bytes(lines)
    for expected in (b"4 events imported, 0 were", b"0 events imported, 4 were"):
        assert main(["history", "import", "--complete", str(other), str(source)]) == 0
        assert expected in capfdbinary.readouterr().err
    assert exported(other, capfdbinary).splitlines()[1:] == lines.splitlines()[1:]
    async with opened(other, EVERYTHING) as tail:
        found = await tail.read_all(("*",), 0, 1 << 20)
        assert len(found) == len(entries)
        assert all(map(same, found, entries))
        # What was evicted of the one was evicted of the other, and nothing more.
        assert (await tail.read(("a",), 0)).evicted_through < entries[0].position


async def test_an_import_never_moves_positions_back(
    path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    ahead = Clock()
    ahead.ms += 86_400_000
    (late,) = await filled(path, Event("a", "late"), clock=ahead)
    source, other = path.with_name("lines"), path.with_name("other.db")
    source.write_bytes(exported(path, capfdbinary))
    (early,) = await filled(other, Event("a", "early"))
    assert main(["history", "import", str(other), str(source)]) == 0
    async with opened(other, EVERYTHING) as tail:
        (position,) = await tail.append(Event("a"))
        assert early.position < late.position < position
    source.write_bytes(exported(other, capfdbinary))
    assert main(["history", "import", str(path), str(source)]) == 0
    (again,) = await filled(path, Event("a"))
    assert again.position > position


@pytest.mark.parametrize("is_repaired", [False, True], ids=["exported", "repaired"])
async def test_an_event_that_one_of_its_topics_evicted_does_not_come_back_to_it(
    path: Path, is_repaired: bool, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    await filled(path, Event(("user/7", "all"), "shared"), Event("user/7", "own"))
    trim = ["history", "trim", str(path), "--topic", "user/7", "--events", "0"]
    assert main(trim) == 0
    other = path
    if is_repaired:
        assert main(["history", "repair", str(path)]) == 0
    else:
        source, other = path.with_name("lines"), path.with_name("other.db")
        source.write_bytes(exported(path, capfdbinary))
        assert main(["history", "import", "--complete", str(other), str(source)]) == 0
    assert main(["history", "check", str(other)]) == 0
    async with opened(other, EVERYTHING) as tail:
        assert await tail.read_all(("user/7",), 0, 1 << 20) == []
        assert [entry.topics for entry in await tail.read_all(("all",), 0, 1 << 20)] == [
            ("user/7", "all")
        ]


async def test_an_import_gives_a_trimmed_file_back_only_what_was_not_evicted(
    path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    await filled(path, Event("user/7", "old"), Event(("user/7", "all"), "shared"))
    source = path.with_name("lines")
    source.write_bytes(exported(path, capfdbinary))
    # One of the two is still there, and the other gone for good.
    assert main(["history", "trim", str(path), "--topic", "user/7", "--events", "0"]) == 0
    capfdbinary.readouterr()
    assert main(["history", "import", str(path), str(source)]) == 0
    error = capfdbinary.readouterr().err
    assert error == b"0 events imported, 1 were there already, 1 evicted.\n"
    assert main(["history", "check", str(path)]) == 0
    async with opened(path, EVERYTHING) as tail:
        assert await tail.read_all(("user/7",), 0, 1 << 20) == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{", "it is not JSON"),
        (b"[]", "it is not an object of ours"),
        (b'{"position": "1-1", "topics": ["a"]}', "it has no 'data'"),
        (b'{"position": "1-1", "topics": "a", "data": "x", "more": 1}', "unknown field 'more'"),
        (b'{"position": 5, "topics": "a", "data": "x"}', "is no position"),
        (b'{"position": "1-0", "topics": "a", "data": "x"}', "is no position"),
        (b'{"position": "1-9999999", "topics": "a", "data": "x"}', "is no position"),
        (b'{"position": "9999999999999999-1", "topics": "a", "data": "x"}', "is no position"),
        (b'{"position": "1-1", "topics": "$a", "data": "x"}', "topic"),
        (b'{"position": "1-1", "topics": "a", "data": "x", "event": "a\\nb"}', "event"),
        (b'{"position": "1-1", "topics": "a", "data": "x", "id": "5-5"}', "id"),
        (b'{"position": "1-1", "topics": "a", "data": 5}', "data"),
        (b'{"fastsse_history": 99}', "of another version"),
    ],
)
def test_a_line_that_is_none_is_named(
    path: Path, line: bytes, words: str, capsys: Captured
) -> None:
    source = path.with_name("lines")
    source.write_bytes(b"\n" + line + b"\n")
    assert main(["history", "import", str(path), str(source)]) == 1
    error = capsys.readouterr().err
    assert f"History {path} can't take line 2: " in error
    assert words in error
    assert error.count("\n") == 1


async def test_another_event_at_the_same_position_is_not_overwritten(
    path: Path, capsys: Captured
) -> None:
    (entry,) = await filled(path, Event("a", "mine"))
    text = format_position(entry.position).decode()
    source = path.with_name("lines")
    source.write_text(json.dumps({"position": text, "topics": ["a"], "data": "another"}))
    assert main(["history", "import", str(path), str(source)]) == 1
    assert f"position {text} is another event's" in capsys.readouterr().err


async def test_lines_alone_make_a_file_that_begins_before_the_first(path: Path) -> None:
    source, text = path.with_name("lines"), f"{START_MS - 5_000}-1"
    source.write_text(json.dumps({"position": text, "topics": ["a"], "data": "x"}))
    assert main(["history", "import", "--complete", str(path), str(source)]) == 0
    async with opened(path, EVERYTHING) as tail:
        stretch = await tail.read(("a",), 0)
        position = parse_position(text)
        assert [entry.position for entry in stretch.entries] == [position]
        assert position is not None
        assert stretch.evicted_through < position


async def test_check_says_what_a_file_holds(path: Path, capsys: Captured) -> None:
    await filled(path, *EVENTS)
    assert main(["history", "check", str(path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("4 events of 3 topics")
    assert "all is well" in out
    async with opened(path, ack="received") as tail:
        await tail.append(Event("a"))
        assert main(["history", "check", str(path)]) == 0
        abandon(tail)
    assert "in use, or left by a process that was killed" in capsys.readouterr().out
    assert main(["history", "check", str(path)]) == 0
    assert "events may be missing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("DELETE FROM event WHERE place IN (SELECT min(place) FROM event)", "has no event"),
        ("DELETE FROM topic_event WHERE topic = 1", "does not count what it keeps"),
        ("UPDATE event SET record = x'00'", "can't be read"),
        ("UPDATE event SET own_id = x'00'", "is another one"),
        ("UPDATE state SET events = 9", "counts 9 events and holds 4"),
        ("UPDATE topic SET evicted_through = 1 << 62", "from before its eviction"),
        ("DELETE FROM topic", "has no name"),
    ],
)
async def test_check_finds_what_is_wrong(
    path: Path, damage: str, words: str, capsys: Captured
) -> None:
    await filled(path, *EVENTS)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(damage)
    assert main(["history", "check", str(path)]) == 1
    assert words in capsys.readouterr().err


async def test_repair_keeps_what_is_whole_and_says_what_is_lost(
    path: Path, capsys: Captured
) -> None:
    await filled(path, *EVENTS)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "UPDATE event SET record = x'00' WHERE place = (SELECT max(place) FROM event)"
        )
    assert main(["history", "export", str(path)]) == 1
    assert "history repair" in capsys.readouterr().err
    assert main(["history", "repair", str(path)]) == 0
    assert capsys.readouterr().err == (
        f"3 events kept, 1 is lost. The damaged file is {path}.damaged.\n"
    )
    assert main(["history", "check", str(path)]) == 0
    assert "1 lost: clients that resume across it receive a gap event" in capsys.readouterr().out
    assert main(["history", "repair", str(path.with_name("none.db"))]) == 1


async def test_trim_lets_the_oldest_go_and_tells_it(path: Path, capsys: Captured) -> None:
    entries = await filled(path, *(Event(["a", "b"][n % 2], str(n)) for n in range(20)))
    assert main(["history", "trim", str(path), "--events", "3", "--topic", "a"]) == 0
    assert "7 events evicted, 13 left." in capsys.readouterr().err
    assert main(["history", "trim", str(path), "--total", "1KiB", "--compact"]) == 0
    assert main(["history", "check", str(path)]) == 0
    async with opened(path, EVERYTHING) as tail:
        found = await tail.read_all(("*",), 0, 1 << 20)
        kept = [e.position for n, e in enumerate(entries) if n % 2 or n >= 14]
        assert 0 < len(found) < len(kept)
        assert [entry.position for entry in found] == kept[-len(found) :]
        assert (await tail.read(("a",), 0)).evicted_through == entries[12].position
    assert main(["history", "trim", str(path), "--age", "1d"]) == 0
    assert "0 left" in capsys.readouterr().err


def test_trim_without_a_bound_is_a_mistake(path: Path, capsys: Captured) -> None:
    assert main(["history", "trim", str(path)]) == 2
    assert main(["history", "trim", str(path), "--bytes", "many"]) == 2
    assert not path.exists()
    assert "Choose what to keep" in capsys.readouterr().err


async def test_what_changes_a_file_needs_it_alone(path: Path, capsys: Captured) -> None:
    async with opened(path) as tail:
        await tail.append(Event("a"))
        for arguments in (["trim", str(path), "--events", "0"], ["import", str(path), "/dev/null"]):
            assert main(["history", *arguments]) == 1
            assert "is in use by another server" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["check", "export"])
def test_what_is_not_there_is_not_made(path: Path, command: str, capsys: Captured) -> None:
    assert main(["history", command, str(path)]) == 1
    assert capsys.readouterr().err == f"History {path} is not there.\n"
    assert not path.exists()


@pytest.mark.parametrize("command", [["check"], ["export"], ["trim", "--events", "1"]])
def test_a_file_in_a_folder_that_is_not_there_is_not_there(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (tmp_path / "missing" / "x.db", tmp_path / "x.db"):
        assert main(["history", command[0], str(path), *command[1:]]) == 1
        assert capsys.readouterr().err == f"History {path} is not there.\n"
        assert not path.exists()
