"""Finds files by patterns, and those that a rotation renamed."""

import glob
import os
import pathlib
import re
from typing import Final

__all__ = ["FilePattern", "rotated_since"]

# What logrotate and its kind append: .1, -20261129, .2026-11-29T10.
_ROTATED: Final = re.compile(r"[.-][0-9][0-9TZ_:.-]*")
_WILD: Final = re.compile(r"[*?\[]")


class FilePattern:
    """A path whose last parts may have wildcards, none of which stands for `/`.

    Arguments:
        text: the path.
    """

    def __init__(self, text: str) -> None:
        self._text: Final = text
        self._is_wild: Final = _WILD.search(text) is not None
        self._regex: Final = re.compile(_regex_of(text), re.DOTALL)

    def find(self, problems: list[str]) -> dict[tuple[int, int], tuple[str, tuple[str, ...]]]:
        """The files that are there: by device and inode, the path and the texts of the wildcards.
        Adds what is wrong to `problems`."""
        found: dict[tuple[int, int], tuple[str, tuple[str, ...]]] = {}
        paths = sorted(glob.glob(self._text)) if self._is_wild else [self._text]
        for path in paths:
            try:
                stat = os.stat(path)
            except OSError as error:
                problems.append(f"{path}: {error.strerror}")
                continue
            if pathlib.Path(path).is_file():
                found[stat.st_dev, stat.st_ino] = (path, self.match(path) or ())
        if not found and not problems:
            problems.append(f"{self._text}: there is no such file")
        return found

    def match(self, path: str) -> tuple[str, ...] | None:
        """The texts of the wildcards; None for a path of another pattern."""
        matched = self._regex.fullmatch(path)
        return None if matched is None else matched.groups()[:9]


def rotated_since(path: str, modified_ns: int) -> list[str]:
    """The files that a rotation may have made of `path`, not changed before a moment; the oldest
    first. Compressed ones are not among them."""
    name = pathlib.Path(path)
    found: list[tuple[int, int, str]] = []
    try:
        entries = list(os.scandir(name.parent))
    except OSError:
        return []
    for entry in entries:
        rest = entry.name.removeprefix(name.name)
        if rest == entry.name or not _ROTATED.fullmatch(rest) or not entry.is_file():
            continue
        changed_ns = entry.stat().st_mtime_ns
        if changed_ns >= modified_ns:
            # Times are coarse. Of .1 and .2 the second is older; dates grow.
            number = int(rest[1:]) if rest[1:].isdecimal() and len(rest) < 6 else 0
            found.append((changed_ns, -number, str(name.parent / entry.name)))
    return [path for _, _, path in sorted(found)]


def _regex_of(pattern: str) -> str:
    """A regular expression with a group for each wildcard."""
    made, at = "", 0
    while at < len(pattern):
        character = pattern[at]
        end = pattern.find("]", at + 2) if character == "[" else -1
        at += 1
        if character == "*":
            # `**` is `*` here as it is for glob without recursion.
            made += "([^/]*)"
        elif character == "?":
            made += "([^/])"
        elif end > 0:
            inside = pattern[at:end].replace("\\", "\\\\")
            made += f"([{'^' + inside[1:] if inside[0] == '!' else inside}])"
            at = end + 1
        else:
            made += re.escape(character)
    return made
