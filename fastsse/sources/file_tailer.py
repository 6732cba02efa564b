"""Follows files that programs append to: finds them, reads whole lines, and knows them again.

A file is known by device, inode and the digest of its beginning. So a file that was renamed is read
to its end, one that was emptied begins again, and the next one under the same name is new.
"""

import contextlib
import os
import secrets
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from fastsse.log import get_logger
from fastsse.sources.file_finding import FilePattern, rotated_since
from fastsse.sources.file_places import FilePlaces, SavedPlace
from fastsse.sources.followed_file import LINE_BYTES_MAX, FollowedFile, Piece, head_of

__all__ = ["Line", "TailOptions", "Tailer"]

log = get_logger("sources")
FILES_MAX: Final = 1_000
# Lines and bytes of a read.
LINES_MAX: Final = 1_000
READ_BYTES_MAX: Final = 1024 * 1024
# Bytes of lines without an end, of all files; above it each may have fewer.
HELD_BYTES_MAX: Final = 64 * 1024 * 1024
HELD_LINE_BYTES_MAX: Final = 32 * 1024
# How often names are looked at.
SCAN_S: Final = 0.5
# A file under another name is closed when it did not grow for this time.
ROTATED_S: Final = 10.0
# Places are written at most so often; the log knows lines that are read again.
SAVE_S: Final = 0.25


class Line(NamedTuple):
    """A line.

    Attributes:
        path: of its file, as it was first found.
        wildcards: the texts of its pattern's wildcards.
        generation: of the file.
        offset: of its first byte.
        end: the offset behind it.
        payload: without its end.
    """

    path: str
    wildcards: tuple[str, ...]
    generation: str
    offset: int
    end: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class TailOptions:
    """What is followed.

    Attributes:
        patterns: paths; `*`, `?` and `[ab]` stand for parts of a name.
        starts_behind: files that are there without a kept place begin at their end.
        rotated_s: see `ROTATED_S`.
    """

    patterns: Sequence[str]
    starts_behind: bool = False
    rotated_s: float = ROTATED_S


