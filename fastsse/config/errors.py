"""Problems of a configuration, one line each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fastsse.errors import FastsseError

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class OptionProblem:
    """The problem of one option: its name, its value as text (secrets masked), the origin of the
    value, and what it must be. With `value` None the option is unknown, and `allowed` says what to
    do."""

    option: str
    value: str | None
    origin: str
    allowed: str

    def __str__(self) -> str:
        origin = self.origin if self.origin == DEFAULT else f"from {self.origin}"
        if self.value is None:
            return f"{self.option} ({origin}) is not an option; {self.allowed}"
        return f"{self.option} = {self.value} ({origin}) must be {self.allowed}."


class ConfigError(FastsseError, ValueError):
    """The configuration is invalid. `str()` is one line about the first problem."""

    exit_status = 2

    def __init__(self, problems: Sequence[OptionProblem | str]) -> None:
        self.problems = tuple(problems) or ("The configuration is invalid.",)
        super().__init__(str(self.problems[0]))

    def with_origins(self, origin_of: Callable[[str], str]) -> "ConfigError":
        """The same problems, with `origin_of(option)` as the origin of each value."""
        return ConfigError(
            [
                replace(problem, origin=origin_of(problem.option))
                if isinstance(problem, OptionProblem)
                else problem
                for problem in self.problems
            ]
        )
