"""The kept inputs of libFuzzer fail nothing, and its loop runs on the native parts."""

import re
from pathlib import Path

import pytest

from fastsse.entries import Entry
from tests import guided_fuzz


@pytest.mark.parametrize("name", guided_fuzz.targets())
def test_what_an_earlier_run_found_interesting_fails_nothing(name: str) -> None:
    check = guided_fuzz.targets()[name].check
    inputs = list(guided_fuzz.kept(name))
    assert len(inputs) >= 5
    for data in inputs:
        check(data)


def test_the_check_of_the_encoder_sees_another_line(monkeypatch: pytest.MonkeyPatch) -> None:
    right = guided_fuzz.encode_entries

    def wrong(positions: list[int], events: list[object]) -> list[Entry]:
        return right(positions, [guided_fuzz.Event(("t",), b"other")])

    monkeypatch.setattr(guided_fuzz, "encode_entries", wrong)
    with pytest.raises(AssertionError):
        guided_fuzz.check_encoder(b"text")


@pytest.mark.skipif(guided_fuzz.clang() is None, reason="no clang with libFuzzer here")
@pytest.mark.timeout(900)
def test_libfuzzer_runs_on_the_native_parts(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guided_fuzz, "BUILT", tmp_path)
    compiler = guided_fuzz.clang()
    assert compiler is not None
    guided_fuzz.build(compiler)
    assert guided_fuzz.fuzz("encoder", compiler, ["-runs=3000"]) == 0
    said = capfd.readouterr().err
    assert "INFO: Loaded" in said, "nothing native has counters"
    # The inputs that are kept may reach all that 3,000 others do, so nothing new is no failure.
    reached = re.findall(r"DONE +cov: (\d+)", said)
    assert reached, said[-1000:]
    assert int(reached[-1]) > 100, "the inputs reach nothing native"
