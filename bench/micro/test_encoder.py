"""The native encoder against what a careful Python programmer writes, and against sse-starlette's.

All make the same bytes of the same event but for line ends and the order of fields.
"""

import re

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from fastsse import _core

LINE_END = re.compile(rb"\r\n|\r|\n")
FORBIDDEN = re.compile(rb"[\r\n\0]")
DATA = {
    "128-bytes": b'{"price":101.25,"symbol":"ACME","volume":1200}'.ljust(128, b"x"),
    "10-lines": b"\n".join([b"a line of forty-eight bytes, as logs have them .."] * 10),
    "16-KiB": b"x" * 16_384,
}


def encode_in_python(data: bytes, event: bytes, id: bytes) -> bytes:
    """As safe as the native one: splits data on all line ends, refuses them elsewhere."""
    if FORBIDDEN.search(event) or FORBIDDEN.search(id):
        raise ValueError("a line break in event or id")
    lines = b"".join(b"data: %b\n" % line for line in LINE_END.split(data))
    return b"event: %b\nid: %b\n%b\n" % (event, id, lines)


@pytest.fixture(params=[*DATA.values()], ids=[*DATA])
def data(request: pytest.FixtureRequest) -> bytes:
    found: bytes = request.param
    return found


@pytest.mark.benchmark(group="encode")
def test_native(benchmark: BenchmarkFixture, data: bytes) -> None:
    body = benchmark(_core.encode, data, event=b"tick", id=b"1763765540123-7")
    assert body == encode_in_python(data, b"tick", b"1763765540123-7")


@pytest.mark.benchmark(group="encode")
def test_native_frame(benchmark: BenchmarkFixture, data: bytes) -> None:
    frame = benchmark(_core.encode_frame, data, b"tick", b"1763765540123-7", 0, 7)
    assert frame.body == encode_in_python(data, b"tick", b"1763765540123-7")


@pytest.mark.benchmark(group="encode")
def test_pure_python(benchmark: BenchmarkFixture, data: bytes) -> None:
    assert benchmark(encode_in_python, data, b"tick", b"1763765540123-7")


@pytest.mark.benchmark(group="encode")
def test_sse_starlette(benchmark: BenchmarkFixture, data: bytes) -> None:
    event = pytest.importorskip("sse_starlette.event")
    text = data.decode()

    def encode() -> bytes:
        made: bytes = event.ServerSentEvent(text, event="tick", id="1763765540123-7").encode()
        return made

    assert b"event: tick" in benchmark(encode)
