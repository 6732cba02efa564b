"""Patterns of stream paths."""

import time

import pytest

from fastsse.errors import BadRequest
from fastsse.wakes.globs import compile_glob


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("events/*", ["events/a", "events/a.b"], ["events", "events/", "events/a/b", "xevents/a"]),
        ("events/**", ["events", "events/a", "events/a/b"], ["event", "events2", "xevents/a"]),
        ("**/log", ["log", "a/log", "a/b/log"], ["alog", "a/logs"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["ab", "a/xb"]),
        ("**", ["a", "a/b"], [""]),
        ("run-*/out", ["run-1/out", "run-/out"], ["run-1/2/out", "run/out"]),
        ("a.c", ["a.c"], ["abc"]),
    ],
)
def test_a_pattern_matches_whole_paths(pattern: str, yes: list[str], no: list[str]) -> None:
    glob = compile_glob(pattern)
    assert [path for path in yes if not glob.fullmatch(path)] == []
    assert [path for path in no if glob.fullmatch(path)] == []


@pytest.mark.parametrize("pattern", ["", "a//b", "a**", "*" * 7, "x" * 257, None, 1, "a/"])
def test_a_pattern_that_can_not_be_is_refused(pattern: object) -> None:
    with pytest.raises(BadRequest):
        compile_glob(pattern)


@pytest.mark.parametrize("pattern", ["**/*a*/**/b", "*a*a*a*a*a*", "**/**/**"])
def test_no_pattern_is_slow(pattern: str) -> None:
    glob = compile_glob(pattern)
    began_s = time.process_time()
    for path in ("a/" * 500 + "c", "a" * 1000):
        glob.fullmatch(path)
    assert time.process_time() - began_s < 30
