"""Logs: structlog on top of the standard `logging`, so an embedding program controls the output.

    log = get_logger("server")
    log.warning("Port is in use.", port=8080)

In an embedding program this module configures nothing: records go to the logger `fastsse` with
their fields as `extra`. The command line calls `configure`, which writes them to standard error:
coloured lines on a terminal, else a JSON object a line; or to systemd's journal.

Values may come from attackers (topics, paths, user agents). So every record is escaped: it is
always one line and contains no terminal command.

Field names must not be attributes of a `logging.LogRecord` (`name`, `args`, `msg`, `module`, …).
"""

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from types import MappingProxyType
from typing import Any, TextIO

import structlog
from structlog import dev
from structlog.stdlib import BoundLogger, ProcessorFormatter

from fastsse.config.options import LogOptions
from fastsse.journal import JOURNAL, JournalHandler

ROOT = "fastsse"
# Longer texts are shortened: people read records, and 100 topics may have 100 KiB.
_VALUE_MAX = 1000
_TOPICS_SHOWN = 10
_PLAIN_VALUE = re.compile(r"[\w.:/@%+*~-]+", re.ASCII)
_of_process: dict[str, object] = {}
_NOTHING: Mapping[str, str] = MappingProxyType({})
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def get_logger(part: str) -> BoundLogger:
    """The logger of a part of the server: `fastsse.<part>`. Any thread."""
    logger: BoundLogger = structlog.wrap_logger(
        logging.getLogger(f"{ROOT}.{part}"),
        wrapper_class=BoundLogger,
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.render_to_log_kwargs,
        ],
        cache_logger_on_first_use=True,
    )
    return logger


def configure(options: LogOptions, stream: TextIO | None = None, journal: str = JOURNAL) -> None:
    """Writes all logs of the process, including those of libraries, to `stream` (standard error),
    or to the socket `journal` if the options say so and it is there.

    The command line calls it once. If the stream can't be written to, records are lost without
    another effect.
    """
    stream = sys.stderr if stream is None else stream
    as_console = options.log_format == "console" or (
        options.log_format == "auto" and stream.isatty()
    )
    handler: logging.Handler = _Handler(stream, as_console)
    absent: OSError | None = None
    if options.log_format == "journal":
        try:
            handler = JournalHandler(journal)
        except OSError as error:
            absent = error
    colors = stream.isatty() and not os.environ.get("NO_COLOR")
    handler.setFormatter(_formatter(as_console, colors))
    root = logging.getLogger()
    for old in root.handlers:
        if isinstance(old, JournalHandler):
            old.close()
    root.handlers = [handler]
    # Libraries log only warnings and errors.
    root.setLevel(max(logging.WARNING, _LEVELS[options.log_level]))
    logging.getLogger(ROOT).setLevel(_LEVELS[options.log_level])
    if absent is not None:
        get_logger("server").warning("The journal can't be reached.", path=journal, why=str(absent))


def set_level(question: Mapping[str, Any]) -> dict[str, str]:
    """Sets the lowest level that a part of the server logs, and returns the levels that are set.

    `level` is `debug`, `info`, `warning` or `error`; without it nothing changes. `part` is a part
    (`access`, `http`); without it, the level holds for all parts that have none of their own. Any
    thread.
    """
    level, part = question.get("level"), question.get("part")
    if level is not None:
        logging.getLogger(ROOT if part is None else f"{ROOT}.{part}").setLevel(_LEVELS[level])
    names = {number: name for name, number in _LEVELS.items()}
    known = [ROOT, *(name for name in logging.root.manager.loggerDict if name.startswith(ROOT))]
    levels = {name: logging.getLogger(name).level for name in dict.fromkeys(known)}
    return {name: names.get(one, str(one)) for name, one in sorted(levels.items()) if one}


def is_console() -> bool:
    """Whether `configure` chose lines for people. False in a program that has its own logging."""
    return any(isinstance(one, _Handler) and one.is_console for one in logging.getLogger().handlers)


def name_worker(number: int) -> None:
    """Adds the number of this worker to each record, as `worker`, because each worker numbers its
    streams by itself."""
    _of_process["worker"] = number


