"""The picture of a trace in the guide is of spans that a real run sends."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.docs import trace_picture
from tests.docs.trace_picture import NAMES, draw, run


async def test_a_trace_goes_from_the_publisher_over_the_server_to_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_BSP_SCHEDULE_DELAY", "NO_PROXY"):
        monkeypatch.setenv(name, "")  # Set by the run, and as before at the end.
    shown = await run(tmp_path)
    placed = {bar.name: (bar.service, bar.depth) for bar in shown}
    assert len(shown) == len(NAMES)
    assert placed == {
        "place order": ("shop", 0),
        "publish": ("fastsse", 1),
        "fan-out": ("fastsse", 2),
        "webhook": ("fastsse", 2),
        "show order": ("page", 2),
    }
    assert "channels=1" in next(bar.says for bar in shown if bar.name == "fan-out")
    drawn = ElementTree.fromstring(draw(shown))
    kept = ElementTree.parse(trace_picture.PICTURE).getroot()
    for picture in (drawn, kept):
        texts = [element.text for element in picture.iter() if element.text]
        assert set(NAMES) <= set(texts)
