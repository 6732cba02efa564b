"""Patterns of stream paths."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@pytest.mark.parametrize(
    "pattern",
    [
        *("**/*a*/**/b", "*a*a*a*a*a*", "**/**/**", "**/**/**/x", "a*a*a*a*a*a*b"),
        *("**/a/**/a/**/b", "**/*a*b/*a*c", "**/" + "a/" * 120 + "b"),
    ],
)
def test_no_pattern_is_slow(pattern: str) -> None:
    glob = compile_glob(pattern)
    # Clients choose both. With choices that are taken back, some of these take years.
    for path in ("a/" * 500 + "c", "a" * 1000, ("a" * 30 + "/") * 33 + "a"):
        glob.fullmatch(path)


def _matches(pattern: list[str], path: list[str]) -> bool:
    """What a pattern means, segment by segment."""
    if not pattern:
        return not path
    first, *rest = pattern
    if first == "**":
        return any(all(path[:n]) and _matches(rest, path[n:]) for n in range(len(path) + 1))
    return bool(path) and _segment(first, path[0]) and _matches(rest, path[1:])


def _segment(pattern: str, text: str) -> bool:
    return bool(text) if pattern == "*" else _part(pattern, text)


def _part(pattern: str, text: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(_part(pattern[1:], text[n:]) for n in range(len(text) + 1))
    return text[:1] == pattern[0] and _part(pattern[1:], text[1:])


_PATHS = st.text("aab/", min_size=1, max_size=9)


@given(st.text("ab/*", min_size=1, max_size=9), st.lists(_PATHS, max_size=8))
def test_a_pattern_matches_what_it_means(pattern: str, paths: list[str]) -> None:
    try:
        glob = compile_glob(pattern)
    except BadRequest:
        return
    wanted = [path for path in paths if _matches(pattern.split("/"), path.split("/"))]
    assert [path for path in paths if glob.fullmatch(path)] == wanted
