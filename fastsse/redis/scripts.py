"""Lua scripts that run in Redis. Each is atomic: other clients see all of its changes or none."""

import hashlib
import pathlib
from typing import Final

__all__ = ["Script"]


class Script:
    """A script: the name of its file, and the digest by which Redis knows it.

    Arguments:
        name: of the file, without `.lua`.
        needs: the names of the scripts whose functions it calls.
        folder: where the files are.
    """

    __slots__ = ("digest", "text")

    def __init__(self, name: str, *needs: str, folder: pathlib.Path) -> None:
        paths = [folder / f"{part}.lua" for part in (*needs, name)]
        self.text: Final = b"".join(path.read_bytes() for path in paths)
        # No security needed: EVALSHA names a script by this digest.
        self.digest: Final = hashlib.sha1(self.text, usedforsecurity=False).hexdigest().encode()
