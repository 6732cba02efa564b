"""The mutation tool changes what it says, and notices what tests notice."""

import ast
import subprocess
import sys
from pathlib import Path

from tests.mutants import native
from tests.mutants.changes import changes
from tests.mutants.forks import ROOT
from tests.mutants.part import Part

_SOURCE = """
LIMIT = 5

def limited(value: int) -> int:
    \"\"\"Not more than 5.\"\"\"
    if value > LIMIT and not value % 2:
        value = LIMIT
    return value + 1
"""


def test_each_change_is_one_thing_in_a_function() -> None:
    tree = ast.parse(_SOURCE)
    found = {(ast.unparse(change.node), ast.unparse(change.other)) for change in changes(tree)}
    assert found == {
        ("value > LIMIT", "value >= LIMIT"),
        ("value > LIMIT and (not value % 2)", "value > LIMIT or not value % 2"),
        ("not value % 2", "value % 2"),
        ("2", "3"),
        ("1", "2"),
        ("value + 1", "value - 1"),
        ("value = LIMIT", "pass"),
        ("return value + 1", "return None"),
        (
            "if value > LIMIT and (not value % 2):\n    value = LIMIT",
            "if not (value > LIMIT and (not value % 2)):\n    value = LIMIT",
        ),
    }


def mutants_of(test: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Three changes of a module, with a test of these lines. In a process of its own: here the
    module is imported already."""
    path = folder / "test_it.py"
    path.write_text(f"from fastsse.units import parse_duration_s\ndef test_it():\n    {test}\n")
    words = ["-m", "tests.mutants", "fastsse/units.py", path, "--most", "3"]
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_changes_that_no_test_sees_are_reported(tmp_path: Path) -> None:
    done = mutants_of("assert parse_duration_s", tmp_path)
    assert done.returncode == 1, done.stderr
    assert done.stdout.endswith("fastsse/units.py: 3 changes, 3 not noticed\n")


def test_changes_that_a_test_sees_are_not(tmp_path: Path) -> None:
    done = mutants_of(
        "assert [parse_duration_s(t) for t in ('2s', '1.5m', '0', 5)] == [2, 90, 0, 5]", tmp_path
    )
    assert "3 changes, 0 not noticed" in done.stdout, done.stdout
    assert done.returncode == 0


_HEADER = """
from libc.stdint cimport uint8_t

cdef struct Row:
    int count              # 5 of them

cdef inline int limited(
        Row* row, int most) noexcept nogil:
    \"\"\"Not more than 5.\"\"\"
    cdef int found = row.count + 1
    if found > most and (
            row.count != 0):
        row.count = most
    memcpy(b"2", row, found)
    return found
"""


def test_each_change_of_a_header_is_one_thing_in_a_function() -> None:
    text, found = native.changed(_HEADER)
    assert {(change.line, change.old, change.new) for change in found} == {
        (10, "cdef int found = row.count + 1", "cdef int found = row.count - 1"),
        (10, "cdef int found = row.count + 1", "cdef int found = row.count + 2"),
        (11, _CONDITION, "if found >= most and ( row.count != 0):"),
        (11, _CONDITION, "if found > most or ( row.count != 0):"),
        (11, _CONDITION, "if found > most and ( row.count == 0):"),
        (11, _CONDITION, "if found > most and ( row.count != 1):"),
        (13, "row.count = most", "pass"),
        (14, 'memcpy(b"2", row, found)', "pass"),
    }
    assert {change.function for change in found} == {"limited"}
    (row,) = (change for change in found if change.line == 13)
    lines = [line.strip() for line in text.splitlines()]
    assert f"if mutant == {row.number}: pass" in lines
    assert "else: row.count = most" in lines


_CONDITION = "if found > most and ( row.count != 0):"


_MODULE = """
cdef class Row:
    \"\"\"Not more than 5.\"\"\"
    cdef int most

    @property
    def least(self):
        return 1

    cdef int put(self, int count) except -1:
        cdef list one = [count, 2], other = self.rows
        self.rows.append(count)
        del self.rows[5:]
        return 0

cdef int last() noexcept:
    return 0
"""


def test_methods_of_a_native_class_are_changed() -> None:
    text, found = native.changed(_MODULE)
    assert [(change.function, change.old, change.new) for change in found] == [
        ("Row.least", "return 1", "return 2"),
        ("Row.put", "cdef list one = [count, 2]", "cdef list one = [count, 3]"),
        ("Row.put", "self.rows.append(count)", "pass"),
        ("Row.put", "del self.rows[5:]", "del self.rows[6:]"),
        ("Row.put", "del self.rows[5:]", "pass"),
        ("last", "return 0", "return 1"),
    ]
    assert "        cdef list other = self.rows\n" in text


def test_a_random_part_is_the_same_for_one_seed() -> None:
    changes = list(range(100))
    chosen = Part(skip=10, most=80, sample=20, seed=3).of(changes)
    assert len(chosen) == 20
    assert chosen == sorted(chosen)
    assert set(chosen) <= set(range(10, 90))
    assert Part(10, 80, 20, 3).of(changes) == chosen != Part(10, 80, 20, 4).of(changes)
    assert Part(sample=100).of(changes) == changes == Part().of(changes)


def test_a_header_without_functions_has_no_changes() -> None:
    assert native.changed("cdef enum:\n    MOST = 5\n")[1] == []


def test_tests_that_fail_without_a_change_say_nothing(tmp_path: Path) -> None:
    done = mutants_of("raise AssertionError", tmp_path)
    assert done.returncode == 1
    assert "fail without a change" in done.stderr
