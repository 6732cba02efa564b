"""Whether the tests run under a sanitizer, which keeps freed memory and needs more of all."""

import os
from typing import Final

import pytest

__all__ = ["measures_memory"]

_IS_SANITIZED: Final = any(
    f"lib{name}" in os.environ.get("LD_PRELOAD", "") for name in ("asan", "tsan")
)

measures_memory = pytest.mark.skipif(_IS_SANITIZED, reason="a sanitizer keeps freed memory")
