"""The scripts that Redis runs for us, each atomic: what they change shows whole or not at all."""

import hashlib
import pathlib
from typing import Final

__all__ = ["APPEND", "NEWEST", "OPEN", "PAGE", "Script"]

_HERE: Final = pathlib.Path(__file__).parent


class Script:
    """A script by the name of its file, and the digest that Redis knows it by.

    Arguments:
        name: of the file, without `.lua`.
        needs: the names of those in this folder whose functions it calls.
        folder: where it lies.
    """

    __slots__ = ("digest", "text")

    def __init__(self, name: str, *needs: str, folder: pathlib.Path = _HERE) -> None:
        paths = [_HERE / f"{needed}.lua" for needed in needs] + [folder / f"{name}.lua"]
        self.text: Final = b"".join(path.read_bytes() for path in paths)
        # Not for secrecy: it is how EVALSHA names a script.
        self.digest: Final = hashlib.sha1(self.text, usedforsecurity=False).hexdigest().encode()


APPEND: Final = Script("append", "ids", "seen")
OPEN: Final = Script("open", "ids")
PAGE: Final = Script("page", "ids", "seen")
NEWEST: Final = Script("newest", "ids")
