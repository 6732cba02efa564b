"""What the operator's commands share: requests to `/admin`, and tables."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import click
import httpx
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastsse.client.errors import Unreachable
from fastsse.client.http import (
    ANSWER_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    reason_of,
    refusal,
    request_headers,
)
from fastsse.log import escape
from fastsse.units import format_duration, format_size

Params = Mapping[str, str | int | None]
as_json_option = click.option(
    "--json", "as_json", is_flag=True, help="JSON, as the server sends it."
)
limit_option = click.option(
    "--limit",
    "-n",
    type=click.IntRange(1, 1_000_000),
    default=100,
    show_default=True,
    metavar="N",
    help="Show at most N.",
)


class AdminClient:
    """Requests to the operator's side of a server.

    Arguments:
        url: the server's address; its path is not used.
        uds: a Unix socket to connect to in place of the host.
        token: a token with the claim `fastsse.console`, or the console password.

    All methods raise ClientError.
    """

    def __init__(self, url: str, uds: str | None, token: str | None) -> None:
        parts = urlsplit(url)
        self._base = urlunsplit((parts.scheme, parts.netloc, "", "", ""))
        self._headers = request_headers(token, None)
        self._client = httpx.Client(
            transport=httpx.HTTPTransport(uds=uds) if uds else None,
            timeout=httpx.Timeout(CONNECT_TIMEOUT_S, read=ANSWER_TIMEOUT_S),
        )

    def __enter__(self) -> "AdminClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def ask(self, path: str, params: Params | None = None, method: str = "GET") -> dict[str, Any]:
        """The JSON object that answers a request; parameters that are None are left out."""
        given = {name: value for name, value in (params or {}).items() if value is not None}
        try:
            answer = self._client.request(
                method, self._base + path, params=given, headers=self._headers
            )
        except httpx.HTTPError as error:
            raise Unreachable(f"{self._base}: {reason_of(error)}.") from None
        if answer.status_code != httpx.codes.OK:
            raise refusal(answer, answer.content)
        found: dict[str, Any] = answer.json()
        return found

    def text(self, path: str) -> str:
        """The text that answers a GET."""
        try:
            answer = self._client.get(self._base + path, headers=self._headers)
        except httpx.HTTPError as error:
            raise Unreachable(f"{self._base}: {reason_of(error)}.") from None
        if answer.status_code != httpx.codes.OK:
            raise refusal(answer, answer.content)
        return answer.text

    def pages(self, path: str, params: Params, key: str, limit: int) -> Iterator[dict[str, Any]]:
        """The pages of a list, until they have `limit` rows of `key` together."""
        after: str | None = None
        while limit > 0:
            page = self.ask(path, {**params, "limit": min(limit, 500), "after": after})
            yield page
            limit -= len(page[key])
            after = page["next"]
            if after is None:
                return


def listed(pages: Iterable[Mapping[str, Any]], key: str) -> dict[str, Any]:
    """All pages as one answer."""
    rows: list[object] = []
    whole: dict[str, Any] = {}
    for page in pages:
        rows += page[key]
        whole = {**page, key: rows}
    return whole


def show_json(answer: Mapping[str, Any]) -> None:
    """An answer as JSON in one line."""
    click.echo(json.dumps(answer, ensure_ascii=False))


def warn_missing(answer: Mapping[str, Any]) -> None:
    """Names the workers and nodes that did not answer in time."""
    if answer.get("missing"):
        missing = ", ".join(map(str, answer["missing"]))
        click.echo(f"Not all answered in time: {missing}.", err=True)


def show_rows(
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, Callable[[Mapping[str, Any]], object]],
    right: Sequence[str] = (),
) -> None:
    """Rows as a table: aligned on a terminal, else separated by tabs."""
    if not sys.stdout.isatty():
        click.echo("\t".join(columns))
        for row in rows:
            click.echo("\t".join(cell(make(row)) for make in columns.values()))
        return
    Console(highlight=False).print(table_of(rows, columns, right))


def table_of(
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, Callable[[Mapping[str, Any]], object]],
    right: Sequence[str] = (),
) -> Table:
    """Rows as a table for a terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="ellipsis")
    for row in rows:
        table.add_row(*(Text(cell(make(row))) for make in columns.values()))
    return table


def cell(value: object) -> str:
    """A value as text in one line; texts of strangers are escaped."""
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return " ".join(escape(str(one)) for one in value)
    return escape(str(value))


def age(seconds: float | None) -> str:
    """A duration as people read it."""
    if seconds is None:
        return ""
    return format_duration(round(seconds) if seconds >= 1 else round(seconds, 1))


def size(count: int) -> str:
    """Bytes as people read them."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= factor:
            return f"{count / factor:.1f}{unit}"
    return format_size(count)
