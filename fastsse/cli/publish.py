"""`fastsse publish`: an event from the arguments, one from each line of input, or a steady rate."""

import asyncio
import sys
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import click
import orjson

from fastsse.cli.clientoptions import read_duration, read_meta, server_address
from fastsse.cli.inputlines import Lines, publish_lines
from fastsse.cli.openloop import Pace, pace_options, publish_at_rate
from fastsse.cli.relay import relay_input
from fastsse.client.errors import ClientError
from fastsse.client.publisher import Publisher
from fastsse.client.receipts import Receipt
from fastsse.meta import MetaValue

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFlags:
    """The flags that say what is published; each is named as its option.

    Attributes:
        event_id: of `--id`.
        retry: seconds.
        ttl, deliver_at, delay: text, which the server reads.
        own_ids: only with `--sse`.
    """

    event: str | None
    event_id: str | None
    retry: float | None
    private: bool
    meta: dict[str, MetaValue] | None
    key: str | None
    expect: str | None
    ttl: str | None
    deliver_at: str | None
    delay: str | None
    receipt: bool
    end: bool
    own_ids: bool

    @property
    def retry_ms(self) -> int | None:
        """`--retry` in milliseconds."""
        return None if self.retry is None else round(self.retry * 1000)

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of `Publisher.publish`."""
        return {
            "event": self.event,
            "id": self.event_id,
            "retry": self.retry_ms,
            "private": self.private,
            "meta": self.meta,
            "key": self.key,
            "expect": self.expect,
            "ttl": self.ttl,
            "deliver_at": self.deliver_at,
            "delay": self.delay,
            "receipt": self.receipt,
            "end": self.end,
        }

    def of_each_line(self) -> dict[str, Any]:
        """The members that each line of standard input receives; None: not given."""
        return {
            "event": self.event,
            "retry": self.retry_ms,
            "private": self.private or None,
            "meta": self.meta,
        }

    def as_query(self) -> dict[str, str | int | None]:
        """The fields of each event of `--rate`, as parameters of a URL."""
        return {
            "event": self.event,
            "retry": self.retry_ms,
            "private": "true" if self.private else None,
            "meta": None if self.meta is None else orjson.dumps(self.meta).decode(),
        }

    def relayed(self) -> dict[str, Any]:
        """The keyword arguments of `Publisher.relay`."""
        return {
            "event": self.event,
            "retry": self.retry_ms,
            "private": self.private,
            "meta": self.meta,
            "own_ids": self.own_ids,
            "end_on_close": self.end,
        }

    def of_one_event(self) -> str | None:
        """The first given flag that is for one event."""
        given = (
            ("--id", self.event_id),
            ("--receipt", self.receipt or None),
            ("--key", self.key),
            ("--expect", self.expect),
            ("--ttl", self.ttl),
            ("--delay", self.delay),
            ("--deliver-at", self.deliver_at),
        )
        return next((name for name, value in given if value is not None), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The server; `patience` is in seconds."""

    url: str
    uds: str | None
    token: str | None
    patience: float

    async def open(self) -> Publisher:
        """A publisher, which prints to standard error why it waits."""
        return Publisher(
            self.url,
            token=self.token,
            uds=self.uds,
            patience_s=self.patience,
            on_wait=_print_wait,
        )


def _taken(kind: type[T], given: dict[str, Any]) -> T:
    """The object of this dataclass, of those flags that it has."""
    return kind(**{field.name: given[field.name] for field in fields(kind)})  # type: ignore[arg-type]