class Tailer:
    """Reads the files of some patterns. One thread.

    Arguments:
        options: what is followed.
        places: opened; closed by `close`.

    Attributes:
        trouble: why nothing can be read now; None: all is well.
        has_more: the last read left lines.

    All methods raise OSError when the places can't be written.
    """

    def __init__(self, options: TailOptions, places: FilePlaces) -> None:
        self._options: Final = options
        self._patterns: Final = [FilePattern(text) for text in options.patterns]
        self._places: Final = places
        self._files: dict[tuple[int, int], FollowedFile] = {}
        # By the name under which they were found, the oldest first: each is read to its end before
        # the next one.
        self._named: dict[str, list[FollowedFile]] = {}
        self._turn: deque[str] = deque()
        # Places of files whose folder was away at the start, and patterns that find nothing now.
        self._away: list[SavedPlace] = []
        self._finding_nothing: set[FilePattern] = set()
        self._held_bytes = 0
        self._scanned_s = self._saved_s = 0.0
        self._is_dirty = False
        self._is_first = places.is_new
        self._had_problems = True
        self.trouble: str | None = None
        self.has_more = False
        self._restore(places.saved)
        self._scan()

    def read(self) -> list[Line]:
        """The next whole lines, the files in turn."""
        if time.monotonic() - self._scanned_s >= SCAN_S:
            self._scan()
        lines: list[Line] = []
        room_bytes = READ_BYTES_MAX
        self._held_bytes = sum(file.held_bytes for file in self._all())
        for _ in range(len(self._turn)):
            name = self._turn[0]
            self._turn.rotate(-1)
            room_bytes -= self._read_name(name, lines, room_bytes)
            if len(lines) >= LINES_MAX or room_bytes <= 0:
                break
        self.has_more = len(lines) >= LINES_MAX or room_bytes <= 0
        if not lines:
            self._drop_finished()
        if self._is_dirty and any(file.is_new for file in self._all()):
            # Before the log has a line of it, so that its name is the same after a kill.
            self._save()
        elif not lines:
            self._save_sometimes()
        return lines

    def _read_name(self, name: str, lines: list[Line], room_bytes: int) -> int:
        """Adds lines of the oldest file that has some, and returns how many bytes were read."""
        for file in self._named[name]:
            is_full = self._held_bytes >= HELD_BYTES_MAX
            line_bytes_max = HELD_LINE_BYTES_MAX if is_full else LINE_BYTES_MAX
            held_bytes = file.held_bytes
            read_bytes = file.fill(min(room_bytes, line_bytes_max), line_bytes_max)
            found = _lines_of(file, file.take(LINES_MAX - len(lines)))
            lines += found
            self._held_bytes += file.held_bytes - held_bytes
            if found or read_bytes:
                return read_bytes
        return 0

    def acknowledge(self, lines: Iterable[Line]) -> None:
        """The log has these lines."""
        ends = {line.generation: line.end for line in lines}
        for file in self._all():
            end = ends.get(file.place.generation)
            if end is not None:
                file.place.offset = end
                self._is_dirty = True
        self._save_sometimes()

    def close(self) -> None:
        """Keeps the places and closes the files."""
        try:
            if self._is_dirty:
                self._save()
        except OSError as error:
            log.warning("The places of files can't be kept.", why=str(error))
        finally:
            for file in self._all():
                file.close()
            self._files.clear()
            self._named.clear()
            self._turn.clear()
            self._places.close()

    def _save_sometimes(self) -> None:
        if self._is_dirty and time.monotonic() - self._saved_s >= SAVE_S:
            self._save()

    def _save(self) -> None:
        self._places.save(self._places_now())
        for file in self._all():
            file.is_new = False
        self._is_dirty = False
        self._saved_s = time.monotonic()

    def _places_now(self) -> list[SavedPlace]:
        return [file.place for file in self._all()] + self._away

    # -- finding files ----------------------------------------------------------------------------

    def _restore(self, saved: Sequence[SavedPlace]) -> None:
        """Opens the files that were followed, and those that came and were rotated away since."""
        nothing = {pattern for pattern in self._patterns if not pattern.find([])}
        for place in saved:
            found = _find_again(place)
            if found is not None:
                self._follow(found)
            elif _is_of(place.path, nothing):
                self._away.append(place)
            else:
                self._miss(place)
        # All that are known first: the others are new.
        for file in self._all():
            if file.has_moved:
                self._follow_rotated(file)

    def _scan(self) -> None:
        self._scanned_s = time.monotonic()
        named: dict[tuple[int, int], tuple[str, tuple[str, ...]]] = {}
        problems: list[str] = []
        for pattern in self._patterns:
            found = pattern.find(problems)
            if found:
                self._finding_nothing.discard(pattern)
            else:
                self._finding_nothing.add(pattern)
            named |= {key: one for key, one in found.items() if key not in named}
        self._take_back()
        for file in self._all():
            self._look_at(file, named.pop(file.key, None))
        for path, wildcards in named.values():
            if len(self._files) >= FILES_MAX:
                problems.append(f"there are more than {FILES_MAX} files")
                break
            try:
                self._follow_new(path, wildcards, path)
            except OSError as error:
                problems.append(f"{path}: {error.strerror}")
        # Within a rotation a name may be missing for a moment.
        is_lasting = self._is_first or self._had_problems
        self.trouble = problems[0] if problems and is_lasting else None
        self._had_problems = bool(problems)
        self._is_first = False

    def _is_away(self, place: SavedPlace) -> bool:
        """Whether the pattern of a file finds nothing: its folder is away, not only the file."""
        return _is_of(place.path, self._finding_nothing)

    def _take_back(self) -> None:
        """Follows files again whose folder is there again."""
        back = [place for place in self._away if not self._is_away(place)]
        for place in back:
            self._away.remove(place)
            self._is_dirty = True
            found = _find_again(place)
            if found is None:
                self._miss(place)
            else:
                self._follow(found)

    def _look_at(self, file: FollowedFile, name: tuple[str, tuple[str, ...]] | None) -> None:
        """Whether a file was renamed or emptied."""
        if name is None:
            if not file.has_moved:
                file.moves()
                self._follow_rotated(file)
        else:
            file.wildcards = name[1]
            file.returns()
        if file.has_lines or not file.was_emptied():
            return
        copy = _find_copy(file.place)
        if copy is not None:
            # The lines that were not read before the file was copied and emptied.
            self._follow(copy, before=file)
        elif file.held_bytes:
            self._miss(file.place)
        self._is_dirty = True
        file.begin(_new_generation())

    def _follow_rotated(self, file: FollowedFile) -> None:
        """Follows the files that came after one under its name, and have been renamed too."""
        name = file.place.path
        for path in rotated_since(name, file.modified_ns):
            with contextlib.suppress(OSError):
                self._follow_new(name, file.wildcards or self._wildcards(name), path)

    def _follow_new(self, name: str, wildcards: tuple[str, ...], path: str) -> None:
        file = FollowedFile.open(name, path, _new_generation())
        if file.key in self._files:
            file.close()
            return
        file.wildcards = wildcards
        if self._is_first and self._options.starts_behind:
            file.skip_to_end()
        if name != path:
            file.moves()
        self._follow(file)

    def _follow(self, file: FollowedFile, before: FollowedFile | None = None) -> None:
        if file.key in self._files:
            file.close()
            return
        if not file.wildcards:
            file.wildcards = self._wildcards(file.place.path)
        name = file.place.path
        if name not in self._named:
            self._named[name] = []
            self._turn.append(name)
        files = self._named[name]
        files.insert(len(files) if before is None else files.index(before), file)
        self._files[file.key] = file
        self._is_dirty = True

    def _wildcards(self, path: str) -> tuple[str, ...]:
        return next((one for p in self._patterns if (one := p.match(path)) is not None), ())

    def _drop_finished(self) -> None:
        now_s = time.monotonic()
        for file in self._all():
            if self._is_away(file.place) and not file.is_deleted:
                continue  # It may come back with its folder.
            if file.is_finished(now_s - self._options.rotated_s):
                self._forget(file)
                self._is_dirty = True

    def _forget(self, file: FollowedFile) -> None:
        name = file.place.path
        del self._files[file.key]
        self._named[name].remove(file)
        if not self._named[name]:
            del self._named[name]
            self._turn.remove(name)
        file.close()

    def _all(self) -> list[FollowedFile]:
        return [file for files in self._named.values() for file in files]

    def _miss(self, place: SavedPlace) -> None:
        log.warning(
            "The rest of a file was not found; lines may be missing.",
            file=place.path,
            offset=place.offset,
        )


def _lines_of(file: FollowedFile, pieces: Iterable[Piece]) -> Iterable[Line]:
    path, generation = file.place.path, file.place.generation
    return [Line(path, file.wildcards, generation, *piece) for piece in pieces]


def _is_of(path: str, patterns: Iterable[FilePattern]) -> bool:
    return any(pattern.match(path) is not None for pattern in patterns)


def _new_generation() -> str:
    return secrets.token_hex(8)


def _find_again(place: SavedPlace) -> FollowedFile | None:
    """The file of a place, under its name or another one of a rotation."""
    for path in (place.path, *rotated_since(place.path, 0)):
        try:
            if os.stat(path).st_ino != place.inode:
                continue
            file = FollowedFile.reopen(place, path)
        except OSError:
            continue
        if file is not None:
            return file
    return _find_copy(place)


def _find_copy(place: SavedPlace) -> FollowedFile | None:
    """A copy of a file that was emptied since (`copytruncate`)."""
    for path in rotated_since(place.path, 0):
        try:
            if place.head_bytes and head_of(path, place.head_bytes) == place.head:
                file = FollowedFile.reopen(place, path)
                if file is not None:
                    return file
        except OSError:
            continue
    return None
