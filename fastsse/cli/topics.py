"""`fastsse topics`: ends topics."""

import asyncio
from collections.abc import Awaitable, Callable

import click

from fastsse.cli.clientoptions import read_duration, server_address
from fastsse.client.errors import ClientError
from fastsse.client.publisher import Publisher

__all__ = ["topics"]

_PATIENCE = click.option(
    "--patience",
    callback=read_duration,
    default="30s",
    show_default=True,
    metavar="DURATION",
    help="How long to wait for a server that is busy or not reachable.",
)
_TOPICS = click.argument("topics", nargs=-1, required=True, metavar="TOPIC...")


@click.group()
def topics() -> None:
    """End topics.

    \b
    fastsse topics end run/1
    """


@topics.command()
@_TOPICS
@_PATIENCE
@server_address
def end(
    topics: tuple[str, ...], patience: float, url: str, uds: str | None, token: str | None
) -> int:
    """End each TOPIC: it takes no more events, and streams that follow nothing else are over.

    Prints the id of the end. A topic that has ended already stays as it is.
    """

    async def act(publisher: Publisher) -> None:
        for topic in topics:
            click.echo(await publisher.end_topic(topic))

    return _run(act, url, token, uds, patience)


def _run(
    act: Callable[[Publisher], Awaitable[None]],
    url: str,
    token: str | None,
    uds: str | None,
    patience_s: float,
) -> int:
    async def run() -> None:
        async with Publisher(
            url, token=token, uds=uds, patience_s=patience_s, on_wait=_tell_wait
        ) as publisher:
            await act(publisher)

    asyncio.run(run())
    return 0


def _tell_wait(error: ClientError, wait_s: float) -> None:
    click.echo(f"{str(error).rstrip('.')}; retry in {wait_s:.1f} s", err=True)