@click.command()
@click.argument("topic", required=False)
@click.argument("data", required=False)
@click.option("--event", metavar="TYPE", help="Event type.")
@click.option("--id", "event_id", metavar="ID", help="Event id, in place of one from the server.")
@click.option(
    "--retry",
    callback=read_duration,
    metavar="DURATION",
    help="Have clients wait this long before they reconnect.",
)
@click.option(
    "--private",
    is_flag=True,
    help="Send it only to subscribers whose token grants the topic.",
)
@click.option(
    "--meta",
    "meta",
    callback=read_meta,
    multiple=True,
    metavar="NAME=TEXT",
    help="Named value next to the data; NAME:=JSON for a number, true or false. Repeatable.",
)
@click.option(
    "--key", metavar="KEY", help="Publish it once: an event with a known key is not stored again."
)
@click.option(
    "--delay",
    metavar="DURATION",
    help="Publish it after this time, and print the id to cancel.",
)
@click.option("--deliver-at", metavar="TIME", help="Publish it at this time (RFC 3339).")
@click.option("--ttl", metavar="DURATION", help="Do not send it any more after this time.")
@click.option(
    "--expect",
    metavar="ID",
    help="Publish only if this is the id of the topic's newest event; earliest: if there is none.",
)
@click.option(
    "--receipt",
    is_flag=True,
    help="Print how many streams match the event, at the node and in the cluster.",
)
@click.option(
    "--end", is_flag=True, help="The topic ends behind this event; with --sse: behind the stream."
)
@click.option(
    "--ndjson",
    is_flag=True,
    help='Lines are objects with "topic", "data", "event", "id", "retry", "private", "meta", '
    '"end", "key", "expect", "ttl"; the arguments give missing members.',
)
@click.option(
    "--sse",
    is_flag=True,
    help="Standard input is an event stream: publish each of its events to TOPIC as it comes.",
)
@click.option(
    "--own-ids",
    is_flag=True,
    help="With --sse: keep the ids of the stream, in place of ids from the server.",
)
@click.option(
    "--patience",
    callback=read_duration,
    default="30s",
    show_default=True,
    metavar="DURATION",
    help="How long to wait for a server that is busy or not reachable.",
)
@pace_options
@server_address
def publish(topic: str | None, data: str | None, ndjson: bool, sse: bool, **given: Any) -> int:
    """Publish DATA to TOPIC, or each line of standard input as a separate event.

    Lines that arrive fast are sent together. With --rate, events are due at fixed times, and their
    data contains that time, for `fastsse swarm` to measure; a table is printed at the end. Exits
    with 0 if the server has accepted everything, 1 if it refused, 2 for wrong usage, 3 if it could
    not be reached.

    \b
    fastsse publish news hello
    tail -f app.log | fastsse publish logs --event line
    fastsse publish --ndjson < events.ndjson
    curl -N https://example.com/stream | fastsse publish run/1 --sse
    fastsse publish news --rate 1000/s --size 128 --duration 10s
    """
    pace, flags = _taken(Pace, given), _taken(EventFlags, given)
    target = _taken(Target, given)
    if pace.rate is not None:
        input_flag = "--ndjson" if ndjson else "--sse" if sse or flags.own_ids else None
        named = _check_paced_usage(topic, data, flags, input_flag, target.uds)
        query = flags.as_query()
        return publish_at_rate(pace, named, query, target.url, target.token, target.patience)
    _check_usage(topic, data, ndjson)
    if sse or flags.own_ids:
        _check_relay_usage(sse, topic, data, ndjson)
    if data is None:
        _check_no_single(flags, ends=flags.end and not sse)
    if stray := pace.companion_without_rate():
        raise click.UsageError(f"{stray} needs --rate, such as --rate 1000/s.")
    if sse:
        return relay_input(topic or "", flags.relayed(), target.open)
    with asyncio.Runner() as runner:
        publisher = runner.run(target.open())
        try:
            if topic is not None and data is not None:
                sent = _warned(runner.run(publisher.publish(topic, data, **flags.arguments())))
                _print_receipt(sent, counts_streams=flags.receipt)
            else:
                lines = Lines(topic, ndjson, flags.of_each_line())
                send = publisher.publish_ndjson
                publish_lines(lines, lambda batch: _warned(runner.run(send(batch))))
        finally:
            runner.run(publisher.aclose())
    return 0


def _check_usage(topic: str | None, data: str | None, ndjson: bool) -> None:
    if topic is None and not ndjson:
        raise click.UsageError("TOPIC is missing (with --ndjson the lines may name it).")
    if data is not None and ndjson:
        raise click.UsageError("--ndjson reads standard input; leave DATA out.")
    if data is None and sys.stdin.isatty():
        click.echo("Each line is an event; Ctrl-D ends the input.", err=True)


def _check_paced_usage(
    topic: str | None, data: str | None, flags: EventFlags, input_flag: str | None, uds: str | None
) -> str:
    if topic is None:
        raise click.UsageError("TOPIC is missing.")
    if data is not None:
        raise click.UsageError("With --rate the data is the time an event is due; leave DATA out.")
    if input_flag is not None:
        raise click.UsageError(
            f"{input_flag} can't be combined with --rate, which does not read standard input."
        )
    stray = "--end" if flags.end else flags.of_one_event()
    if stray is not None:
        raise click.UsageError(f"{stray} is for one event; with --rate there are many.")
    if uds is not None:
        raise click.UsageError("--rate publishes over TCP: use --url in place of --uds.")
    return topic


def _check_relay_usage(sse: bool, topic: str | None, data: str | None, ndjson: bool) -> None:
    if not sse:
        raise click.UsageError("--own-ids needs --sse.")
    if topic is None or data is not None or ndjson:
        raise click.UsageError("--sse reads standard input: give TOPIC, but no DATA or --ndjson.")


def _check_no_single(flags: EventFlags, *, ends: bool) -> None:
    """Input may have many events."""
    if ends:
        raise click.UsageError("--end is for one event: give its DATA, or use fastsse topics end.")
    if stray := flags.of_one_event():
        raise click.UsageError(f"{stray} is for one event: give its DATA.")


def _warned(receipt: Receipt) -> Receipt:
    """Prints what the server says may be wrong."""
    if receipt.warning:
        click.echo(f"Warning: {receipt.warning.rstrip('.')}.", err=True)
    return receipt


def _print_receipt(receipt: Receipt, *, counts_streams: bool) -> None:
    click.echo(receipt.id or receipt.scheduled)
    if counts_streams:
        click.echo(_streams_line(receipt))


def _streams_line(receipt: Receipt) -> str:
    if receipt.streams is None:
        return "The matching streams could not be counted."
    missing = receipt.streams.get("missing")
    note = f" (without {', '.join(missing)})" if missing else ""
    node, cluster = receipt.streams["node"], receipt.streams["cluster"]
    return f"{node} matching streams at the node, {cluster} in the cluster{note}"


def _print_wait(error: ClientError, wait_s: float) -> None:
    click.echo(f"{str(error).rstrip('.')}; retry in {wait_s:.1f} s", err=True)
