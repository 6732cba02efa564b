"""Declares options: their groups, and kinds of values with their parsing and description."""

import ipaddress
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Protocol
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from fastsse.units import format_duration, format_size, parse_duration_s, parse_size_bytes

MASK = "***"
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?", re.ASCII)
_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}", re.ASCII)
_HEADER_NAME = re.compile(r"[!#$%&'+.^_`|~0-9A-Za-z-]{1,100}", re.ASCII)
# At least two labels, because the names below `.com` have many owners.
_BELOW_A_DOMAIN = re.compile(
    r"\*\.[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.[a-z][a-z0-9-]*(?::[0-9]+)?", re.I | re.ASCII
)
_IMPLIED_PORTS = {"http": ":80", "https": ":443"}
# sockaddr_un has 108 bytes, including the NUL at the end.
_UNIX_PATH_BYTES_MAX = 107


@dataclass(frozen=True, slots=True)
class ValueKind:
    """A kind of value: its name in help (`metavar`), its description (`words`, then `example` after
    the bounds) and its format."""

    metavar: str
    words: str
    show: Callable[[Any], str] = str
    example: str = ""
    secret: bool = False


DURATION = ValueKind("DURATION", "a duration", format_duration, example="250ms, 10s or 1m30s")
SIZE = ValueKind("SIZE", "a size", format_size, example="64KB or 1MiB")
COUNT = ValueKind("N", "a whole number")
PATH = ValueKind("PATH", f"a path of 1 to {_UNIX_PATH_BYTES_MAX} bytes")
HOSTS = ValueKind("HOST", "one or more IP addresses or host names", ",".join)
NAMES = ValueKind("NAME", "host names without a port", ",".join, example="sse.example.com")
ORIGINS = ValueKind(
    "ORIGIN",
    "origins such as https://example.com or https://*.example.com, or only *",
    ",".join,
)
HEADER_NAMES = ValueKind("NAME", "names of headers", ",".join, example="X-Requested-With")
NETWORKS = ValueKind(
    "NETWORK", "IP addresses, networks, or unix", ",".join, example="10.0.0.0/8 or 192.0.2.7"
)
SECRET = ValueKind("TOKEN", "1 to 4096 visible ASCII characters", lambda _: MASK, secret=True)
GLOB = ValueKind("GLOB", "a pattern of 1 to 1024 characters", example="stocks/*")
PATTERN = ValueKind("REGEX", "a regular expression")
GLOBS = ValueKind("GLOBS", "1 to 100 patterns", ",".join)
SELECTORS = ValueKind(
    "TOPIC",
    "1 to 100 topics or templates",
    lambda topics: ",".join(topics) if isinstance(topics, tuple) else str(topics),
)
SCHEMA = ValueKind("SCHEMA", "a JSON Schema: a table, its JSON, or the path of a file")
RULES = ValueKind("JSON", "a list of at most 1000 tables with match and the values to change")
SWITCH = ValueKind("", "true or false", lambda value: str(value).lower())


