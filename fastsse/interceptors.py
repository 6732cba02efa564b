"""Interceptors: functions of an operator that see each event before it is ordered.

    def intercept(event: Event) -> Event | Sequence[Event] | None:
        if event.event == b"debug":
            return None  # dropped
        return [event, event.replace(topics="audit")]  # a copy for another topic

They run where an event is published, before rules and limits of the server are applied, so that all
nodes agree on the outcome. `apply` calls them in their order, each with what the one before
returned. An error refuses the whole publish.
"""

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from types import FrameType
from typing import Final, NamedTuple

from fastsse.directives import Directives, Producer, as_known, of_copy
from fastsse.errors import FastsseError, InterceptorFailed
from fastsse.events import Event
from fastsse.log import get_logger
from fastsse.reserved import check_not_reserved, is_reserved

__all__ = [
    "Intercepted",
    "Interceptor",
    "Interceptors",
    "in_share",
    "interrupt_interceptors",
    "load_interceptors",
]

log = get_logger("interceptors")
GROUP: Final = "fastsse.interceptors"
# What one event may become.
OUTPUTS_MAX: Final = 100
OUTCOMES: Final = ("changed", "copied", "dropped", "failed")
_LOG_EVERY_S: Final = 1.0

Interceptor = Callable[[Event], Event | Sequence[Event] | None]
_may_interrupt = False


class _TooSlow(BaseException):
    """Raised in an interceptor by the alarm; `except Exception` in it does not stop this."""


def in_share(subject: str | bytes, share: float, salt: str = "") -> bool:
    """Whether a subject belongs to a share of all subjects, 0 to 1.

    Always the same for the same subject and salt, in every process: who is in a share of 10 % is
    also in one of 20 %. Another salt selects others. O(bytes).
    """
    text = subject.encode() if isinstance(subject, str) else subject
    digest = blake2b(text, digest_size=8, key=salt.encode()[:64]).digest()
    return int.from_bytes(digest) < share * (1 << 64)


def load_interceptors(names: Sequence[str]) -> list[tuple[str, Interceptor]]:
    """The entry points of the group `fastsse.interceptors` with these names. Raises ValueError.
    With names it reads the entry points of every installed package, which takes milliseconds."""
    if not names:
        return []
    # Imported here, because most servers have no plug-ins.
    from importlib.metadata import entry_points

    found = {point.name: point for point in entry_points(group=GROUP)}
    loaded: list[tuple[str, Interceptor]] = []
    for name in names:
        if name not in found:
            known = ", ".join(sorted(found)) or "none are installed"
            raise ValueError(f"no entry point {name} of {GROUP} is installed ({known})")
        try:
            interceptor = found[name].load()
        except Exception as error:
            raise ValueError(f"the entry point {name} can't be loaded: {error}") from error
        if not callable(interceptor):
            raise ValueError(f"the entry point {name} is not callable")
        loaded.append((name, interceptor))
    return loaded


def interrupt_interceptors() -> None:
    """Lets the signal SIGALRM end interceptors that take too long. For programs of our own; main
    thread only."""
    global _may_interrupt
    _may_interrupt = threading.current_thread() is threading.main_thread()


class Intercepted(NamedTuple):
    """What interceptors made of events.

    Attributes:
        events: what is to be published, in order.
        firsts: for each event that was given, the place in `events` of the first that it became;
            None if it was dropped.
    """

    events: list[Event]
    firsts: list[int | None]


