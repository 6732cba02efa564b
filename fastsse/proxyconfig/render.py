"""Fills the templates of this folder. `@{name}` in a template is a value of this module."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from fastsse.proxyconfig.recipe import Address, Recipe, RecipeError
from fastsse.units import format_duration

__all__ = ["PROXIES", "errorfile", "render"]

_FOLDER: Final = Path(__file__).parent
_PLACE: Final = re.compile(r"@\{(\w+)\}")
# Connections of one nginx worker; more than that if the server's limit says so.
_CONNECTIONS: Final = 16_384
_SPARE_DESCRIPTORS: Final = 1024
# HAProxy keeps this much of a buffer free for rewriting.
_REWRITE_BYTES: Final = 1024
_HAPROXY_BUFFER_BYTES: Final = 16_384


def render(proxy: str, recipe: Recipe) -> str:
    """The configuration file of a proxy of `PROXIES`. Raises RecipeError for what that proxy
    can't do. Reads one file of the package."""
    name, values = PROXIES[proxy]
    if not recipe.plain and not recipe.domains:
        raise RecipeError("--domain is missing: the public name of the site.")
    template = (_FOLDER / name).read_text("utf-8")
    found = {
        **values(recipe),
        "command": recipe.command,
        "heartbeat": format_duration(recipe.heartbeat_s),
        "silence_s": str(recipe.silence_s),
        "reuse_s": str(recipe.reuse_s),
    }
    return _PLACE.sub(lambda place: found[place[1]], template)


def errorfile() -> str:
    """HAProxy's answer to a stream that no node can take. Reads one file of the package."""
    return (_FOLDER / "retry.http").read_text("utf-8")


def _lines(indent: str, lines: Iterable[str]) -> str:
    """Each line indented and ended; nothing for none."""
    return "".join(f"{indent}{line}\n" for line in lines)


def _escaped(path: str) -> str:
    """A checked path as a regular expression."""
    return path.replace(".", "\\.")


def _nginx(recipe: Recipe) -> Mapping[str, str]:
    if recipe.proxy_protocol:
        raise RecipeError(
            "nginx sends no PROXY protocol to HTTP servers: turn proxy_protocol off, and set "
            "trusted_proxies."
        )
    _refuse_resolver(recipe, "nginx resolves names of nodes when it starts or reloads")
    connections = max(_CONNECTIONS, 2 * recipe.max_connections + _SPARE_DESCRIPTORS)
    return {
        "descriptors": str(connections + _SPARE_DESCRIPTORS),
        "connections": str(connections),
        "run": _lines("", _nginx_run(recipe)),
        "temporary": _lines("    ", _nginx_temporary(recipe)),
        "nodes": _lines(
            "        ",
            (f"server {_nginx_node(node)} max_fails=1 fail_timeout=1s;" for node in recipe.nodes),
        ).rstrip("\n"),
        "streams": _lines(
            "        ",
            (f"~^GET{_escaped(path)}/?$ 1;" for path in recipe.stream_paths()[::2]),
        ).rstrip("\n"),
        "redirect": _NGINX_REDIRECT if recipe.is_on_443 else "",
        "listen": _lines("        ", _nginx_listen(recipe)).rstrip("\n"),
        "tls": _lines("        ", _nginx_tls(recipe)),
        "max_body": str(recipe.max_body_bytes),
        "max_head": str(recipe.max_head_bytes),
        "prefix": recipe.prefix,
        "strip": "/" if recipe.prefix else "",
    }


_NGINX_REDIRECT: Final = """\
    server {
        listen 80;
        return 301 https://$host$request_uri;
    }

"""


def _nginx_run(recipe: Recipe) -> Iterator[str]:
    if recipe.run_folder:
        yield f"pid {recipe.run_folder}/nginx.pid;"
        yield "error_log stderr warn;"
        yield "daemon off;"
    else:
        # The distribution's own.
        yield "pid /run/nginx.pid;"


def _nginx_temporary(recipe: Recipe) -> Iterator[str]:
    if recipe.run_folder:
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"):
            yield f"{name}_temp_path {recipe.run_folder}/{name};"


def _nginx_node(node: Address) -> str:
    return f"unix:{node.path}" if node.path else str(node)


