"""The scripts that Redis runs for us, each atomic: what they change shows whole or not at all."""

import hashlib
import pathlib
from typing import Final

__all__ = ["Script"]


class Script:
    """A script by the name of its file, and the digest that Redis knows it by.

    Arguments:
        name: of the file, without `.lua`.
        needs: the names of those whose functions it calls.
        folder: where they lie.
    """

    __slots__ = ("digest", "text")

    def __init__(self, name: str, *needs: str, folder: pathlib.Path) -> None:
        paths = [folder / f"{part}.lua" for part in (*needs, name)]
        self.text: Final = b"".join(path.read_bytes() for path in paths)
        # Not for secrecy: it is how EVALSHA names a script.
        self.digest: Final = hashlib.sha1(self.text, usedforsecurity=False).hexdigest().encode()