def _add_process(_logger: object, _method: str, record: MutableMapping[str, Any]) -> Any:
    for name, value in _of_process.items():
        record.setdefault(name, value)
    return record


class _Handler(logging.StreamHandler[TextIO]):
    """Drops a record without a message when its reader has closed (a closed terminal, `| head`)."""

    def __init__(self, stream: TextIO, is_console: bool) -> None:
        super().__init__(stream)
        self.is_console = is_console

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, RUF100
        if not isinstance(sys.exception(), OSError | ValueError):
            super().handleError(record)


def _formatter(as_console: bool, colors: bool) -> ProcessorFormatter:
    return ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.ExtraAdder(),
            structlog.processors.TimeStamper(
                fmt="%H:%M:%S" if as_console else "iso", utc=not as_console, key="time"
            ),
            _add_process,
        ],
        processors=[
            ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            ConsoleLines(colors) if as_console else render_json,
        ],
    )


def render_json(_logger: object, _method: str, record: MutableMapping[str, Any]) -> str:
    """A record as one line of JSON that is safe on a terminal."""
    record["event"] = _shortened(record.get("event"))
    fields = {
        name: value if name == "exception" else _shortened(value) for name, value in record.items()
    }
    text = json.dumps(fields, ensure_ascii=False, default=repr)
    # Characters that json does not escape: C1 controls, line separators, direction marks, lone
    # surrogates. They occur only inside strings, where a JSON escape has the same meaning.
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


class ConsoleLines:
    """Renders a record as one line for people; the lines of `more` and of an exception follow,
    indented, in the same write."""

    def __init__(self, colors: bool) -> None:
        reset, dim, bright, cyan = (
            (dev.RESET_ALL, dev.DIM, dev.BRIGHT, dev.CYAN) if colors else ("",) * 4
        )
        levels = dev.ConsoleRenderer.get_default_level_styles(colors)
        self._render = dev.ConsoleRenderer(
            sort_keys=False,
            columns=[
                dev.Column("time", dev.KeyValueColumnFormatter(None, dim, reset, str)),
                dev.Column("level", dev.LogLevelColumnFormatter(levels, reset)),
                dev.Column("event", dev.KeyValueColumnFormatter(None, bright, reset, _one_line)),
                dev.Column("", dev.KeyValueColumnFormatter(cyan, "", reset, _console_value)),
            ],
        )

    def __call__(self, logger: Any, method: str, record: MutableMapping[str, Any]) -> str:
        exception = record.pop("exception", None)
        more = [f"         {_one_line(text)}" for text in record.pop("more", ())]
        trace = [] if exception is None else exception.split("\n")
        line = str(self._render(logger, method, record))
        return "\n".join([line, *more, *(f"  | {escape(text)}" for text in trace)])


