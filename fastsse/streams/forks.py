"""Forks: the content that a new stream shares with its source."""

from collections.abc import Callable
from typing import Final, NamedTuple

from fastsse.errors import BadRequest, FastsseError
from fastsse.streamoffsets import NOW, parse_offset
from fastsse.streams.content import data_of
from fastsse.streams.reading import Chunk, StreamReader
from fastsse.streamstate import Segment, StreamConfig, StreamRow

__all__ = ["FORKS_MAX", "ForkRequest", "find_fork"]

#: Depth of forks of forks. A read visits at most this many streams.
FORKS_MAX: Final = 100
_DIGITS_MAX: Final = 15


class ForkRequest(NamedTuple):
    """The fork that is to be made.

    Attributes:
        topic: the source.
        offset: as it was sent; None: its end.
        sub_offset: bytes, or messages of JSON, behind the offset.
    """

    topic: str
    offset: str | None
    sub_offset: int

    @property
    def asked(self) -> str:
        """The text that is the same in a repeat of the request."""
        return f"{self.offset or ''}+{self.sub_offset}"


Forked = Callable[[tuple[StreamConfig, bytes] | FastsseError], None]


def find_fork(reader: StreamReader, fork: ForkRequest, source: StreamRow, done: Forked) -> None:
    """Calls `done` with the configuration of a fork, and with the part of the source's next append
    that becomes its own content. Gives BadRequest for an invalid offset, or one behind the end of
    the source."""
    place = source.tail if fork.offset is None else parse_offset(fork.offset)
    if place is None or place == NOW:
        done(BadRequest("Stream-Fork-Offset", "must be an offset that this server has given"))
    elif place > source.tail:
        done(BadRequest("Stream-Fork-Offset", "is behind the end of the source"))
    elif not fork.sub_offset:
        done(_config(fork, source, place, b""))
    else:
        _find_sub_offset(reader, fork, source, place, done)


def _find_sub_offset(
    reader: StreamReader, fork: ForkRequest, source: StreamRow, place: int, done: Forked
) -> None:
    def read(chunk: Chunk | FastsseError) -> None:
        if isinstance(chunk, FastsseError):
            done(chunk)
            return
        wanted, contents = fork.sub_offset, chunk.contents
        if source.config.kind == "json":
            if wanted > len(contents):
                done(_overshoot())
            else:
                done(_config(fork, source, contents[wanted - 1].position, b""))
        elif not contents or wanted > len(data := data_of(contents[0])):
            done(_overshoot())
        elif wanted == len(data):
            done(_config(fork, source, contents[0].position, b""))
        else:
            done(_config(fork, source, place, data[:wanted]))

    reader.read_events(fork.topic, source, place, read)


def _overshoot() -> BadRequest:
    return BadRequest("Stream-Fork-Sub-Offset", "is behind the end of the next append")


def _config(
    fork: ForkRequest, source: StreamRow, place: int, prefix: bytes
) -> tuple[StreamConfig, bytes] | BadRequest:
    """The configuration of a fork that shares the content of its source up to a place."""
    own = Segment(fork.topic, source.generation, place)
    segments = [one for one in (*source.config.segments, own) if one.after < place]
    segments = [one._replace(through=min(one.through, place)) for one in segments]
    if len(segments) > FORKS_MAX:
        return BadRequest("Stream-Forked-From", f"at most {FORKS_MAX} forks of forks")
    if not segments:
        segments = [Segment(fork.topic, place, place)]
    config = StreamConfig(
        source.config.content_type,
        source.config.ttl_s,
        source.config.expires_ms,
        source.config.private,
        fork.topic,
        source.generation,
        fork.asked,
        tuple(segments),
    )
    return config, prefix
