"""A file with a token a line, one for each connection."""

from __future__ import annotations

import itertools
import re

from fastsse.swarm.refusal import Refusal

_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]{1,8000}=*\r?\n?")


def check(path: str) -> None:
    """Raises a Refusal when a line of the file is no token, or there is none."""
    number = 0
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if not _TOKEN.fullmatch(line):
                    raise Refusal(f"{path}, line {number}: not a token.")
    except OSError as error:
        raise Refusal(f"{path} can't be read: {error.strerror}.") from None
    if not number:
        raise Refusal(f"{path} has no tokens.")


def tokens_of(path: str, first_number: int, count: int) -> list[bytes]:
    """The tokens of so many connections. The file's last token is followed by its first."""
    with open(path, "rb") as file:
        total = sum(1 for _ in file)
        file.seek(0)
        first = first_number % total
        found = [line.strip() for line in itertools.islice(file, first, first + count)]
        while len(found) < count:
            file.seek(0)
            found += [line.strip() for line in itertools.islice(file, count - len(found))]
    return found
