"""Logs: structlog on top of the standard `logging`, so that a host program stays in charge.

    log = get_logger("server")
    log.warning("Port is in use.", port=8080)

As a library nothing is configured here: records go to the logger `fastsse` with their fields as
`extra`. The command line calls `configure`, which writes them to standard error: coloured lines
on a terminal, else a JSON object a line.

Values come from strangers (topics, paths, user agents). Whatever they hold, a record stays one
line and no terminal takes a command from it.

Field names must not be attributes of a `logging.LogRecord` (`name`, `args`, `msg`, `module`, …).
"""

import json
import logging
import os
import re
import sys
from collections.abc import MutableMapping, Sequence
from typing import Any, TextIO

import structlog
from structlog import dev
from structlog.stdlib import BoundLogger, ProcessorFormatter

from fastsse.config.options import LogOptions

ROOT = "fastsse"
# Longer texts are cut: a record is for people, and 100 topics may hold 100 KiB.
_VALUE_MAX = 1000
_TOPICS_SHOWN = 10
_PLAIN_VALUE = re.compile(r"[\w.:/@%+*~-]+", re.ASCII)
_of_process: dict[str, object] = {}
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


def configure(options: LogOptions, stream: TextIO | None = None) -> None:
    """Write all logs of the process, other libraries' too, to `stream` (standard error).

    Called once by the command line. A stream that can't be written to loses records, and
    disturbs nothing else.
    """
    stream = sys.stderr if stream is None else stream
    as_console = options.log_format == "console" or (
        options.log_format == "auto" and stream.isatty()
    )
    handler = _Handler(stream, as_console)
    colors = stream.isatty() and not os.environ.get("NO_COLOR")
    handler.setFormatter(_formatter(as_console, colors))
    root = logging.getLogger()
    root.handlers = [handler]
    # Other libraries speak up only when something is wrong.
    root.setLevel(max(logging.WARNING, _LEVELS[options.log_level]))
    logging.getLogger(ROOT).setLevel(_LEVELS[options.log_level])


def is_console() -> bool:
    """Whether `configure` chose lines for people. False in a program that has its own logging."""
    return any(isinstance(one, _Handler) and one.is_console for one in logging.getLogger().handlers)


def name_worker(number: int) -> None:
    """Has each record of this process say which of several workers writes it, as `worker`: what
    they count, streams above all, they count each for itself."""
    _of_process["worker"] = number


def _add_process(_logger: object, _method: str, record: MutableMapping[str, Any]) -> Any:
    for name, value in _of_process.items():
        record.setdefault(name, value)
    return record


class _Handler(logging.StreamHandler[TextIO]):
    """Gives a record up quietly when its reader is gone (a closed terminal, `| head`)."""

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
    """A record as one line of JSON that is harmless on a terminal too."""
    record["event"] = _shortened(record.get("event"))
    fields = {
        name: value if name == "exception" else _shortened(value) for name, value in record.items()
    }
    text = json.dumps(fields, ensure_ascii=False, default=repr)
    # What json leaves alone: C1 controls, line separators, direction marks, lone surrogates.
    # They can only stand inside strings, where such an escape is read back as the same.
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
    """`text` in one line without control characters, as Python would write them."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _one_line(value: object) -> str:
    return escape(str(_shortened(value)))


def _console_value(value: object) -> str:
    """A value that can't be taken for another field."""
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
    """A line when a stream opens, when it ends, and when a request is refused, and (at debug) one
    a publish.

    At most `access_lines` a second are written; the others are counted, and `tick`, which the
    server calls about once a second, writes the counts in one line. A call that writes nothing
    costs well under a microsecond. Loop thread only.
    """

    def __init__(self, options: LogOptions, log: BoundLogger | None = None) -> None:
        self._log = get_logger("access") if log is None else log
        self._lines_left = 0
        self._unwritten: dict[str, int] = {}
        self.apply(options)

    def apply(self, options: LogOptions) -> None:
        """Goes by other options from here on."""
        self._level = _LEVELS[options.log_level]
        self._lines_per_tick = options.access_lines if self._level <= logging.INFO else 0
        self._lines_left = self._lines_per_tick
        #: Whether `published` does anything; a caller may spare itself the call.
        self.logs_publishes = self._level <= logging.DEBUG

    def opened(self, stream: int, client: str, topics: Sequence[str]) -> None:
        """A stream was handed over. `client` is its address."""
        if self._may_write("opened"):
            shown = list(topics[:_TOPICS_SHOWN])
            more = {"more_topics": len(topics) - len(shown)} if len(topics) > len(shown) else {}
            self._log.info("Stream opened.", stream=stream, client=client, topics=shown, **more)

    def doubtful(self, stream: int, client: str, notes: str) -> None:
        """A stream was opened with parameters that mean nothing here."""
        if self._may_write("doubtful"):
            text = "; ".join(line.removeprefix(": fastsse: ") for line in notes.splitlines())
            self._log.warning("Unknown parameters.", stream=stream, client=client, notes=text)

    def closed(
        self, stream: int, reason: str, duration_s: float, events: int, sent_bytes: int
    ) -> None:
        """A stream ended."""
        if self._may_write("closed"):
            self._log.info(
                "Stream closed.",
                stream=stream,
                reason=reason,
                duration_s=round(duration_s, 3),
                events=events,
                bytes=sent_bytes,
            )

    def replaced(self, stream: int, network: str) -> None:
        """A ticket was opened again, which ended the stream that it had. `stream` is the newer one,
        `network` its client's address prefix."""
        if self._may_write("replaced"):
            self._log.info("A ticket's older stream was ended.", stream=stream, network=network)

    def published(self, client: str, events: int, sent_bytes: int, status: int) -> None:
        """A publish was answered."""
        if self.logs_publishes and self._may_write("published"):
            self._log.debug(
                "Published.", client=client, events=events, bytes=sent_bytes, status=status
            )

    def refused(
        self, status: int, reason: str, client: str, *, field: str | None = None, **what: str
    ) -> None:
        """A request was refused. `field` is what was wrong with it, `what` more of what it was."""
        if self._may_write("refused"):
            if field is not None:
                what["field"] = field
            self._log.info("Request refused.", status=status, reason=reason, client=client, **what)

    def tick(self) -> None:
        """A new second: write what was only counted, and allow lines again."""
        self._lines_left = self._lines_per_tick
        if self._unwritten:
            counts, self._unwritten = self._unwritten, {}
            self._log.info("Access lines not written.", **counts)

    def _may_write(self, what: str) -> bool:
        if self._lines_left:
            self._lines_left -= 1
            return True
        if self._level <= logging.INFO:
            self._unwritten[what] = self._unwritten.get(what, 0) + 1
        return False