def _nginx_listen(recipe: Recipe) -> Iterator[str]:
    usual = Address(port=80 if recipe.plain else 443)
    if not recipe.plain:
        yield "# From nginx 1.25.1 on: `listen … ssl;` and `http2 on;`."
    for address in recipe.listen or (usual,):
        yield f"listen {_nginx_listener(address)}{'' if recipe.plain else ' ssl http2'};"
    if recipe.domains:
        yield f"server_name {' '.join(recipe.domains)};"


def _nginx_listener(address: Address) -> str:
    if address.path:
        return f"unix:{address.path}"
    return str(address) if address.host else str(address.port)


def _nginx_tls(recipe: Recipe) -> Iterator[str]:
    if recipe.plain:
        return
    folder = f"/etc/letsencrypt/live/{recipe.domains[0]}"
    yield f"ssl_certificate {recipe.cert or f'{folder}/fullchain.pem'};"
    yield f"ssl_certificate_key {recipe.key or recipe.cert or f'{folder}/privkey.pem'};"
    yield "ssl_protocols TLSv1.2 TLSv1.3;"
    yield "ssl_session_cache shared:tls:10m;"


def _haproxy(recipe: Recipe) -> Mapping[str, str]:
    prefix = recipe.prefix
    return {
        "global": _lines("    ", _haproxy_global(recipe)),
        "resolvers": _haproxy_resolvers(recipe),
        "bind": _lines("    ", _haproxy_binds(recipe)).rstrip("\n"),
        "redirect": (
            "    bind :80\n    http-request redirect scheme https code 301 unless { ssl_fc }\n"
            if recipe.is_on_443
            else ""
        ),
        "streams": " ".join(recipe.stream_paths()),
        "prefix": (
            f"    http-request return status 404 unless {{ path_beg {prefix}/ }}\n"
            if prefix
            else ""
        ),
        "strip": f"    http-request replace-path {_escaped(prefix)}(/.*) \\1\n" if prefix else "",
        "server": (" resolvers dns init-addr none" if recipe.resolver else "")
        + (" send-proxy-v2 check-send-proxy" if recipe.proxy_protocol else ""),
        "errorfile": f"{recipe.run_folder or '/etc/haproxy'}/retry.http",
        "nodes": _haproxy_servers(recipe, _haproxy_health(recipe)),
        "tracking": _haproxy_servers(recipe, lambda number, _: f" track nodes/node{number}"),
    }


def _haproxy_global(recipe: Recipe) -> Iterator[str]:
    if not recipe.run_folder:
        yield "user haproxy"
        yield "group haproxy"
        yield "log /dev/log local0 notice"
    if not recipe.plain:
        yield "ssl-default-bind-options ssl-min-ver TLSv1.2"
    if recipe.max_head_bytes > _HAPROXY_BUFFER_BYTES:
        yield f"tune.bufsize {recipe.max_head_bytes + _REWRITE_BYTES}"


def _haproxy_resolvers(recipe: Recipe) -> str:
    if recipe.resolver is None:
        return ""
    held = _lines("    ", (f"hold {word} 1s" for word in ("valid", "nx", "timeout", "refused")))
    waits = _lines("    ", (f"timeout {word} 1s" for word in ("resolve", "retry")))
    return (
        "# A container that is created again has another address: names are resolved again.\n"
        f"resolvers dns\n    nameserver dns {recipe.resolver}\n{held}{waits}\n"
    )


def _haproxy_binds(recipe: Recipe) -> Iterator[str]:
    usual = Address(port=80 if recipe.plain else 443)
    tls = ""
    if not recipe.plain:
        cert = recipe.cert or f"/etc/haproxy/certs/{recipe.domains[0]}.pem"
        if recipe.key and recipe.key not in (recipe.cert, f"{recipe.cert}.key"):
            raise RecipeError(
                f"HAProxy reads the key from the file of the certificate, or from {cert}.key: give "
                "--cert that file, without --key."
            )
        yield "# One file: certificate, chain and key; or the key next to it, with the suffix .key."
        tls = f" ssl crt {cert} alpn h2,http/1.1"
    for address in recipe.listen or (usual,):
        yield f"bind {f'unix@{address.path}' if address.path else address}{tls}"


