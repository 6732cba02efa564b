"""Reads the small files of /proc and /sys, from any root, so that tests make up machines."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Roots:
    """Where /proc and /sys are.

    What is missing, may not be read or is not what it should be reads as None: a container hides
    some of it, and a doctor that fails on that helps no one.
    """

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")

    def text(self, path: Path) -> str | None:
        """A file's text without the white space around it."""
        try:
            return path.read_text(errors="replace").strip()
        except OSError:
            return None

    def numbers(self, path: Path) -> tuple[int, ...] | None:
        """A file of whole numbers with white space between them."""
        text = self.text(path)
        try:
            return tuple(int(word) for word in text.split()) if text else None
        except ValueError:
            return None

    def number(self, path: Path) -> int | None:
        """A file of one whole number."""
        numbers = self.numbers(path)
        return numbers[0] if numbers and len(numbers) == 1 else None

    def sysctl(self, name: str) -> tuple[int, ...] | None:
        """The numbers of `net.ipv4.tcp_mem`."""
        return self.numbers(self.proc / "sys" / name.replace(".", "/"))

    def sysctl_number(self, name: str) -> int | None:
        """The number of `fs.nr_open`."""
        return self.number(self.proc / "sys" / name.replace(".", "/"))

    def sysctl_triple(self, name: str) -> tuple[int, int, int] | None:
        """The three numbers of `net.ipv4.tcp_mem`."""
        found = self.sysctl(name)
        return (found[0], found[1], found[2]) if found and len(found) == 3 else None

    def field(self, path: Path, name: str) -> str | None:
        """What stands behind `name:` in a file of such lines (meminfo, status)."""
        for line in (self.text(path) or "").splitlines():
            key, colon, value = line.partition(":")
            if colon and key.strip() == name:
                return value.strip()
        return None
