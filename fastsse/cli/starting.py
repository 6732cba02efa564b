"""Checks of a configuration that depend on the machine, before a server starts."""

import resource

from fastsse.config import Config, ConfigError, Loaded, OptionProblem

__all__ = ["check_start"]


def check_start(loaded: Loaded) -> None:
    """Raises ConfigError with every problem of a start: a key set that can't be read, too few
    descriptors. May read a file."""
    from fastsse.auth.guard import check_key_set_file

    problems: list[OptionProblem | str] = []
    for check in (_check_descriptors, check_key_set_file):
        try:
            check(loaded.config)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems).with_origins(loaded.origin_of)


def _check_descriptors(config: Config) -> None:
    """Checks with the soft limit that a server sets, and restores the limit."""
    from fastsse.http.descriptors import Descriptors, of_a_stream, raise_soft_limit

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    each, least = of_a_stream(config)
    raise_soft_limit(config.max_connections, each)
    try:
        Descriptors.plan(config.max_connections, each, least)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
