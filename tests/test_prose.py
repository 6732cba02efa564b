"""Texts use plain words (`tests/prose.py`); the list of what is not rewritten yet only shrinks."""

import pytest

from tests.prose import Found, allowed, files, findings, over, search


def words(name: str, text: str) -> list[tuple[int, str]]:
    return [(found.line, found.word) for found in search(name, text)]


def test_no_folder_has_more_words_of_the_list_than_it_may() -> None:
    if not files():
        pytest.skip("this is no clone: nothing says which files belong to the project")
    assert over(findings(), allowed()) == [], "python -m tests.prose"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.md", "A queue.\n\nIt begins anew.", [(3, "anew")]),
        ("a.md", "```\nanew\n```\n`anew` [link](beside.md) <!-- in vain -->\n", []),
        ("a.md", "One of its own, besides all told two.", [(1, "all told")]),
        ("a.py", "anew = 1\n# Beside it.\n", [(2, "Beside")]),
        ("a.py", '"""First.\n\nIt lets go."""\n', [(3, "lets go")]),
        ("a.py", 'x = f"who lacks {it}"', [(1, "lacks")]),
        ("a.py", "def test_nobody_is_told() -> None: ...", [(1, "nobody"), (1, "told")]),
        ("a.pyx", "cdef int beside(int? x)  # in vain\n", [(1, "in vain")]),
        ("a.lua", "local anew = 1 -- told\n", [(1, "told")]),
        ("a.conf", "beside on;  # whoever\n", [(1, "whoever")]),
        ("a.json", '{"anew": 1}', []),
    ],
)
def test_words_are_found_where_people_read(
    name: str, text: str, expected: list[tuple[int, str]]
) -> None:
    assert words(name, text) == expected


def test_a_word_above_the_number_of_its_folder_is_reported() -> None:
    found = [Found("a/b.py", 3, "anew", "again"), Found("c.md", 1, "told", "sent")]
    assert over(found, {"a": 1, "c.md": 1}) == []
    assert over(found, {"a": 1})[1] == "c.md:1: 'told'; write: sent"
    assert over(found, {"a": 0, "c.md": 1})[0].startswith("a: 1 words of the list")
