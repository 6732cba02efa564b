"""The fuzzer of heads finds what it is for, and nothing in the native parser."""

import shutil
from pathlib import Path

import pytest

from tests.http import fuzz_heads
from tests.http.fuzz_intake import read_corpus

pytest.importorskip("Cython")


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")
@pytest.mark.timeout(300)
def test_whatever_the_native_parser_accepts_llhttp_accepts_too(tmp_path: Path) -> None:
    library = fuzz_heads.build(tmp_path)
    module = fuzz_heads.load(library)
    requests = read_corpus()
    assert fuzz_heads.run(module, requests, seed=1, inputs=300_000) is None
    two = b"POST /t HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nok" * 2
    assert module.compare_input(two) == len(two)
    assert module.compare_input(two.replace(b"Host", b"Transfer-Encoding: chunked\r\nHost")) == 0
    # A parser that does not know the name takes what llhttp refuses: a body with two lengths.
    careless = fuzz_heads.load(library, leave={b"transfer-encoding"})
    assert fuzz_heads.run(careless, requests, seed=1, inputs=300_000) is not None
