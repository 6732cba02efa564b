"""Libraries of sources, which are extras: imported when a source needs them."""

import importlib
from types import ModuleType

from fastsse.errors import FastsseError

__all__ = ["MissingExtra", "import_extra"]


class MissingExtra(FastsseError):
    """A library that an option needs is not installed. The text has the command that installs
    it."""

    exit_status = 2


def import_extra(module: str, extra: str, what: str) -> ModuleType:
    """Imports a library of an extra. Raises MissingExtra.

    Arguments:
        module: its name.
        extra: of the package `fastsse`.
        what: what needs it, to begin a sentence.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if not (error.name or "").startswith(module.partition(".")[0]):
            raise
        text = f"{what} needs {module.partition('.')[0]}: pip install 'fastsse[{extra}]'"
        raise MissingExtra(text) from None
