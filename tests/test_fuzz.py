"""The fuzzer: short runs find nothing, and a broken parser is found."""

import pytest

from fastsse.eventstream import EventStreamParser
from tests import fuzz


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_a_thousand_inputs_fail_nothing(name: str) -> None:
    assert fuzz.run(name, 1, 60, 1000) == (1000, [])


def test_one_seed_makes_the_same_inputs() -> None:
    made = [fuzz.inputs(fuzz.TARGETS["filter"], 7) for _ in range(2)]
    assert [next(made[0]) for _ in range(50)] == [next(made[1]) for _ in range(50)]


def test_a_parser_that_depends_on_where_it_is_cut_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = EventStreamParser.feed

    def wrong(self: EventStreamParser, chunk: bytes) -> object:
        self._after_cr = False
        return right(self, chunk)

    monkeypatch.setattr(EventStreamParser, "feed", wrong)
    _, failed = fuzz.run("stream", 1, 60, 5000)
    assert failed
    assert "stream: " in capsys.readouterr().out