def escape(text: str) -> str:
    """`text` in one line; control characters become Python escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _one_line(value: object) -> str:
    return escape(str(_shortened(value)))


def _console_value(value: object) -> str:
    """A value, quoted if it could be read as another field."""
    value = _shortened(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_console_value, value))}]"
    if isinstance(value, str) and _PLAIN_VALUE.fullmatch(value):
        return value
    return repr(value)


def _shortened(value: object) -> object:
    if isinstance(value, str) and len(value) > _VALUE_MAX:
        return value[:_VALUE_MAX] + "…"
    return value


class AccessLog:
    """Writes a line when a stream opens, when it ends, when a request is refused, and (at debug)
    for each publish.

    At most `access_lines` a second are written, and the others are counted. The server calls `tick`
    about once a second, which writes the counts in one line. A call that writes nothing costs much
    less than a microsecond. Loop thread only.
    """

    def __init__(self, options: LogOptions, log: BoundLogger | None = None) -> None:
        self._log = get_logger("access") if log is None else log
        self._lines_left = 0
        self._unwritten: dict[str, int] = {}
        #: The id of a stream, by its handle: the one that clients and operators see.
        self.name_of: Callable[[int], object] = int
        self.apply(options)

    def apply(self, options: LogOptions) -> None:
        """Applies new options."""
        self._access_lines = options.access_lines
        self.set_level(options.log_level)

    def set_level(self, level: str) -> None:
        """Follows another log level."""
        self._level = _LEVELS[level]
        self._lines_per_tick = self._access_lines if self._level <= logging.INFO else 0
        self._lines_left = self._lines_per_tick
        #: Whether `published` has an effect; if not, a caller may omit the call.
        self.logs_publishes = self._level <= logging.DEBUG

    def opened(
        self, stream: int, client: str, topics: Sequence[str], trail: Mapping[str, str] = _NOTHING
    ) -> None:
        """A stream was handed over. `client` is its address, `trail` what names its request."""
        if self._may_write("opened"):
            shown = list(topics[:_TOPICS_SHOWN])
            more = {"more_topics": len(topics) - len(shown)} if len(topics) > len(shown) else {}
            name = self.name_of(stream)
            self._log.info(
                "Stream opened.", stream=name, client=client, topics=shown, **more, **trail
            )

    def doubtful(self, stream: int | None, client: str, notes: str) -> None:
        """A stream was opened with unknown parameters, or a poll without a stream was answered."""
        if self._may_write("doubtful"):
            text = "; ".join(line.removeprefix(": fastsse: ") for line in notes.splitlines())
            named = {} if stream is None else {"stream": self.name_of(stream)}
            self._log.warning("Unknown parameters.", **named, client=client, notes=text)

    def closed(
        self, stream: int, reason: str, duration_s: float, events: int, sent_bytes: int
    ) -> None:
        """A stream ended."""
        if self._may_write("closed"):
            self._log.info(
                "Stream closed.",
                stream=self.name_of(stream),
                reason=reason,
                duration_s=round(duration_s, 3),
                events=events,
                bytes=sent_bytes,
            )

    def replaced(self, stream: int, network: str) -> None:
        """A ticket was opened again, which ended its earlier stream. `stream` is the newer one,
        `network` the address prefix of its client."""
        if self._may_write("replaced"):
            self._log.info(
                "The earlier stream of a ticket was ended.",
                stream=self.name_of(stream),
                network=network,
            )

    def published(self, client: str, events: int, sent_bytes: int, status: int) -> None:
        """A publish was answered."""
        if self.logs_publishes and self._may_write("published"):
            self._log.debug(
                "Published.", client=client, events=events, bytes=sent_bytes, status=status
            )

    def cut(self, client: str, events: int, last: str, dropped_bytes: int) -> None:
        """The body of a streamed publish was cut. `last` is the id of the last event."""
        if self._may_write("cut"):
            self._log.warning(
                "A streamed publish was cut.",
                client=client,
                events=events,
                last=last,
                dropped_bytes=dropped_bytes,
            )

    def unsent(self, client: str) -> None:
        """A client did not read an answer, and others needed the memory."""
        if self._may_write("unsent"):
            self._log.warning("A client that does not read was disconnected.", client=client)

    def skipped(self, client: str, skipped: Mapping[str, int]) -> None:
        """A relayed event stream had events about itself, which were left out."""
        if self._may_write("skipped"):
            self._log.warning("Events of a relay were left out.", client=client, **skipped)

    def refused(
        self, status: int, reason: str, client: str, *, field: str | None = None, **what: str
    ) -> None:
        """A request was refused. `field` is the invalid part, `what` describes the request."""
        if self._may_write("refused"):
            if field is not None:
                what["field"] = field
            self._log.info("Request refused.", status=status, reason=reason, client=client, **what)

    def tick(self) -> None:
        """Starts a new second: writes the counts of omitted lines, and allows lines again."""
        self._lines_left = self._lines_per_tick
        if self._unwritten:
            counts, self._unwritten = self._unwritten, {}
            self._log.info("Access lines were omitted.", **counts)

    def _may_write(self, what: str) -> bool:
        if self._lines_left:
            self._lines_left -= 1
            return True
        if self._level <= logging.INFO:
            self._unwritten[what] = self._unwritten.get(what, 0) + 1
        return False
