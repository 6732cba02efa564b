"""The README says of every option what is true."""

from pathlib import Path

import pytest

from fastsse.config import markdown_table

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.skipif(not README.exists() or not README.stat().st_size, reason="no README here")
def test_readme_has_the_table_of_options() -> None:
    assert markdown_table() in README.read_text("utf-8"), "put `fastsse config table` into it"
