"""Which changes of a module are tried: all, some of them, or a random part that can be repeated."""

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

One = TypeVar("One")


@dataclass(frozen=True)
class Part:
    """A part of the changes, in their order.

    Attributes:
        skip: so many are left out at the front.
        most: so many behind these; None: all.
        sample: so many of these at random; None: all.
        seed: for the choice; the same one chooses the same.
    """

    skip: int = 0
    most: int | None = None
    sample: int | None = None
    seed: int = 1

    def of(self, changes: Sequence[One]) -> list[One]:
        """The changes that are tried."""
        end = None if self.most is None else self.skip + self.most
        left = changes[self.skip : end]
        if self.sample is None or self.sample >= len(left):
            return list(left)
        chosen = random.Random(self.seed).sample(range(len(left)), self.sample)
        return [left[at] for at in sorted(chosen)]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of a part, and of how many are tried at a time."""
    for name, default, text in (
        ("--skip", 0, "leave the first changes out"),
        ("--most", None, "only so many changes"),
        ("--sample", None, "so many of these at random"),
        ("--seed", 1, "of the random choice; the same one chooses the same"),
        ("--jobs", 2, "at a time"),
    ):
        parser.add_argument(name, type=int, default=default, metavar="COUNT", help=text)


def part_of(given: argparse.Namespace) -> Part:
    """The part that these options name."""
    return Part(given.skip, given.most, given.sample, given.seed)
