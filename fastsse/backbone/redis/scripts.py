"""The scripts that Redis runs for us, each atomic: what they change shows whole or not at all."""

import hashlib
import pathlib
from typing import Final

__all__ = ["APPEND", "NEWEST", "OPEN", "PAGE", "Script"]


class Script:
    """A script by the name of its file, and the digest that Redis knows it by."""

    __slots__ = ("digest", "text")

    def __init__(self, name: str) -> None:
        self.text: Final = (pathlib.Path(__file__).parent / f"{name}.lua").read_bytes()
        # Not for secrecy: it is how EVALSHA names a script.
        self.digest: Final = hashlib.sha1(self.text, usedforsecurity=False).hexdigest().encode()


APPEND: Final = Script("append")
OPEN: Final = Script("open")
PAGE: Final = Script("page")
NEWEST: Final = Script("newest")
