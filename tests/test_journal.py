"""Records reach systemd's journal by its native protocol, whole, and never block the server."""

import array
import io
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastsse.config import Config
from fastsse.journal import JournalHandler, encode_fields
from fastsse.log import configure, get_logger
from tests.test_log import _logging_as_before  # noqa: F401


def decoded(message: bytes) -> dict[str, str]:
    """The fields of a message, as the journal reads them."""
    fields = {}
    while message:
        line, _, rest = message.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            length = int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + length], rest[8 + length :]
            assert rest[:1] == b"\n"
            rest = rest[1:]
        assert name.decode() not in fields
        fields[name.decode()] = value.decode()
        message = rest
    return fields


class Journal:
    """A socket like that of the journal."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.settimeout(10)

    def read(self) -> dict[str, str]:
        """The next record, in the message or in a file."""
        message, ancillary, *_ = self._socket.recvmsg(1 << 20, 64)
        for _, kind, content in ancillary:
            assert kind == socket.SCM_RIGHTS
            (file,) = array.array("i", content)
            with open(file, "rb") as memory:
                memory.seek(0)
                message = memory.read()
        return decoded(message)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    one = Journal(tmp_path / "socket")
    yield one
    one.close()
    for handler in logging.getLogger().handlers:
        if isinstance(handler, JournalHandler):
            handler.close()


def test_each_field_is_one_of_the_journal(journal: Journal) -> None:
    configure(Config(log_format="journal"), io.StringIO(), journal.path)
    get_logger("access").warning(
        "Request refused.", trace_id="a" * 32, span_id="b" * 16, request_id="r-1", stream="7",
        status=401, topics=["x", "y"],
    )  # fmt: skip
    found = journal.read()
    assert found.pop("LOGGER", "fastsse.access") == "fastsse.access"
    assert found == {
        "MESSAGE": "Request refused.", "PRIORITY": "4", "SYSLOG_IDENTIFIER": "fastsse",
        "TRACE_ID": "a" * 32, "SPAN_ID": "b" * 16, "REQUEST_ID": "r-1", "STREAM": "7",
        "STATUS": "401", "TOPICS": '["x", "y"]',
    }  # fmt: skip


def test_values_of_strangers_make_no_field(journal: Journal) -> None:
    configure(Config(log_format="journal"), io.StringIO(), journal.path)
    get_logger("access").error("a\nPRIORITY=0\n", client="x\nSTREAM=9\n\x00\ud800")
    found = journal.read()
    assert found["PRIORITY"] == "3"
    assert "STREAM" not in found
    assert "PRIORITY=0" in found["MESSAGE"]
    try:
        raise ValueError("why")
    except ValueError:
        get_logger("server").exception("It failed.")
    assert "ValueError: why" in journal.read()["EXCEPTION"]


def test_a_long_record_comes_in_a_file(journal: Journal) -> None:
    configure(Config(log_format="journal"), io.StringIO(), journal.path)
    get_logger("server").info("Long.", values=["x" * 900] * 400)
    assert len(journal.read()["VALUES"]) > 360_000


def test_a_journal_that_takes_nothing_blocks_nothing_and_is_counted(journal: Journal) -> None:
    configure(Config(log_format="journal"), io.StringIO(), journal.path)
    for number in range(5000):
        get_logger("server").info("Line.", number=number)
    numbers = [int(journal.read()["NUMBER"])]
    get_logger("server").info("Line.", number=5000)
    while (found := journal.read())["NUMBER"] != "5000":
        numbers.append(int(found["NUMBER"]))
    assert numbers == list(range(len(numbers)))
    assert int(found["DROPPED_RECORDS"]) == 5000 - len(numbers) > 0


def test_without_a_journal_lines_go_to_standard_error(tmp_path: Path) -> None:
    stream = io.StringIO()
    configure(Config(log_format="journal"), stream, str(tmp_path / "none"))
    assert "The journal can't be reached." in stream.getvalue()
    get_logger("server").info("Here.")
    assert "Here." in stream.getvalue()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "shown"), [("_pid", "PID"), ("a-b", "A_B"), ("7", "FIELD_7"), ("x" * 99, "X" * 64)]
)
def test_a_name_is_one_that_the_journal_takes(name: str, shown: str) -> None:
    assert decoded(encode_fields({"event": "x", name: "v"}))[shown] == "v"