def _haproxy_servers(recipe: Recipe, more: Callable[[int, Address], str]) -> str:
    return _lines(
        "    ",
        (
            f"server node{number} {f'unix@{node.path}' if node.path else node}{more(number, node)}"
            for number, node in enumerate(recipe.nodes, 1)
        ),
    ).rstrip("\n")


def _haproxy_health(recipe: Recipe) -> Callable[[int, Address], str]:
    def health(_: int, node: Address) -> str:
        if not recipe.health_port:
            return ""
        return f"{' addr 127.0.0.1' if node.path else ''} port {recipe.health_port}"

    return health


def _caddy(recipe: Recipe) -> Mapping[str, str]:
    _refuse_resolver(recipe, "Caddy resolves names of nodes at each connection")
    return {
        "global": _lines("\t", _caddy_global(recipe)),
        "sites": ", ".join(_caddy_sites(recipe)),
        "bind": _lines("\t", _caddy_bind(recipe)),
        "tls": f"\ttls {recipe.cert} {recipe.key or recipe.cert}\n" if recipe.cert else "",
        "route": f"handle_path {recipe.prefix}/*" if recipe.prefix else "handle",
        "other": "\thandle {\n\t\trespond 404\n\t}\n" if recipe.prefix else "",
        "nodes": " ".join(f"unix/{node.path}" if node.path else str(node) for node in recipe.nodes),
        "health": _lines("\t\t\t", _caddy_health(recipe)),
        "proxy_protocol": "\t\t\t\tproxy_protocol v2\n" if recipe.proxy_protocol else "",
        "streams": " ".join(recipe.stream_paths()),
    }


def _caddy_global(recipe: Recipe) -> Iterator[str]:
    if recipe.plain:
        yield "auto_https off"
    elif not recipe.is_on_443:
        # Port 80 may belong to somebody else.
        yield "auto_https disable_redirects"
    if recipe.run_folder:
        yield f"admin unix/{recipe.run_folder}/admin.sock"
        yield f"storage file_system {recipe.run_folder}"
        yield "persist_config off"
    yield "servers {"
    yield "\tprotocols h1" if recipe.plain else "\tprotocols h1 h2 h3"
    yield "}"


def _caddy_sites(recipe: Recipe) -> Iterator[str]:
    scheme = "http://" if recipe.plain else "https://" if recipe.listen else ""
    ports = {address.port for address in recipe.listen if not address.path}
    if any(address.path for address in recipe.listen):
        raise RecipeError("--listen unix: is not made for Caddy: give a port.")
    if len(ports) > 1:
        raise RecipeError("Caddy listens with one port on all addresses: give --listen one port.")
    suffix = "".join(f":{port}" for port in ports)
    for domain in recipe.domains or ("",):
        yield f"{scheme}{domain}{suffix}" or ":80"


def _caddy_bind(recipe: Recipe) -> Iterator[str]:
    hosts = [address.host for address in recipe.listen if address.host]
    if hosts:
        yield f"bind {' '.join(hosts)}"


def _caddy_health(recipe: Recipe) -> Iterator[str]:
    if recipe.health_port and any(node.path for node in recipe.nodes):
        return  # Caddy asks only the node's own socket, which has no /healthz then.
    yield "# Checks liveness and not readiness: while the store is away streams stay open."
    yield "health_uri /healthz"
    yield "health_interval 500ms"
    yield "health_timeout 2s"
    if recipe.health_port:
        yield f"health_port {recipe.health_port}"
    if recipe.domains:
        yield "health_headers {"
        yield f"\tHost {recipe.domains[0]}"
        yield "}"


def _refuse_resolver(recipe: Recipe, instead: str) -> None:
    if recipe.resolver is not None:
        raise RecipeError(f"--resolver is for HAProxy: {instead}.")


#: A proxy to its template and the values of it.
PROXIES: Final[Mapping[str, tuple[str, Callable[[Recipe], Mapping[str, str]]]]] = {
    "nginx": ("nginx.conf", _nginx),
    "haproxy": ("haproxy.cfg", _haproxy),
    "caddy": ("Caddyfile", _caddy),
}
