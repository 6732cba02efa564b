"""Puts interceptors and rules together, in the order in which they see an event."""

from collections.abc import Callable, Sequence
from typing import Any

from fastsse.backbone.judge import JudgedPositions, repeats_of
from fastsse.config import Config, ConfigError, OptionProblem
from fastsse.errors import InterceptorFailed
from fastsse.events import Event
from fastsse.interceptors import Interceptor, Interceptors, load_interceptors
from fastsse.rules.channels import EventRules

__all__ = ["Publish", "intercepting", "make_interceptors"]

Publish = Callable[[Sequence[Event], Callable[[Any], None]], None]


def make_interceptors(
    config: Config, rules: EventRules, own: Sequence[Interceptor] = ()
) -> Interceptors:
    """The interceptors: first those of the options, then those of the program, then the rules.
    Raises ConfigError."""
    try:
        named = load_interceptors(config.interceptors)
    except ValueError as error:
        value = ",".join(config.interceptors)
        problem = OptionProblem("interceptors", value, "an argument", f"installed: {error}")
        raise ConfigError([problem]) from error
    mine = [(getattr(one, "__qualname__", repr(one)), one) for one in own]
    last = rules.intercept if rules else None
    return Interceptors([*named, *mine], config.interceptor_time, last)


def intercepting(interceptors: Interceptors, publish: Publish) -> Publish:
    """Returns a `publish` whose events pass the interceptors first. A dropped event is
    acknowledged like a published one, and a copy is not counted as a repeat."""

    def publish_made(events: Sequence[Event], done: Callable[[Any], None]) -> None:
        try:
            made, firsts = interceptors.apply(events)
        except InterceptorFailed as failed:
            done(failed)
            return

        def acknowledge(outcome: Any) -> None:
            if isinstance(outcome, JudgedPositions):
                outcome.duplicates = repeats_of(outcome, made, outcome.duplicates, firsts)
            done(outcome)

        if made:
            publish(made, acknowledge)
        else:
            done(())

    return publish_made if interceptors else publish
