"""Durable streams: what is known of each, and what is asked of it.

A stream is a topic with a row. The row says how it was created, whether it is closed, and where it
ends. It changes only where order is made, in the transaction of the entries that change it. So all
workers and nodes agree on it.
"""

from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import orjson

__all__ = [
    "Segment",
    "StreamAsk",
    "StreamConfig",
    "StreamControl",
    "StreamOp",
    "StreamRow",
    "media_type_of",
    "position_text",
    "read_position",
    "read_stream_control",
]

StreamOp: TypeAlias = Literal["create", "append", "hide", "drop"]
_OPS: Final[tuple[StreamOp, ...]] = ("create", "append", "hide", "drop")
ContentKind: TypeAlias = Literal["json", "text", "bytes"]
_N_MASK: Final = (1 << 64) - 1
#: What an entry of a stream counts for in addition to its data.
ENTRY_COST_BYTES: Final = 128
#: What a stream without entries counts for.
STREAM_COST_BYTES: Final = 512


def position_text(position: int) -> str:
    """`<ms>-<n>`, as scripts of Redis and control entries have it."""
    return f"{position >> 64}-{position & (1 << 64) - 1}"


def read_position(text: str) -> int:
    """What `position_text` wrote. Raises ValueError."""
    ms, _, n = text.partition("-")
    return int(ms) << 64 | int(n)


@lru_cache(maxsize=1024)
def kind_of(content_type: str) -> ContentKind:
    """How content of a type is kept and sent."""
    media_type = media_type_of(content_type)
    if media_type == "application/json":
        return "json"
    return "text" if media_type.startswith("text/") else "bytes"


@lru_cache(maxsize=1024)
def media_type_of(content_type: str) -> str:
    """A content type without parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


class Segment(NamedTuple):
    """What a fork has of another stream: the content after a position and up to another."""

    topic: str
    after: int
    through: int


class StreamConfig(NamedTuple):
    """How a stream was created; it never changes.

    Attributes:
        content_type: as it was sent.
        ttl_s: it expires when it was neither read nor appended to for so long; None: never.
        expires_ms: it expires then, in unix milliseconds; None: never.
        private: its events are private.
        source: the stream that it is a fork of; None: it is none.
        source_generation: of that.
        fork_asked: the offsets that were asked for, as they were sent.
        segments: what it has of other streams, in order; none for one that is no fork.
    """

    content_type: str
    ttl_s: int | None = None
    expires_ms: int | None = None
    private: bool = False
    source: str | None = None
    source_generation: int = 0
    fork_asked: str = ""
    segments: tuple[Segment, ...] = ()

    @property
    def fork_place(self) -> int:
        """Where its own content begins; 0 before everything."""
        return self.segments[-1].through if self.segments else 0

    @property
    def can_expire(self) -> bool:
        """Whether it has an end in time."""
        return self.ttl_s is not None or self.expires_ms is not None

    @property
    def kind(self) -> ContentKind:
        """How its content is kept and sent."""
        return kind_of(self.content_type)

    @property
    def media_type(self) -> str:
        """The content type without parameters, in lower case."""
        return media_type_of(self.content_type)

    def is_of(self, content_type: str | None, *, is_fork: bool = False) -> bool:
        """Whether a content type is the stream's; a fork may be created without one."""
        if content_type is None:
            return is_fork or self.media_type == "application/octet-stream"
        return media_type_of(content_type) == self.media_type

    def encode(self) -> bytes:
        """As rows and control entries have it."""
        members: dict[str, Any] = {"type": self.content_type}
        if self.ttl_s is not None:
            members["ttl"] = self.ttl_s
        if self.expires_ms is not None:
            members["expires"] = self.expires_ms
        if self.private:
            members["private"] = True
        if self.source is not None:
            members["source"] = self.source
            members["source_generation"] = position_text(self.source_generation)
            members["asked"] = self.fork_asked
            members["segments"] = [
                [topic, position_text(after), position_text(through)]
                for topic, after, through in self.segments
            ]
        return orjson.dumps(members)

    @classmethod
    def decode(cls, text: bytes | str) -> "StreamConfig":
        """What `encode` wrote. Raises ValueError."""
        try:
            members = orjson.loads(text)
            return cls(
                members["type"],
                members.get("ttl"),
                members.get("expires"),
                members.get("private", False),
                members.get("source"),
                read_position(members.get("source_generation", "0-0")),
                members.get("asked", ""),
                tuple(
                    Segment(topic, read_position(after), read_position(through))
                    for topic, after, through in members.get("segments", ())
                ),
            )
        except (KeyError, TypeError, AttributeError):
            raise ValueError("not the configuration of a stream") from None


# Most streams are created alike. So their rows share what this returns, in memory too.
@lru_cache(maxsize=4096)
def _read_config(text: str) -> StreamConfig:
    return StreamConfig.decode(text)


