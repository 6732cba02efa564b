"""Options of interceptors, which see events before they are ordered."""

import re
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field

from fastsse.config.kinds import OptionGroup, Seconds, ValueKind, duration, option, read_list

__all__ = ["InterceptorOptions"]

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_NAMES: Final = ValueKind("NAME", "at most 16 names of entry points", ",".join, example="audit")


def _check_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("must be a name")
    return name


class InterceptorOptions(OptionGroup):
    """Functions of your own that see each event before it is ordered."""

    title = "Interceptors"

    interceptors: Annotated[
        tuple[Annotated[str, AfterValidator(_check_name)], ...],
        BeforeValidator(read_list),
        Field(max_length=16),
        _NAMES,
    ] = option(
        (),
        "Entry points of the group fastsse.interceptors that may drop, change or copy each event "
        "before it is ordered, in this order. Repeat it for several.",
    )
    interceptor_time: Seconds = duration(
        "50ms",
        "How long an interceptor may take for an event; a publish that takes longer is refused.",
        least="1ms",
        most="10s",
    )
