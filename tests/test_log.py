"""Logs stay one line a record, readable, and cheap, whatever strangers put into them."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastsse import log
from fastsse.config import Config
from fastsse.log import AccessLog, configure, escape, get_logger

Read = Callable[[], list[str]]


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("fastsse")
    before = root.handlers, root.level, ours.level
    yield
    root.handlers, root.level = before[:2]
    root.setLevel(before[1])
    ours.setLevel(before[2])


def configured(**options: Any) -> io.StringIO:
    stream = io.StringIO()
    configure(Config(**options), stream)
    return stream


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_json_is_one_object_a_line_away_from_a_terminal() -> None:
    stream = configured()
    get_logger("server").info("Hello.", topic="news", count=3)
    record = json.loads(stream.getvalue())
    assert record["event"] == "Hello."
    assert record["level"] == "info"
    assert (record["topic"], record["count"]) == ("news", 3)
    assert record["time"].endswith("Z")


def test_console_is_chosen_on_a_terminal_with_colours_unless_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    configure(Config(), stream)
    get_logger("server").info("Hello.")
    assert "\x1b[" in stream.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    configure(Config(), stream)
    get_logger("server").info("Hello.", topic="news")
    assert "\x1b" not in stream.getvalue()
    assert stream.getvalue().endswith("Hello. topic=news\n")


def test_several_workers_say_each_which_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_of_process", {})
    stream = configured()
    get_logger("access").info("Stream opened.", stream=7)
    log.name_worker(3)
    get_logger("access").info("Stream opened.", stream=7)
    get_logger("server").info("Gone.", worker=4)
    alone, one, other = map(json.loads, stream.getvalue().splitlines())
    assert "worker" not in alone
    assert (one["worker"], one["stream"], other["worker"]) == (3, 7, 4)


@settings(suppress_health_check=list(HealthCheck))
@given(st.text(), st.sampled_from(["console", "json"]))
def test_any_value_stays_inside_its_line(text: str, log_format: str) -> None:
    stream = configured(log_format=log_format)
    get_logger("server").info(text, topic=text, topics=[text])
    logging.getLogger("other").error("%s", text)
    lines = stream.getvalue()
    assert lines.count("\n") == 2
    assert lines.replace("\n", "").isprintable()


@given(st.text(max_size=900))
def test_json_value_is_read_back_unchanged(text: str) -> None:
    stream = configured(log_format="json")
    get_logger("server").info("Hello.", topic=text)
    assert json.loads(stream.getvalue())["topic"] == text


@pytest.mark.parametrize(
    "forged", ["x level=error", 'x" level="error', "x\r\nlevel=error", "\x1b[2K\x1b[1A", "\x9b2J"]
)
def test_console_value_cannot_forge_a_field_or_steer_a_terminal(forged: str) -> None:
    stream = configured(log_format="console")
    get_logger("server").info("Hello.", topic=forged)
    assert stream.getvalue().endswith(f"topic={forged!r}\n")


def test_long_values_are_cut() -> None:
    stream = configured(log_format="json")
    get_logger("server").info("Hello.", topic="x" * 100_000)
    assert len(stream.getvalue()) < 1200


def test_expected_error_has_no_traceback_and_an_unexpected_one_has() -> None:
    stream = configured(log_format="console")
    log = get_logger("server")
    log.error("Port 8080 is in use. Choose another with --port.")
    assert "Traceback" not in stream.getvalue()
    try:
        raise ZeroDivisionError("\x1b[31m\nfake line")
    except ZeroDivisionError:
        log.exception("Unexpected.")
    after = stream.getvalue().split("Unexpected.")[1]
    assert "Traceback" in after
    assert "\x1b" not in after
    assert all(line.startswith("  | ") for line in after.split("\n")[1:-1])


def test_level_is_kept_and_other_libraries_speak_from_warning_on() -> None:
    stream = configured(log_level="warning")
    get_logger("server").info("no")
    get_logger("server").warning("yes")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["yes"]
    stream = configured(log_level="debug")
    logging.getLogger("httpx").info("no")
    logging.getLogger("asyncio").warning("yes")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["yes"]


def test_reader_that_is_gone_disturbs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    stream = configured()
    stream.close()
    get_logger("server").error("This is not written.")
    assert capsys.readouterr().err == ""


def test_library_use_leaves_the_host_in_charge(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    get_logger("server").info("Hello.", topic="news")
    [record] = caplog.records
    assert (record.name, record.getMessage()) == ("fastsse.server", "Hello.")
    assert vars(record)["topic"] == "news"


def access(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_access_lines_tell_how_a_stream_began_and_ended() -> None:
    stream = configured()
    log = AccessLog(Config())
    log.opened(7, "127.0.0.1:5", ["a"] * 12)
    log.closed(7, "lagged", 1.23456, 4, 500)
    log.published("127.0.0.1:5", 1, 10, 200)
    opened, closed = access(stream)
    assert (opened["stream"], opened["client"]) == (7, "127.0.0.1:5")
    assert (len(opened["topics"]), opened["more_topics"]) == (10, 2)
    assert closed["reason"] == "lagged"
    assert (closed["duration_s"], closed["events"], closed["bytes"]) == (1.235, 4, 500)


def test_publishes_are_logged_at_debug() -> None:
    stream = configured(log_level="debug")
    log = AccessLog(Config(log_level="debug"))
    assert log.logs_publishes
    log.published("127.0.0.1:5", 2, 10, 200)
    assert access(stream)[0]["events"] == 2


def test_lines_over_the_limit_are_counted_in_one() -> None:
    stream = configured()
    log = AccessLog(Config(access_lines=3))
    for number in range(10):
        log.closed(number, "reset", 0, 0, 0)
    log.opened(1, "x", [])
    assert len(access(stream)) == 3
    log.tick()
    assert access(stream)[3]["event"] == "Access lines were omitted."
    assert (access(stream)[3]["closed"], access(stream)[3]["opened"]) == (7, 1)
    log.tick()
    assert len(access(stream)) == 4
    log.closed(1, "reset", 0, 0, 0)
    assert len(access(stream)) == 5


def test_above_info_nothing_is_written_or_counted() -> None:
    stream = configured(log_level="warning")
    log = AccessLog(Config(log_level="warning"))
    log.opened(1, "x", [])
    log.closed(1, "reset", 0, 0, 0)
    log.tick()
    assert stream.getvalue() == ""


def test_escape_leaves_readable_text_alone() -> None:
    assert escape("Grüße, 世界") == "Grüße, 世界"
    assert escape("a\nb\x1b\u2028\x85") == "a\\nb\\x1b\\u2028\\x85"