class Interceptors:
    """Calls interceptors. Loop thread only.

    Arguments:
        interceptors: each with a name for the log.
        limit_s: seconds that one call may take.
        rules: the interceptor behind them, without a limit: a machine that is busy must not make
            the server's own rules refuse a publish.
    """

    def __init__(
        self,
        interceptors: Sequence[tuple[str, Interceptor]],
        limit_s: float,
        rules: Interceptor | None = None,
    ) -> None:
        last = () if rules is None else (("rules", rules),)
        self._interceptors: Final = (*interceptors, *last)
        self._rules: Final = rules
        self._limit_s: Final = limit_s
        self._counts: Counter[str] = Counter()
        self._logged_s = -_LOG_EVERY_S
        self._unlogged = 0
        self._is_armed = False
        if _may_interrupt and interceptors:
            signal.signal(signal.SIGALRM, self._on_alarm)

    def __bool__(self) -> bool:
        return bool(self._interceptors)

    def carry_on(self, before: "Interceptors") -> None:
        """Counts on where those before stopped."""
        self._counts = before._counts

    def counters(self) -> dict[str, int]:
        """Events by outcome, under the names of the metrics."""
        return {f"intercepted_{outcome}": self._counts[outcome] for outcome in OUTCOMES}

    def apply(self, events: Sequence[Event]) -> Intercepted:
        """What is to be published. Raises InterceptorFailed; then nothing is."""
        made: list[Event] = []
        firsts: list[int | None] = []
        numbers: dict[Producer, None] = {}
        for event in events:
            outputs = [event] if _is_ours(event) else self._pass(event)
            firsts.append(len(made) if outputs else None)
            made += _directed(event, outputs)
            if not outputs:
                self._counts["dropped"] += 1
                if event.directives is not None and event.directives.producer is not None:
                    numbers[event.directives.producer] = None
            else:
                self._counts["changed"] += outputs[0] is not event
                self._counts["copied"] += len(outputs) - 1
        _give_request(events, made)
        made += _of_dropped(numbers, made)
        return Intercepted(made, firsts)

    def _pass(self, event: Event) -> list[Event]:
        events = [event]
        for name, interceptor in self._interceptors:
            events = [made for one in events for made in self._call(name, interceptor, one)]
            if len(events) > OUTPUTS_MAX:
                raise self._failed(name, f"it made more than {OUTPUTS_MAX} events of one")
        return events

    def _call(self, name: str, interceptor: Interceptor, event: Event) -> Sequence[Event]:
        try:
            if interceptor is self._rules:
                return _checked(event, interceptor(event))
            begun_s = time.perf_counter()
            with self._alarm():
                result = interceptor(event)
            if time.perf_counter() - begun_s > self._limit_s:
                raise _TooSlow
            return _checked(event, result)
        except _TooSlow:
            raise self._failed(name, f"it took more than {self._limit_s:g} s") from None
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise self._failed(name, reason, traceback=True) from error

    @contextmanager
    def _alarm(self) -> Iterator[None]:
        if not _may_interrupt:
            yield
            return
        self._is_armed = True
        signal.setitimer(signal.ITIMER_REAL, self._limit_s)
        try:
            yield
        finally:
            self._is_armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _on_alarm(self, number: int, frame: FrameType | None) -> None:
        if self._is_armed:
            self._is_armed = False
            raise _TooSlow

    def _failed(self, name: str, reason: str, *, traceback: bool = False) -> InterceptorFailed:
        """Counts and logs a failure: one line a second, with how many there were since."""
        self._counts["failed"] += 1
        now_s = time.monotonic()
        if now_s - self._logged_s < _LOG_EVERY_S:
            self._unlogged += 1
        else:
            unlogged, self._unlogged, self._logged_s = self._unlogged, 0, now_s
            log.error(
                "An interceptor failed; the publish was refused.",
                interceptor=name,
                reason=reason,
                unlogged_before=unlogged,
                exc_info=traceback,
            )
        return InterceptorFailed(name)


def _is_ours(event: Event) -> bool:
    """Whether it is a control entry, or an event of the server's own."""
    directives = event.directives
    is_control = directives is not None and directives.control is not None
    return is_control or any(map(is_reserved, event.topics))


def _directed(event: Event, outputs: Sequence[Event]) -> list[Event]:
    """What an event became, with what its publisher asked: the first is known by the same key, and
    each copy by one of its own. Topics end, wherever the event went."""
    asked = event.directives
    made = [
        one if one is event else one.directed(_asked_of(one, asked, number))
        for number, one in enumerate(outputs)
    ]
    if asked is not None and asked.ends and not _ends(made):
        made.append(Event.end(event.topics, event.private))
    return made


def _asked_of(made: Event, asked: Directives | None, number: int) -> Directives | None:
    return of_copy(asked, number) if number else as_known(made.directives, asked)


def _ends(made: Sequence[Event]) -> bool:
    first = made[0].directives if made else None
    return first is not None and first.ends


def _give_request(events: Sequence[Event], made: Sequence[Event]) -> None:
    """Has the first event have the key of the request, which stands for all that it became."""
    asked = events[0].directives if events else None
    if asked is not None and asked.request is not None and made:
        request = asked.request._replace(entry_count=len(made))
        made[0].direct((made[0].directives or Directives())._replace(request=request))


def _of_dropped(numbers: Iterable[Producer], made: Sequence[Event]) -> list[Event]:
    """Entries for appends of which nothing is left. Without them the producer's next append would
    be refused, because a number before it is missing."""
    kept = {one.directives.producer for one in made if one.directives is not None}
    return [Event.dropped(one) for one in numbers if one.refuses_gaps and one not in kept]


def _checked(event: Event, result: object) -> Sequence[Event]:
    """What an interceptor returned, as events. Raises TypeError, or Forbidden for a topic of the
    server."""
    if result is event:
        return (event,)
    events = () if result is None else (result,) if isinstance(result, Event) else result
    if not isinstance(events, list | tuple):
        raise TypeError("an interceptor returns an Event, a list of Events, or None")
    for one in events:
        if not isinstance(one, Event):
            raise TypeError("an interceptor returns an Event, a list of Events, or None")
        try:
            check_not_reserved(one.topics)
        except FastsseError as error:
            raise ValueError(str(error)) from None
    return events
