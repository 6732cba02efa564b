"""What only the machine can tell of a configuration, before anything is served."""

import resource

from fastsse.config import Config, ConfigError, Loaded, OptionProblem

__all__ = ["check_start"]


def check_start(loaded: Loaded) -> None:
    """Raises ConfigError with every problem that a start would meet one after the other: a key set
    that can't be read, too few descriptors. May read a file."""
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
    """With the soft limit that a server gives itself; afterwards it is as before."""
    from fastsse.http.descriptors import Descriptors, raise_soft_limit

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    raise_soft_limit(config.max_connections)
    try:
        Descriptors.plan(config.max_connections)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
