"""What is wrong with a configuration, said in one line for each thing wrong."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fastsse.errors import FastsseError

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class OptionProblem:
    """One option that can't be used: its name, its value as text (secrets masked), where the
    value came from, and what it must be. With `value` None there is no such option, and
    `allowed` says what to do."""

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
    """The configuration can't be used. `str()` is one line about the first problem."""

    exit_status = 2

    def __init__(self, problems: Sequence[OptionProblem | str]) -> None:
        self.problems = tuple(problems) or ("The configuration can't be used.",)
        super().__init__(str(self.problems[0]))

    def with_origins(self, origin_of: Callable[[str], str]) -> "ConfigError":
        """The same problems, with `origin_of(option)` as the place each value came from."""
        return ConfigError(
            [
                replace(problem, origin=origin_of(problem.option))
                if isinstance(problem, OptionProblem)
                else problem
                for problem in self.problems
            ]
        )
