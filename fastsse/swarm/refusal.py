"""The one error of the load tools that a user can do something about."""

from __future__ import annotations

from fastsse.errors import FastsseError


class Refusal(FastsseError):
    """A run that can't be carried out as asked; the message says what to change.

    `exit_status` is what a command that it ends returns: wrong usage.
    """

    exit_status = 2
