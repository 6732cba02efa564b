"""Loads the configuration from flags, environment and file, with the origin of each value."""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fastsse.config.catalogue import ENVIRONMENT_PREFIX, catalogue, closest_name
from fastsse.config.errors import DEFAULT, ConfigError, OptionProblem
from fastsse.config.mercure_variables import mercure_notes
from fastsse.config.relations import doubts
from fastsse.config.settings import Config

CONFIG_VARIABLE = "FASTSSE_CONFIG"
# FASTSSE_* variables that are not options of the server.
_OTHER_VARIABLES = {"CONFIG", "URL", "TOKEN", "SANITIZE"}
# Kubernetes gives every container such variables for a Service called `fastsse`.
_KUBERNETES_ADDRESS = re.compile(r"(?:tcp|udp|sctp)://", re.ASCII)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, the origin of each value by option name, and sentences for the log."""

    config: Config
    origins: Mapping[str, str]
    notes: tuple[str, ...]

    def origin_of(self, option: str) -> str:
        """The origin of the value of `port` or `topics[0].match`."""
        return _origin_of(self.origins, option)


def load(flags: Mapping[str, Any] | None = None, file: str | None = None) -> Loaded:
    """Read all sources: `flags` (by option name) over environment over `file` over defaults.

    `file` is the path of the TOML file; without it, the variable FASTSSE_CONFIG names the file.
    Raises ConfigError with every problem found; reads files and the environment.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    notes: list[str] = []
    path, path_origin = _file_named(file)
    if path is not None:
        read = _read_file(path, path_origin)
        values.update(read)
        origins.update({name: f"{path}: {name}" for name in read})
    variables = _read_environment(notes)
    values.update(variables)
    origins.update({name: ENVIRONMENT_PREFIX + name.upper() for name in variables})
    values.update(flags or {})
    origins.update({name: "--" + name.replace("_", "-") for name in flags or {}})
    return _validated(values, origins, notes)


def _validated(values: dict[str, Any], origins: dict[str, str], notes: list[str]) -> Loaded:
    try:
        config = Config(**values)
    except ConfigError as error:
        raise error.with_origins(partial(_origin_of, origins)) from None
    return Loaded(
        config,
        {name: origins.get(name, DEFAULT) for name in catalogue()},
        (*notes, *mercure_notes(config, os.environ), *doubts(config)),
    )


def _origin_of(origins: Mapping[str, str], option: str) -> str:
    name = re.split(r"[.\[]", option, maxsplit=1)[0]
    origin = origins.get(name, DEFAULT)
    # The file names a key inside a rule by its full name.
    return origin.removesuffix(name) + option if origin.endswith(f": {name}") else origin


def _file_named(flag: str | None) -> tuple[Path | None, str]:
    if flag is not None:
        return Path(flag), "--config"
    named = os.environ.get(CONFIG_VARIABLE)
    return (Path(named) if named else None), CONFIG_VARIABLE


def _read_file(path: Path, origin: str) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        allowed = f"a TOML file that can be read ({reason})"
    except UnicodeDecodeError as error:
        allowed = f"a TOML file in UTF-8 (byte {error.start} is not)"
    except ValueError as error:
        allowed = f"a TOML file ({' '.join(str(error).split()).lower()})"
    raise ConfigError([OptionProblem("config", f'"{path}"', origin, allowed)])


def _read_environment(notes: list[str]) -> dict[str, Any]:
    """The options set as FASTSSE_* variables; a probable mistake becomes a note."""
    given = {variable.lower(): text for variable, text in os.environ.items()}
    names = {name: ENVIRONMENT_PREFIX.lower() + name for name in catalogue()}
    values = {name: given[variable] for name, variable in names.items() if variable in given}
    for name in ("port", "admin_port"):
        if _KUBERNETES_ADDRESS.match(str(values.get(name, ""))):
            del values[name]
            notes.append(f"{ENVIRONMENT_PREFIX}{name.upper()} is an address, so it is ignored.")
    for variable in os.environ:
        name = variable.removeprefix(ENVIRONMENT_PREFIX)
        if name == variable or name in _OTHER_VARIABLES or name.lower() in catalogue():
            continue
        near = closest_name(name, list(catalogue()))
        if near:
            meant = ENVIRONMENT_PREFIX + near.upper()
            notes.append(f"{variable} is not an option; did you mean {meant}?")
    return values
