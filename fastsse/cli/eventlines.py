"""Output formats of `fastsse listen`: for people, for pipes, or as JSON."""

import json
import re
import time
from typing import Protocol, TextIO

from rich.console import Console
from rich.text import Text

from fastsse.client.decoder import END, ReceivedEvent
from fastsse.client.listener import StreamState
from fastsse.client.view import Envelope

# All characters that a terminal could read as a command; line feed and tab are kept.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class Printer(Protocol):
    """Writes events to standard output and the state of the connection to standard error.

    `reads_envelopes`: whether it shows more than the data, and so asks for envelopes.
    """

    reads_envelopes: bool

    def event(self, event: ReceivedEvent) -> None:
        """Writes one event at once."""

    def state(self, state: StreamState) -> None:
        """Reports that the stream has opened, or that it is lost."""


def printer(as_json: bool, out: TextIO, err: TextIO) -> Printer:
    """The printer for this output."""
    if as_json:
        return JsonLines(out, err)
    return Readable(out, err) if out.isatty() else Plain(out, err)


def harmless(text: str) -> str:
    """`text` without characters that could control a terminal."""
    return _CONTROLS.sub(lambda found: repr(found[0])[1:-1], text)


def as_text(value: object) -> str:
    """A text as it is, another value as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


class Plain:
    """Writes the data unchanged, with a line end after each event; events of the server about the
    stream go to standard error."""

    reads_envelopes = False

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._out = out
        self._err = err

    def event(self, event: ReceivedEvent) -> None:
        """The data alone."""
        gap = event.gap
        if event.event == END:
            self._print_note("the topics have ended")
        elif not event.is_control:
            print(event.data, file=self._out, flush=True)
        elif gap is None:
            self._print_note(f"{event.event} {event.data}")
        else:
            what = f"gap ({gap.reason}) after {gap.requested or 'the start'}"
            self._print_note(f"{what}; continues from {gap.resumes_from}")

    def state(self, state: StreamState) -> None:
        """Reports only errors, because programs read pipes."""
        if state.kind == "waiting":
            self._print_note(f"{state.reason}; retry in {state.wait_s:.1f} s")

    def _print_note(self, text: str) -> None:
        print(harmless(text), file=self._err, flush=True)


class JsonLines(Plain):
    """Writes an object a line, in the form of envelopes; gaps are written as events too."""

    reads_envelopes = True

    def event(self, event: ReceivedEvent) -> None:
        """The whole event."""
        envelope = event.envelope or Envelope((), event.id, event.event, event.data, {}, None)
        topics = envelope.topics
        fields = {
            "topic": topics[0] if len(topics) == 1 else list(topics) or None,
            "id": event.id,
            "event": event.event,
            "data": envelope.data,
            "meta": dict(envelope.meta) or None,
            "time": envelope.time_ms,
        }
        print(json.dumps(fields), file=self._out, flush=True)


class Readable:
    """Writes time, topic, type, data and meta in columns, with colours if the terminal supports
    them."""

    reads_envelopes = True

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._out = Console(file=out, highlight=False, soft_wrap=True)
        self._err = Console(file=err, highlight=False, soft_wrap=True)

    def event(self, event: ReceivedEvent) -> None:
        """One line; further lines of data are indented below the first."""
        envelope = event.envelope
        at_s = (
            time.time() if envelope is None or envelope.time_ms is None else envelope.time_ms / 1000
        )
        head = Text(time.strftime("%H:%M:%S ", time.localtime(at_s)), style="dim")
        gap = event.gap
        if gap is not None:
            head.append("gap ", style="bold yellow")
            what = f"{gap.reason}; continues from {gap.resumes_from}"
            self._out.print(head.append(harmless(what), style="yellow"))
            return
        if event.event == END:
            self._out.print(head.append("the topics have ended", style="bold yellow"))
            return
        if envelope is not None and envelope.topics:
            head.append(harmless(", ".join(envelope.topics)) + " ", style="magenta")
        if event.event != "message":
            head.append(harmless(event.event) + " ", style="bold cyan")
        text = event.data if envelope is None else as_text(envelope.data)
        head.append(harmless(text).replace("\n", "\n" + " " * 9), style="default")
        if envelope is not None and envelope.meta:
            meta = " ".join(f"{name}={as_text(value)}" for name, value in envelope.meta.items())
            head.append(harmless(f"  {meta}"), style="dim")
        self._out.print(head)

    def state(self, state: StreamState) -> None:
        """Both the opening and the loss."""
        if state.kind == "open":
            self._err.print(Text("listening", style="green"))
        else:
            text = f"{harmless(state.reason)}; retry in {state.wait_s:.1f} s"
            self._err.print(Text(text, style="yellow"))