def read_count(value: object) -> object:
    """A whole number from a number or digits; refuses bools, which are ints to Python."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,18}", value.strip(), re.ASCII):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError("must be a whole number")


def read_list(value: object) -> tuple[object, ...]:
    """Several values: a sequence, a JSON list, or text with commas between them."""
    if isinstance(value, str):
        # An IPv6 address may be in brackets too, hence the quote.
        if re.match(r'\[\s*(?:"|\]$)', value.strip()):
            return tuple(_read_json(value))
        return tuple(part.strip() for part in value.split(",")) if value.strip() else ()
    if isinstance(value, list | tuple):
        return tuple(part for item in value for part in read_list(item))
    raise ValueError("must be a list")


def read_rules(value: object) -> object:
    """A list of rules, or the JSON text of one."""
    return _read_json(value) if isinstance(value, str) else value


class Named(Protocol):
    """A table of the configuration that has a name."""

    @property
    def name(self) -> str:
        """Unique in its list."""


def repeated_names(option: str, tables: Iterable[Named]) -> Iterator[tuple[str, str]]:
    """The conflicts of tables of a list whose name an earlier one has."""
    names: set[str] = set()
    for index, table in enumerate(tables):
        if table.name in names:
            yield f"{option}[{index}].name", f"different from those of other {option}"
        names.add(table.name)


def _read_json(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("too deeply nested") from None


def read_choice(value: object) -> object:
    """One of the words of a Literal, in any letter case."""
    return value.lower() if isinstance(value, str) else value


def check_hosts(hosts: Iterable[str]) -> tuple[str, ...]:
    """Hosts without brackets and duplicates, in the given order."""
    return tuple(dict.fromkeys(_check_host(host) for host in hosts))


def check_names(names: Iterable[str]) -> tuple[str, ...]:
    """Host names in the form of a Host header, in lower case; addresses too, without brackets."""
    return check_hosts(name.lower() for name in names)


def _check_host(host: str) -> str:
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not _HOST_NAME.fullmatch(bare):
        ipaddress.ip_address(bare)  # Raises ValueError.
    return bare


def check_networks(networks: Iterable[str]) -> tuple[str, ...]:
    """Networks in their shortest form; `unix` stays, for peers of a Unix socket."""
    return tuple(dict.fromkeys(map(_check_network, networks)))


def _check_network(text: str) -> str:
    if text.lower() == "unix":
        return "unix"
    network = ipaddress.ip_network(text.strip("[]"))  # Raises ValueError, for host bits too.
    whole = network.prefixlen == network.max_prefixlen
    return str(network.network_address if whole else network)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`: a loopback address, or `localhost`.

    Other names count as public, because their addresses can change.
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.rstrip(".").lower() == "localhost"


def check_origins(origins: Iterable[str]) -> tuple[str, ...]:
    """Origins in the form of browsers (RFC 6454 §6.2), in lower case."""
    checked = tuple(dict.fromkeys(_check_origin(origin) for origin in origins))
    if "*" in checked and len(checked) > 1:
        raise ValueError("* must be the only one")
    return checked


def _check_origin(origin: str) -> str:
    if origin == "*":
        return origin
    parts = urlsplit(origin)
    whole = f"{parts.scheme}://{parts.netloc}"
    _ = parts.port  # Raises ValueError for an invalid port.
    if not parts.scheme or not parts.hostname or "@" in parts.netloc:
        raise ValueError("must be an origin")
    if whole.lower() != origin.lower() or not re.fullmatch(r"[\x21-\x7e]+", origin, re.ASCII):
        raise ValueError("must be an origin without a path")
    if "*" in parts.netloc and not _BELOW_A_DOMAIN.fullmatch(parts.netloc):
        raise ValueError("a star matches whole labels before a domain: https://*.example.com")
    # Browsers omit the default port of a scheme.
    return whole.lower().removesuffix(_IMPLIED_PORTS.get(parts.scheme.lower(), "/"))


def check_header_names(names: Iterable[str]) -> tuple[str, ...]:
    """Names of headers (RFC 9110 §5.6.2), without duplicates in any letter case."""
    chosen = {name.lower(): name for name in names}
    if not all(_HEADER_NAME.fullmatch(name) for name in chosen.values()):
        raise ValueError("must be names of headers")
    return tuple(chosen.values())


def check_unix_path(path: str) -> str:
    """A path that fits the kernel's socket address."""
    if not path or "\0" in path or len(path.encode()) > _UNIX_PATH_BYTES_MAX:
        raise ValueError("must be a path")
    return path


def check_token(token: SecretStr) -> SecretStr:
    """A token that is valid in an Authorization header."""
    if not _TOKEN.fullmatch(token.get_secret_value()):
        raise ValueError("must be visible ASCII")
    return token


Seconds = Annotated[float, BeforeValidator(parse_duration_s), DURATION]
Bytes = Annotated[int, BeforeValidator(parse_size_bytes), SIZE]
Count = Annotated[int, BeforeValidator(read_count), COUNT]
Choice = BeforeValidator(read_choice)
Switch = Annotated[bool, SWITCH]
Hosts = Annotated[
    tuple[str, ...],
    BeforeValidator(read_list),
    AfterValidator(check_hosts),
    Field(min_length=1),
    HOSTS,
]
Names = Annotated[tuple[str, ...], BeforeValidator(read_list), AfterValidator(check_names), NAMES]
Origins = Annotated[
    tuple[str, ...], BeforeValidator(read_list), AfterValidator(check_origins), ORIGINS
]
HeaderNames = Annotated[
    tuple[str, ...],
    BeforeValidator(read_list),
    AfterValidator(check_header_names),
    Field(max_length=100),
    HEADER_NAMES,
]
Networks = Annotated[
    tuple[str, ...], BeforeValidator(read_list), AfterValidator(check_networks), NETWORKS
]
Selectors = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=1024)], ...],
    BeforeValidator(read_list),
    Field(min_length=1, max_length=100),
    SELECTORS,
]
UnixPath = Annotated[str, AfterValidator(check_unix_path), PATH]
Token = Annotated[SecretStr, AfterValidator(check_token), SECRET]


class OptionGroup(BaseModel):
    """Options of one part of the server. Frozen; a component receives only its own group."""

    title: ClassVar[str]

    # A group is built only if it is used alone, as by tests: `Config` builds its own schema.
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, defer_build=True)


def option(default: object, help: str, **bounds: Any) -> Any:
    """An option with its default and help; `bounds` are those of pydantic (`ge`, `le`)."""
    return Field(default, description=help, **bounds)


def duration(default: str, help: str, *, least: str, most: str) -> Any:
    """A duration; its default and bounds are text with units."""
    return option(default, help, ge=parse_duration_s(least), le=parse_duration_s(most))


def size(default: str, help: str, *, least: str, most: str) -> Any:
    """A size; its default and bounds are text with units."""
    return option(default, help, ge=parse_size_bytes(least), le=parse_size_bytes(most))
