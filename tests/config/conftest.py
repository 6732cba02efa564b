"""Options without those of the environment that the tests run in."""

import os

import pytest


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith(("FASTSSE_", "MERCURE_"))]:
        monkeypatch.delenv(name)