@lru_cache(maxsize=4096)
def _config_members(config: StreamConfig) -> bytes:
    """The end of a row: what it has of its configuration."""
    members = {
        "c": config.encode().decode(),
        "k": config.kind,
        "p": config.source or "",
        "pg": position_text(config.source_generation),
    }
    return orjson.dumps(members)[1:]


class StreamRow(NamedTuple):
    """What is known of a stream.

    Attributes:
        generation: the position of the entry that created it; a stream that is created again at
            the same place has another.
        config: how it was created.
        tail: the position of its newest content, its generation when it has none.
        closed: the position at which it was closed; 0: it is open.
        seq: the last `Stream-Seq`.
        forks: how many streams have it as their source.
        is_hidden: it was deleted, and is kept for its forks.
        touched_ms: when it was read or appended to last, in unix milliseconds.
        size_bytes: what it counts for.
    """

    generation: int
    config: StreamConfig
    tail: int
    closed: int = 0
    seq: bytes | None = None
    forks: int = 0
    is_hidden: bool = False
    touched_ms: int = 0
    size_bytes: int = STREAM_COST_BYTES

    @property
    def fixed(self) -> tuple[int, StreamConfig, int, int, bool]:
        """What content does not change."""
        return self.generation, self.config, self.closed, self.forks, self.is_hidden

    def is_expired(self, now_ms: int) -> bool:
        """Whether it counts as deleted."""
        config = self.config
        if config.expires_ms is not None and config.expires_ms <= now_ms:
            return True
        return config.ttl_s is not None and self.touched_ms + config.ttl_s * 1000 <= now_ms

    def encode(self) -> bytes:
        """As stores and the bus have it."""
        tail, generation, closed = self.tail, self.generation, self.closed
        seq = b'""' if self.seq is None else orjson.dumps(self.seq.decode("latin-1"))
        # Once for each append where streams have one each.
        return b'{"g":"%d-%d","t":"%d-%d","x":"%b","s":%b,"r":%d,"d":%d,"m":%d,"b":%d,%b' % (
            *(generation >> 64, generation & _N_MASK, tail >> 64, tail & _N_MASK),
            position_text(closed).encode() if closed else b"",
            *(seq, self.forks, self.is_hidden, self.touched_ms, self.size_bytes),
            _config_members(self.config),
        )

    @classmethod
    def decode(cls, text: bytes | str) -> "StreamRow":
        """What `encode` wrote. Raises ValueError."""
        try:
            row = orjson.loads(text)
            return cls(
                read_position(row["g"]),
                _read_config(row["c"]),
                read_position(row["t"]),
                read_position(row["x"]) if row["x"] else 0,
                row["s"].encode("latin-1") if row["s"] else None,
                int(row["r"]),
                bool(row["d"]),
                int(row["m"]),
                int(row["b"]),
            )
        except (KeyError, TypeError, AttributeError):
            raise ValueError("not the row of a stream") from None


class StreamAsk(NamedTuple):
    """What is asked of the stream that is the event's first topic.

    - `create`: there is none; the event is the control entry that creates it.
    - `append`: it has this generation; the event is its content, or closes it.
    - `hide`: it has this generation and forks; from here on it is kept for them alone.
    - `drop`: it has this generation and no forks, and all of it goes.

    Attributes:
        generation: of the stream; 0 for `create`.
        seq: the `Stream-Seq`, which must be above the last one.
    """

    op: StreamOp
    generation: int = 0
    seq: bytes | None = None

    def encode(self) -> bytes:
        """As a draft has it."""
        seq = b"" if self.seq is None else b"=" + self.seq
        return b"%d %b%b" % (
            _OPS.index(self.op),
            position_text(self.generation).encode(),
            seq,
        )

    @classmethod
    def decode(cls, text: bytes) -> "StreamAsk":
        """What `encode` wrote. Raises ValueError."""
        head, has_seq, seq = text.partition(b"=")
        op, _, generation = head.partition(b" ")
        number = int(op)
        if not 0 <= number < len(_OPS):
            raise ValueError("nothing that is asked of a stream")
        return cls(_OPS[number], read_position(generation.decode()), seq if has_seq else None)


class StreamControl(NamedTuple):
    """What a control entry says of a stream: it was created, hidden or dropped."""

    op: StreamOp
    config: StreamConfig | None = None

    def encode(self) -> bytes:
        """As an entry carries it."""
        members: dict[str, Any] = {"op": f"stream-{self.op}"}
        if self.config is not None:
            members["config"] = orjson.Fragment(self.config.encode())
        # A copy: what orjson made keeps the room of the buffer that it was written into.
        return bytes(memoryview(orjson.dumps(members)))


def read_stream_control(text: bytes) -> StreamControl | None:
    """What a control entry says of a stream; None when it is about something else. Raises
    ValueError."""
    if not text.startswith(b'{"op":"stream-'):
        return None
    members = orjson.loads(text)
    for op in _OPS:
        if members["op"] == f"stream-{op}":
            config = members.get("config")
            return StreamControl(
                op, None if config is None else _read_config(orjson.dumps(config).decode())
            )
    return None
