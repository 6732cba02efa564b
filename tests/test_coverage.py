"""Lines that tests run are added up by area."""

from tests.coverage import areas, table


def file(lines: int, ran: int, branches: int = 0, taken: int = 0) -> dict[str, dict[str, int]]:
    return {
        "summary": {
            "num_statements": lines,
            "covered_lines": ran,
            "num_branches": branches,
            "covered_branches": taken,
        }
    }


FILES = {
    "fastsse/log.py": file(10, 9),
    "fastsse/hub/hub.py": file(20, 20, 4, 3),
    "fastsse/hub/resume/cursor.py": file(10, 4, 2, 0),
}


def test_files_are_added_up_by_the_folder_below_the_package() -> None:
    assert areas(FILES) == {
        "fastsse": (10, 9, 0, 0),
        "hub": (30, 24, 6, 3),
        "in total": (40, 33, 6, 3),
    }


def test_the_table_has_a_row_for_each_area_and_their_sum() -> None:
    assert table(FILES).splitlines()[2:] == [
        "| modules | 10 | 90% | 0 |  |",
        "| `hub/` | 30 | 80% | 6 | 50% |",
        "| in total | 40 | 82% | 6 | 50% |",
    ]
