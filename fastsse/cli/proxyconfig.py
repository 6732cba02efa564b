"""`fastsse proxy-config`: the file of a proxy in front of the server, for its options."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from fastsse.cli.flags import ServerCommand, given_flags, server_options
from fastsse.config import Config, load
from fastsse.config.kinds import is_loopback
from fastsse.proxyconfig import PROXIES, Address, Recipe, RecipeError, errorfile, render
from fastsse.proxyconfig.recipe import check_domain, check_path, check_prefix

T = TypeVar("T")
_REPEATED_MAX = 1000
# The flags that are not options of the server.
_RECIPE_FLAGS = (
    "domains", "nodes", "listen", "cert", "key", "plain", "prefix", "resolver", "run_folder",
)  # fmt: skip


def _reader(read: Callable[[str], T]) -> Callable[..., Any]:
    """A callback of click that reads a flag's text, or each of several."""

    def callback(
        ctx: click.Context, parameter: click.Parameter, value: str | tuple[str, ...] | None
    ) -> T | tuple[T, ...] | None:
        try:
            if isinstance(value, tuple):
                if len(value) > _REPEATED_MAX:
                    raise ValueError(f"stands more than {_REPEATED_MAX} times")
                return tuple(dict.fromkeys(read(text) for text in value))
            return None if value is None else read(value)
        except ValueError as error:
            raise click.BadParameter(f"{error}; got {value!r}.", ctx, parameter) from None

    return callback


def _listen_address(text: str) -> Address:
    return Address.read(text, needs_host=False)


@click.command("proxy-config", cls=ServerCommand)
@click.argument("proxy", type=click.Choice(tuple(PROXIES)))
@click.option(
    "--domain",
    "domains",
    multiple=True,
    callback=_reader(check_domain),
    metavar="NAME",
    help="Public name of the site; repeat it for several. Required, except with --plain.",
)
@click.option(
    "--node",
    "nodes",
    multiple=True,
    callback=_reader(Address.read),
    metavar="ADDRESS",
    help="Where a node listens: host:port, [IPv6]:port or unix:/path; repeat it for several.  "
    "[default: the server's own host and port, or uds]",
)
@click.option(
    "--listen",
    multiple=True,
    callback=_reader(_listen_address),
    metavar="ADDRESS",
    help="Where the proxy listens: host:port, [IPv6]:port or :port; repeat it for several.  "
    "[default: :443, and :80 redirects to it; with --plain :80]",
)
@click.option(
    "--cert",
    callback=_reader(check_path),
    metavar="PATH",
    help="PEM file with the certificate and its chain.  [default: Caddy gets one itself; the usual "
    "place of the others]",
)
@click.option(
    "--key",
    callback=_reader(check_path),
    metavar="PATH",
    help="PEM file with the key.  [default: the file of --cert]",
)
@click.option("--plain", is_flag=True, help="HTTP/1.1 without TLS, for tries and inner networks.")
@click.option(
    "--path",
    "prefix",
    default="",
    callback=_reader(check_prefix),
    metavar="PATH",
    help="Serve below this path, such as /sse, which is removed from requests.",
)
@click.option(
    "--resolver",
    callback=_reader(Address.read),
    metavar="ADDRESS",
    help="Have HAProxy ask this DNS server (host:port) again for the names of nodes.",
)
@click.option(
    "--run-folder",
    default=None,
    callback=_reader(check_path),
    metavar="PATH",
    help="For a run without root: files of the proxy's own go here, and its log to standard error.",
)
@click.option(
    "--errorfile",
    "wants_errorfile",
    is_flag=True,
    help="Print the other file that HAProxy needs: its answer if no node can be reached.",
)
@server_options
@click.pass_context
def proxy_config(
    ctx: click.Context, /, proxy: str, wants_errorfile: bool, file: str | None, **flags: Any
) -> None:
    """Print a configuration file for nginx, HAProxy or Caddy in front of the server.

    The file has TLS, HTTP/2 (Caddy: HTTP/3 too), health checks and time limits for the options of
    the server: those of --config, of FASTSSE_ variables, and flags of `fastsse serve`. What the
    server needs for this proxy is printed to standard error.

    \b
    fastsse proxy-config nginx --domain sse.example.com > /etc/nginx/nginx.conf
    fastsse proxy-config haproxy --errorfile > /etc/haproxy/retry.http
    fastsse proxy-config caddy --domain sse.example.com --node 10.0.0.11:8080 --node 10.0.0.12:8080
    """
    if wants_errorfile:
        if proxy != "haproxy":
            raise click.UsageError("--errorfile is for HAProxy: the others need one file.")
        click.echo(errorfile(), nl=False)
        return
    own = {name: flags.pop(name) for name in _RECIPE_FLAGS}
    config = load(given_flags(ctx, flags), file).config
    recipe = _recipe(proxy, own, config)
    try:
        click.echo(render(proxy, recipe), nl=False)
    except RecipeError as error:
        raise click.UsageError(str(error)) from None
    for note in _notes(recipe, config):
        click.echo(note, err=True)


def _recipe(proxy: str, own: dict[str, Any], config: Config) -> Recipe:
    """The flags of the proxy, and the limits that it shares with the server."""
    if own["plain"] and (own["cert"] or own["key"]):
        raise click.UsageError("--plain has no certificate: leave --cert and --key out.")
    if own["key"] and not own["cert"]:
        raise click.UsageError("--key needs --cert.")
    return Recipe(
        domains=own["domains"],
        nodes=own["nodes"] or _own_addresses(config),
        listen=own["listen"],
        cert=own["cert"] or "",
        key=own["key"] or "",
        plain=own["plain"],
        prefix=own["prefix"],
        resolver=own["resolver"],
        run_folder=own["run_folder"] or "",
        heartbeat_s=config.heartbeat,
        idle_timeout_s=config.idle_timeout,
        max_body_bytes=config.max_body,
        max_head_bytes=config.max_head,
        max_connections=config.max_connections,
        health_port=config.admin_port or 0,
        proxy_protocol=config.proxy_protocol,
        command=f"fastsse proxy-config {proxy}",
    )


def _own_addresses(config: Config) -> tuple[Address, ...]:
    """Where a server with these options listens, seen from this machine: one address."""
    if config.uds is not None:
        try:
            return (Address(path=check_path(config.uds)),)
        except ValueError as error:
            raise click.UsageError(f"uds {error}; got {config.uds!r}. Give --node.") from None
    if config.fd is not None or not config.port:
        option = "port = 0" if config.fd is None else "fd"
        raise click.UsageError(f"With {option} the server's address is not known: give --node.")
    host = next(filter(is_loopback, config.host), config.host[0])
    return (Address.to_reach(host, config.port),)


def _notes(recipe: Recipe, config: Config) -> list[str]:
    """Options of the server that its clients need behind this proxy."""
    notes = []
    unknown = [name for name in recipe.domains if name not in config.allowed_hosts]
    if unknown and (config.allowed_hosts or not config.is_public):
        names = ", ".join(f'"{name}"' for name in (*config.allowed_hosts, *unknown))
        notes.append(f"The server needs allowed_hosts = [{names}], else it answers 421.")
    if not config.trusted_proxies:
        notes.append(
            "The server needs trusted_proxies with the proxy's address, else all clients share one "
            "address."
        )
    if not (config.publish_token or config.jwt_key or config.publisher_jwt_key or config.jwks_url):
        notes.append(
            "The server needs publish_token or a key for tokens: behind a proxy on this machine "
            "every client seems to be local, and may publish."
        )
    return notes
